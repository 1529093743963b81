"""`lisabench run --against` for tests.

A gate runs `lisabench doctor --json` of both versions to learn what they can do. That imports torch
for seconds. Most versions in these tests differ only in what the answer does not depend on, so
answers are kept in a folder, by the content of the files that they depend on. Run as a script, this
is the command in a process of its own.
"""

import hashlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from unittest import mock

from command import in_process

from lisabench import cli
from lisabench.benchmarks.gate.versions import Version
from lisabench.benchmarks.subprocesses import Done

ANSWERS = "LISABENCH_TEST_ANSWERS"  # names the folder with the answers, in the environment
ASKING = ("doctor", "--json")
ANSWER_DEPENDS_ON = (
    "cli.py",
    "benchmarks/doctor.py",
    "benchmarks/capabilities.py",
    "benchmarks/run/lockstep.py",
)

_run = Version.run


def run_or_remember(version: Version, *arguments: str | Path) -> Done:
    """Run a version's command line, but for a question whose answer is known."""
    if arguments != ASKING:
        return _run(version, *arguments)
    digest = hashlib.sha256(version.python.encode())
    for name in ANSWER_DEPENDS_ON:
        digest.update((version.tree / name).read_bytes())
    file = Path(os.environ[ANSWERS]) / f"{digest.hexdigest()[:16]}.json"
    if file.exists():
        return Done(**json.loads(file.read_text()))
    done = _run(version, *arguments)
    answer = {"returncode": done.returncode, "stdout": done.stdout, "stderr": done.stderr}
    # Another worker of this test run may read the file at any moment.
    own = file.with_suffix(f".{os.getpid()}")
    own.write_text(json.dumps(answer))
    own.replace(file)
    return done


def environment(temporary: Path, answers: Path) -> dict[str, str]:
    """Return the environment of a command: its temporary folder, and nothing of GitHub's."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GITHUB_")}
    return kept | {"TMPDIR": str(temporary), "COLUMNS": "200", ANSWERS: str(answers)}


def lisabench_in(folder: Path, variables: dict[str, str], *words: object) -> CompletedProcess[str]:
    """Run `lisabench` in this process, in a folder and with an environment of its own."""
    with (
        chdir(folder),
        mock.patch.dict(os.environ, variables, clear=True),
        mock.patch.object(tempfile, "tempdir", None),  # it keeps what TMPDIR was before
        mock.patch.object(Version, "run", run_or_remember),
        _handlers_of_signals_kept(),
    ):
        return in_process(cli.main, *words)


@contextmanager
def _handlers_of_signals_kept() -> Iterator[None]:
    """Undo what the gate sets for signals that end it."""
    handlers = {ending: signal.getsignal(ending) for ending in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for ending, handler in handlers.items():
            signal.signal(ending, handler)


def command(*words: object) -> list[str]:
    """Return the command line that runs `lisabench` in a process of its own."""
    return [sys.executable, __file__, *map(str, words)]


if __name__ == "__main__":
    Version.run = run_or_remember
    cli.main()
