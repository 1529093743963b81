"""Runs pytest in a process that is forked from the server of worker processes.

The server has imported torch and transformers once. A new interpreter would import them again for
seconds.
"""

import multiprocessing
import os
import sys
from pathlib import Path

import pytest
from places import ROOT

from lisabench.benchmarks.run.worker_pool import WorkerPool
from lisabench.models import registry


def pytest_in_fork(*words: str, output: Path) -> tuple[int | None, str]:
    """Run pytest in the repository; return its exit code and what it printed.

    Args:
        words: pytest's arguments.
        output: the file that keeps what it prints.
    """
    # The pool starts the server, unless a test before has started it.
    WorkerPool(registry.preload("lisa"), time_limit_s=600)
    output.touch()
    process = multiprocessing.get_context("forkserver").Process(target=_run, args=(words, output))
    process.start()
    process.join()
    return process.exitcode, output.read_text()


def _run(words: tuple[str, ...], output: Path) -> None:
    with output.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    # pytest-benchmark measures nothing where pytest-xdist is at work, which it tells by these
    # variables.
    for name in [name for name in os.environ if name.startswith("PYTEST_")]:
        del os.environ[name]
    os.chdir(ROOT)
    sys.exit(pytest.main(list(words)))
