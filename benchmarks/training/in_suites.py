"""The trainings of a suite: each carried out with several seeds, as `lisabench train` in a process of its own."""

import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ...harness.errors import UsageError
from ...harness.memory import card_bytes
from ...harness.records.journal import holds_run
from ...harness.records.training import read_training
from ..claim import Claim
from .setup import setup

FOLDER = "trainings"
COMPLETE, OOM, SKIPPED, FAILED = "complete", "oom", "skipped", "failed"
DONE = (COMPLETE, OOM, SKIPPED)  # what a resumed run does not do again
OURS = ("seed", "output_dir", "checkpoint_dir", "resume", "config")
NEEDS_GPU = "it takes an NVIDIA GPU"

Options = Mapping[str, Any]


def check(trainings: Mapping[str, Options]) -> None:
    """Against what `lisabench train` knows, without loading a model.

    Raises:
        UsageError: naming the training, and what is wrong with it.
    """
    for name, options in trainings.items():
        if not re.fullmatch(r"[\w.+-]+", name):
            raise UsageError(
                f"training {name!r}: its name is that of a folder; take letters, digits, - and _"
            )
        for said in options.keys() & set(OURS):
            raise UsageError(f"training {name}: {said} is set by the suite, and cannot be said")
        try:
            setup(options)
        except UsageError as error:
            raise UsageError(f"training {name}: {error}") from error


def check_card(claim: Claim, trainings: Mapping[str, Options]) -> None:
    """
    Raises:
        UsageError: a training is claimed to fit a card that it is not capped to.
    """
    if not (claim.of_trainings and claim.is_fit):
        return
    cap = trainings[claim.candidate or ""].get("gpu_memory")
    if cap is None or card_bytes(cap) != card_bytes(claim.card or ""):
        raise UsageError(
            f"claim {claim.claim!r} has a card of {claim.card}, and the training {claim.candidate} is capped to {cap}; "
            f"give it gpu_memory: {claim.card}"
        )


def first_rows(trainings: Mapping[str, Options], seeds: int) -> list[dict[str, Any]]:
    """What ``run.json`` says of them before they begin, in their order: seed by seed, and every other time back."""
    names = list(trainings)
    turns = [
        (name, seed)
        for seed in range(seeds)
        for name in (names if seed % 2 == 0 else reversed(names))
    ]
    return [
        {
            "name": name,
            "seed": seed,
            "folder": f"{FOLDER}/{name}-{seed}",
            "status": None,
            "reason": None,
        }
        for name, seed in turns
    ]


def carry_out(run: Path, row: Mapping[str, Any], options: Options, gpu: bool) -> dict[str, Any]:
    """Trains, from where an earlier attempt came to.

    Args:
        run: folder of the suite's run.
        row: one of `first_rows`.
        options: of the training.
        gpu: whether there is one.

    Returns:
        Its status and, unless it is complete, the reason in one line.
    """
    if not gpu and (options.get("gpu_memory") or options.get("device") == "cuda"):
        return {"status": SKIPPED, "reason": NEEDS_GPU}
    folder = run / row["folder"]
    begun = holds_run(folder)
    if begun and read_training(folder).manifest.status == COMPLETE:
        return {"status": COMPLETE, "reason": None}
    folder.parent.mkdir(exist_ok=True)
    config = folder.with_name(f"{folder.name}.yaml")
    config.write_text(yaml.safe_dump(dict(options)), encoding="utf-8")
    words = [
        "--config",
        config,
        "--seed",
        row["seed"],
        "--output_dir",
        folder,
        *(["--resume"] if begun else []),
    ]
    return _outcome([sys.executable, "-m", "lisabench.cli", "train", *map(str, words)])


def _outcome(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode == 0:
        return {"status": COMPLETE, "reason": None}
    if done.returncode < 0:
        return {
            "status": FAILED,
            "reason": f"the process was ended by {signal.Signals(-done.returncode).name}",
        }
    said = [line for line in done.stderr.splitlines() if line.strip()] or [
        f"it ended with {done.returncode}"
    ]
    full = [line for line in said if "out of memory" in line.lower()]
    reason = (full or said)[-1].removeprefix("lisabench: ")
    return {"status": OOM if full else FAILED, "reason": reason}
