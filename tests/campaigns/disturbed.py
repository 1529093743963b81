"""What the campaigns disturb: runs, trainings, studies and gates, as small as they can be."""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml
from raw_runs import raw_run
from sessions import QUICK, QUICK_PLAN, keys
from small_clone import git, write_clone
from waiting import HANGS_AFTER_S

from lisabench.harness.records.study import read_study
from lisabench.harness.records.training import read_training

MARK = "LISABENCH_CAMPAIGN"  # a variable of the environment, which all processes of a run inherit
# Multiprocessing leaves the folder of its socket where a process is killed, and PyTorch keeps what
# it has compiled for the next process.
MAY_STAY = ("pymp-*", "torchinductor_*")

Run = subprocess.Popen[str]
# How often each record is there.
Keys = tuple[Counter[tuple[object, ...]], ...]


@dataclass(frozen=True)
class Activity:
    """What a campaign has done again and again.

    Attributes:
        begin: returns the words of the command that begins it in a folder.
        resume: returns those that go on with it; None: what was begun is begun anew.
        keys: reads its records from its folder.
        temporary: the folder for its temporary files.
        repository: the current folder of its command, where that must be a git repository.
    """

    begin: Callable[[Path], tuple[object, ...]]
    resume: Callable[[Path], tuple[object, ...]] | None
    keys: Callable[[Path], Keys]
    temporary: Path
    repository: Path | None = None


def a_run(workspace: Path) -> Activity:
    """Return a run of two fakes, whose suite is written into the workspace."""
    suite = _suite_of_two_fakes(workspace, processes=3)
    return Activity(
        begin=lambda folder: ("run", suite, "--out", folder),
        resume=lambda folder: ("run", "--resume", "--out", folder),
        keys=keys_of_run,
        temporary=_temporary(workspace),
    )


def a_training(workspace: Path) -> Activity:
    """Return a training of six steps, with a checkpoint after each third."""
    words = ("train", "--device", "cpu", "--recipe", "everything", "--epochs", "3")
    words += ("--max_train_samples", "4", "--batch_size", "2", "--max_val_samples", "2")
    words += ("--save_steps", "3")
    return Activity(
        begin=lambda folder: (*words, "--out", folder),
        resume=lambda folder: (*words, "--resume", "--out", folder),
        keys=keys_of_training,
        temporary=_temporary(workspace),
    )


def a_study(workspace: Path) -> Activity:
    """Return a study of a dual and a variant of it."""
    words = ("--seed", "0", "--variant", "clip", "--scenes", "4", "--queries", "3")
    words += ("--val-queries", "3", "--batch", "2", "--dual-steps", "3", "--steps", "2")
    words += ("--device", "cpu")
    return Activity(
        begin=lambda folder: ("study", folder, *words),
        resume=lambda folder: ("study", folder, *words),
        keys=keys_of_study,
        temporary=_temporary(workspace),
    )


def a_gate(workspace: Path) -> Activity:
    """Return a gate of a working tree and its last commit, in two pairs of processes."""
    repository = write_clone(workspace / "repository")
    suite = _suite_of_two_fakes(workspace, processes=2)
    return Activity(
        begin=lambda folder: ("run", suite, "--against", "HEAD", "--out", folder),
        resume=None,
        keys=keys_of_gate,
        temporary=_temporary(workspace),
        repository=repository,
    )


ACTIVITIES = {"run": a_run, "training": a_training, "study": a_study, "gate": a_gate}


def _suite_of_two_fakes(workspace: Path, processes: int) -> Path:
    content = {
        "title": "two fakes",
        "reference": "a",
        "data": {"count": 6},
        "plan": QUICK_PLAN | {"processes": processes},
        "cases": {"a": QUICK, "b": QUICK | {"vision_ms": 9.0}},
        "gate": {"peak": None},  # of so few pairs, its interval would be too wide
    }
    path = workspace / "two-fakes.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def _temporary(workspace: Path) -> Path:
    folder = workspace / "t"  # a short name: paths of sockets have at most 107 characters
    folder.mkdir()
    return folder


def start(
    activity: Activity,
    folder: Path,
    mark: str,
    limit: Callable[[], None] | None = None,
    prefix: tuple[str, ...] = (),
) -> Run:
    """Start an activity, or resume it if it has begun.

    Args:
        activity: what to do.
        folder: for its records.
        mark: by which its processes can be found.
        limit: is called in the process before all else, such as to set a limit of the system.
        prefix: a command that runs the command, such as one that gives up rights.
    """
    words = activity.begin(folder)
    if activity.resume is not None and (folder / "run.json").exists():
        words = activity.resume(folder)

    def prepare() -> None:
        # A shell that starts a campaign in the background has it ignore interrupts.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if limit is not None:
            limit()

    variables = {MARK: mark, "TMPDIR": str(activity.temporary), "PYTHONFAULTHANDLER": "1"}
    return subprocess.Popen(
        [*prefix, sys.executable, "-m", "lisabench", *map(str, words)],
        env=os.environ | variables,
        cwd=activity.repository,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=prepare,
    )


