"""What `make demo` leaves: the suite that runs where none is named, over all of its 300 queries.

It takes a minute of the processor, so all tests that read it share one folder. Quality is evaluated
as in the demo itself. Times do not matter here: two processes a case time eight queries.
"""

import json
import shutil
from contextlib import chdir
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import CompletedProcess

from command import lisabench
from made_once import made_once
from pytest import TempPathFactory

PLAN = {"processes": 2, "memory_processes": 1, "timed_queries": 8, "warmup": 1}
NAME = "D"  # of the run's folder, which the command is given relative to the current folder
QUERIES = 300


@dataclass(frozen=True)
class Ended:
    """How the command ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class DemoRun:
    """The folder of the run, to be read only, and how the command ended."""

    folder: Path
    ended: Ended

    def copy(self, folder: Path) -> Path:
        """Return a copy in a folder, to be changed."""
        return shutil.copytree(self.folder, folder / NAME)


def demo_run(temporary: TempPathFactory) -> DemoRun:
    folder = made_once(temporary, "demo", _run)
    ended = Ended(**json.loads((folder / "ended.json").read_text()))
    return DemoRun(folder / NAME, ended)


def _run(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    settings = [f"--set={name}={value}" for name, value in PLAN.items()]
    with chdir(folder):
        done: CompletedProcess[str] = lisabench("run", *settings, "--out", NAME)
    ended = Ended(done.returncode, done.stdout, done.stderr)
    (folder / "ended.json").write_text(json.dumps(asdict(ended)))
