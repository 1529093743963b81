"""Worker processes, as the session sees them: forked from a server that has imported what they need, asked, watched.

A worker that crashes, hangs or is killed becomes a `Lost` with a status and a reason; it never takes the session down.
"""

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Iterable
from multiprocessing import forkserver
from typing import Any

from ...harness.errors import RunFailed, UsageError
from .worker import Order, serve

CLERKS_LIMIT_S = 120
LONGEST_TEMPORARY = 107 - len(
    "/pymp-12345678/listener-12345678"
)  # a socket's path has 107 characters at most
QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class Lost(Exception):  # noqa: N818  (a state of a worker, which becomes a status in the records)
    """A worker could not do what it was asked.

    Attributes:
        status: ``oom``, ``timeout`` or ``error``.
        reason: one line.
    """

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Pool:
    """Starts workers.

    Args:
        preload: modules that the server imports before it forks, so that no worker spends seconds on it. They must not
            touch a GPU while being imported.
        time_limit_s: how long a worker may take for one thing that it is asked.

    Raises:
        UsageError: the folder for temporary files has too long a path.
    """

    def __init__(self, preload: Iterable[str], time_limit_s: float) -> None:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        forks = "forkserver" in multiprocessing.get_all_start_methods()
        self._context = multiprocessing.get_context("forkserver" if forks else "spawn")
        if forks:
            _must_be_short(tempfile.gettempdir())
            self._context.set_forkserver_preload(["lisabench.benchmarks.run.worker", *preload])
            # The server imports torch and transformers for seconds. Started here, it does so while the caller
            # makes or reads the data, and not when the first worker is wanted.
            forkserver.ensure_running()
        self._time_limit_s = time_limit_s

    def start(self, order: Order) -> "WorkerProcess":
        return WorkerProcess(self._context, order, self._time_limit_s)

    def clerk(self, data: dict[str, Any]) -> "WorkerProcess":
        """A process without a model, which a suite's time limit is not about."""
        return WorkerProcess(
            self._context, Order("", None, data), max(self._time_limit_s, CLERKS_LIMIT_S)
        )


def _must_be_short(temporary: str) -> None:
    if len(temporary) > LONGEST_TEMPORARY:
        raise UsageError(
            f"the folder for temporary files, {temporary}, has a path of {len(temporary)} characters; "
            f"name one with {LONGEST_TEMPORARY} or fewer in TMPDIR"
        )


class WorkerProcess:
    """One worker process. A context manager: leaving it ends the process."""

    def __init__(self, context: Any, order: Order, time_limit_s: float) -> None:
        self._time_limit_s = time_limit_s
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, order), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> "WorkerProcess":
        return self

    def __exit__(self, *exc: object) -> None:
        self._pipe.close()
        self._process.join(timeout=5)
        self._process.kill()

    def ask(self, function: str, *arguments: Any) -> Any:
        """What a function of `worker.Worker` returns.

        Raises:
            Lost: it failed, took too long, or the process is gone.
            LisabenchError: it refused, for a reason that the user must mend.
        """
        self.tell(function, *arguments)
        return self.hear()

    def tell(self, function: str, *arguments: Any) -> None:
        """Asks without waiting: `hear` gives what `ask` would."""
        try:
            self._pipe.send((function, arguments))
        except (BrokenPipeError, ConnectionResetError):
            raise Lost("error", self._epitaph()) from None

    def hear(self) -> Any:
        """What comes of the oldest `tell` that was not heard yet; raises as `ask` does."""
        verdict, value = self._received()
        if verdict == "refused":
            raise value
        if verdict == "failed":
            raise Lost(*value)
        return value

    def _received(self) -> tuple[str, Any]:
        try:
            if not self._pipe.poll(self._time_limit_s):
                self._process.kill()
                raise Lost(
                    "timeout", f"no answer in {self._time_limit_s:g} s; the process was killed"
                )
            return self._pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise Lost("error", self._epitaph()) from None

    def _epitaph(self) -> str:
        self._process.join(timeout=5)
        code = self._process.exitcode
        if code is None or code >= 0:
            return f"the process ended by itself with exit code {code}"
        hint = "; the system may have run out of memory" if -code == signal.SIGKILL else ""
        return f"the process was ended by {signal.Signals(-code).name}{hint}"


def must(worker: WorkerProcess, function: str, *arguments: Any) -> Any:
    """`ask`, for what no run can go on without."""
    try:
        return worker.ask(function, *arguments)
    except Lost as lost:
        raise RunFailed(f"{function.replace('_', ' ')}: {lost.reason}") from lost