def faults_at_end(activity: Activity, run: Run, mark: str, codes: Collection[int]) -> Iterator[str]:
    """Wait for a run and all its processes, and yield what should not have been.

    Args:
        activity: what was started.
        run: its process.
        mark: of its processes.
        codes: the exit codes that it may have.
    """
    try:
        _, printed = run.communicate(timeout=HANGS_AFTER_S)
    except subprocess.TimeoutExpired:
        # It may have ended, and a process that it has left have its stderr open.
        what = "it did not end" if run.poll() is None else "something that it started did not end"
        run.send_signal(signal.SIGABRT)  # it prints where it was, see `start`
        with suppress(subprocess.TimeoutExpired):
            run.wait(HANGS_AFTER_S)
        for process in _marked(mark):
            process.kill()
        _, printed = run.communicate()
        yield f"{what}: {printed[-2000:]}"
        return
    if run.returncode not in codes:
        yield f"it ended with {run.returncode}: {printed[-500:]}"
    if "Traceback" in printed:
        yield f"it printed a traceback: {printed[-2000:]}"
    deadline_s = time.monotonic() + HANGS_AFTER_S
    while left := _marked(mark):
        if time.monotonic() > deadline_s:
            yield f"{len(left)} processes were left"
            for process in left:
                process.kill()
            return
        time.sleep(0.2)
    yield from _left_on_disk(activity)


def _marked(mark: str) -> list[psutil.Process]:
    """Return the processes that live and have inherited the mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:  # it has ended meanwhile, or is not ours
            continue
    return found


def _left_on_disk(activity: Activity) -> Iterator[str]:
    """Yield temporary files and worktrees that are left, and remove the files."""
    for path in activity.temporary.iterdir():
        if not any(path.match(pattern) for pattern in MAY_STAY):
            yield f"{path.name} was left in the folder for temporary files"
            subprocess.run(["rm", "-rf", str(path)], check=True)
    if activity.repository is not None:
        worktrees = git(activity.repository, "worktree", "list").splitlines()
        if len(worktrees) > 1:
            yield f"git lists the worktree {worktrees[1]}"
            git(activity.repository, "worktree", "prune")


def exit_code(run: Run) -> int:
    """Wait for a run that nobody disturbs and return its exit code."""
    run.communicate()
    return run.returncode


def keys_of_run(folder: Path) -> Keys:
    """Return the records of the timed rounds, of quality and of memory."""
    run = raw_run(folder)
    quality = Counter((row["case"], row["sample_id"]) for row in run.quality)
    memory = Counter((row["case"], row["process"], row["stage"]) for row in run.memory)
    return keys(run), quality, memory


def keys_of_training(folder: Path) -> Keys:
    """Return the steps, with their losses: a disturbed training goes on as if nobody had."""
    training = read_training(folder)
    return (Counter((step.step, step.loss) for step in training.steps),)


def keys_of_study(folder: Path) -> Keys:
    """Return the points of all curves, and how many pixels each training answered rightly."""
    points: Counter[tuple[object, ...]] = Counter()
    answers: Counter[tuple[object, ...]] = Counter()
    for training in read_study(folder).trainings:
        for point in training.curve:
            points[training.name, point.step, point.val_gIoU] += 1
        answers[training.name, training.pixel_counts.intersection_px.tobytes()] += 1
    return points, answers


def keys_of_gate(folder: Path) -> Keys:
    """Return the records of every run in its folder: of both versions, and of parts of them."""
    found: list[Counter[tuple[object, ...]]] = []
    for manifest in sorted(folder.rglob("run.json")):
        found += keys_of_run(manifest.parent)
    return tuple(found)


# A campaign on an activity: how often, a seed, and a folder; it yields a sentence for each fault.
Campaign = Callable[[Activity, int, int, Path], Iterator[str]]


def command_line(
    description: str,
    campaign: Campaign,
    unit: str,
    count: int,
    activities: Mapping[str, Callable[[Path], Activity]] = ACTIVITIES,
) -> None:
    """Carry out a campaign as the command line says, print every fault, and end the process.

    Args:
        description: of the campaign.
        campaign: is carried out.
        unit: what is counted, such as "kills"; the option for their number has this name.
        count: how many there are by default.
        activities: what it can be carried out on, by name; "run" is among them.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(f"--{unit}", dest="count", type=int, default=count)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--of", choices=activities, default="run")
    given = parser.parse_args()
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        activity = activities[given.of](workspace)
        for fault in campaign(activity, given.count, given.seed, workspace):
            faults += 1
            print(fault, flush=True)
    print(f"{given.count} {unit} of a {given.of}, {faults} faults")
    sys.exit(bool(faults))
