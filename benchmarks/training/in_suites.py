"""The trainings of a suite: each with several seeds, as ``lisabench train`` in its own process."""

import re
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from ...harness.errors import UsageError, reason_of
from ...harness.memory import card_bytes
from ...harness.records.journal import holds_run
from ...harness.records.manifest import SuiteTraining
from ...harness.records.training import read_training
from ...harness.records.whole_file import whole_file
from ...reports.cards import Unlimited, fits_by_peak, why_not_imitated
from ...reports.training.cards import unlimited
from .. import subprocesses
from ..claim import Claim
from ..subprocesses import Command
from .setup import resolve_setup

FOLDER = "trainings"
COMPLETE, OOM, SKIPPED, FAILED = "complete", "oom", "skipped", "failed"
BY_PEAK = "by peak"  # on a card: the peak of the training without a limit decides
# A resumed run does not repeat these: out of memory would happen again.
DONE = (COMPLETE, OOM, SKIPPED, BY_PEAK)
SET_BY_THE_SUITE = ("seed", "output_dir", "checkpoint_dir", "resume", "config")
NEEDS_GPU = "it takes an NVIDIA GPU"

Options = Mapping[str, Any]


def check(trainings: Mapping[str, Options]) -> None:
    """Check the options of a suite's trainings, without loading a model.

    Raises:
        UsageError: names the training, and what is wrong with it.
    """
    for name, options in trainings.items():
        if not re.fullmatch(r"[\w.+-]+", name):
            raise UsageError(
                f"training {name!r}: its name is that of a folder; take letters, digits, - and _"
            )
        for option in SET_BY_THE_SUITE:
            if option in options:
                raise UsageError(
                    f"training {name}: {option} is set by the suite, and must be left out"
                )
        try:
            resolve_setup(options)
        except UsageError as error:
            raise UsageError(f"training {name}: {error}") from error


def check_card(claim: Claim, trainings: Mapping[str, Options]) -> None:
    """Check that a training which is claimed to fit a card is not limited to another one.

    Raises:
        UsageError: it is.
    """
    if not (claim.of_trainings and claim.is_fit):
        return
    cap = trainings[claim.candidate or ""].get("gpu_memory")
    if cap is not None and card_bytes(cap) != card_bytes(claim.card or ""):
        raise UsageError(
            f"claim {claim.claim!r} has a card of {claim.card}, but the training {claim.candidate} "
            f"is capped to {cap}; give it gpu_memory: {claim.card}, or none"
        )


def planned(
    trainings: Mapping[str, Options], seeds: int, fits: Sequence[tuple[str, str]] = ()
) -> list[SuiteTraining]:
    """Return the trainings of a suite, each with each seed, in the order in which they are done.

    All trainings are done with a seed before the next seed. The order is reversed with every other
    seed, so that a machine that slowly drifts favours none of them.

    Args:
        trainings: options by name.
        seeds: how many.
        fits: each training with each card that it is tried on, with the first seed. These come
            last: most are decided by the peak of the training without a limit.
    """
    in_order = []
    for seed in range(seeds):
        names = list(trainings)
        if seed % 2 == 1:
            names.reverse()
        for name in names:
            in_order.append(SuiteTraining(name, seed, folder=f"{FOLDER}/{name}-{seed}"))
    for name, card in fits:
        folder = f"{FOLDER}/{name}-0-{card.replace(' ', '')}"
        in_order.append(SuiteTraining(name, 0, folder, card=card))
    return in_order


def carry_out(
    run: Path,
    training: SuiteTraining,
    options: Options,
    has_gpu: bool,
    gpu: str | None = None,
    gpu_bytes: int | None = None,
    trainings: Sequence[SuiteTraining] = (),
) -> SuiteTraining:
    """Train, or continue a training that was begun.

    A training on a card is carried out only where its peak without a limit is near the card's size.

    Args:
        run: folder of the suite's run.
        training: one of `planned`.
        options: of the training.
        has_gpu: whether there is a GPU.
        gpu: the one that all of the run is on, such as ``cuda:1``; None: as the options say.
        gpu_bytes: memory of the GPU; None if it is not known.
        trainings: all of the run, as they have ended so far.

    Returns:
        The training with its `status` and, unless it is complete, the `reason` in one line. Its
        status is None where it waits for the training without a limit.
    """
    if training.card is not None:
        options = {**options, "gpu_memory": training.card}
        if has_gpu:
            without_limit = unlimited(run, trainings, training.name, gpu_bytes)
            if without_limit is None:
                return training
            decided = _decided_by_peak(training, training.card, without_limit)
            if decided is not None:
                return decided
    on_gpu = str(options.get("device")).startswith("cuda")
    if (on_gpu or options.get("gpu_memory")) and not has_gpu:
        return replace(training, status=SKIPPED, reason=NEEDS_GPU)
    folder = run / training.folder
    is_begun = holds_run(folder)
    if is_begun and read_training(folder).manifest.status == COMPLETE:
        return replace(training, status=COMPLETE, reason=None)

    folder.parent.mkdir(exist_ok=True)
    config = folder.with_name(f"{folder.name}.yaml")
    with whole_file(config) as temporary:
        temporary.write_text(yaml.safe_dump(dict(options)), encoding="utf-8")
    command = [sys.executable, "-m", "lisabench", "train"]
    command += ["--config", str(config)]
    command += ["--seed", str(training.seed)]
    command += ["--output_dir", str(folder)]
    if gpu is not None and resolve_setup(options).case.device != "cpu":
        command += ["--set", f"device={gpu}"]
    if is_begun:
        command.append("--resume")
    done = subprocesses.run(Command(command, Path.cwd()))[0]
    status, reason = _outcome(done.returncode, done.stderr)
    return replace(training, status=status, reason=reason)


def _decided_by_peak(
    training: SuiteTraining, card: str, without_limit: Unlimited
) -> SuiteTraining | None:
    """Return a training on a card that need not or cannot be carried out; None if it must be."""
    if fits_by_peak(without_limit, card) is not None:
        return replace(training, status=BY_PEAK, reason=None)
    why_not = why_not_imitated(without_limit.gpu_bytes, card)
    if why_not is not None:
        return replace(training, status=SKIPPED, reason=why_not)
    return None


def _outcome(returncode: int, stderr: str) -> tuple[str, str | None]:
    """Return how a training has ended, and why unless it is complete."""
    if returncode == 0:
        return COMPLETE, None
    if returncode < 0:
        signal_name = signal.Signals(-returncode).name
        return FAILED, f"the process was ended by {signal_name}"
    lines = [line for line in stderr.splitlines() if line.strip()]
    # The allocator's message is not always the last line: other threads may print after it.
    oom_lines = [line for line in lines if "out of memory" in line.lower()]
    if oom_lines:
        return OOM, reason_of(oom_lines[-1])
    reason = lines[-1] if lines else f"it ended with {returncode}"
    return FAILED, reason_of(reason)
