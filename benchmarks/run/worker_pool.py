"""Worker processes as the session sees them.

They are forked from a server that has imported what they need.

A `CaseProcess` or a `DataProcess` has a typed method for each thing that its worker can do. The
method sends the call, waits for the result and returns it. A worker that crashes, hangs or is
killed raises `WorkerLost`, with a status and a reason; it never takes the session down.
"""

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ...harness import environment
from ...harness.errors import RunFailed, UsageError
from ...harness.lifeline import lifeline
from ...harness.measure import Failure
from ...harness.records.manifest import BatchTrial
from ...models.checkpoints.weights_hash import HashedWeights
from ...models.lisa.weights_format import WeightsFolder
from .case_worker import CaseWorker
from .data_worker import DataWorker
from .worker import Gpu, serve
from .worker_messages import (
    BuiltCase,
    DataReader,
    Line,
    Machine,
    MeasuredMemory,
    WarmedUpCase,
    WorkerSettings,
)

try:
    import resource
except ModuleNotFoundError:  # on Windows
    resource = None

# The data process reads and hashes whole data sets. A suite's time limit is for a case, and may be
# short.
LEAST_DATA_LIMIT_S = 120
# The forkserver listens on a socket below the folder for temporary files. The path of a Unix socket
# has 107 characters at most, or the server cannot start.
LONGEST_TEMPORARY = 107 - len("/pymp-12345678/listener-12345678")
QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "KINETO_LOG_LEVEL": "6",  # PyTorch's profiler says on stderr when it begins and ends
}
# How many files a session and its server of worker processes have open, and how many more for each
# case side by side: pipes, mostly. About twice of what was counted.
FILES_OF_SESSION = 48
FILES_OF_CASE = 8
END_LIMIT_S = 5  # for a process to end by itself, before it is killed


class WorkerLost(Exception):  # noqa: N818  (a state that becomes a status in the records)
    """A worker failed, took too long, or its process is gone.

    Attributes:
        failure: what its queries are recorded with.
        reason: why, in one line.
    """

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.failure = Failure(status, reason)
        self.reason = reason


class ProcessGone(WorkerLost):
    """The worker's process has ended by itself, or was killed by somebody else."""


class WorkerPool:
    """Starts worker processes.

    Args:
        preload: modules that the server imports before it forks, so that no worker spends seconds
            on them. They must not touch a GPU while they are imported: a forked process could not
            use it.
        time_limit_s: how long a case's process may take for one call.
        side_by_side: how many cases have a process at the same time, at most.
        gpu: the one that the processes are left, such as ``cuda:1``; None: all that are visible.

    Raises:
        UsageError: there is no such GPU, the folder for temporary files has too long a path, or too
            few files may be open.
    """

    def __init__(
        self,
        preload: Iterable[str],
        time_limit_s: float,
        side_by_side: int = 1,
        gpu: str | None = None,
    ) -> None:
        # Not left to this process alone: the server may have been started by an earlier run, and
        # its workers have the variables of that time.
        self.gpu: Gpu | None = None if gpu is None else (gpu, environment.visible_gpu(gpu))
        allow_open_files(FILES_OF_SESSION + side_by_side * FILES_OF_CASE)
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        can_fork = "forkserver" in multiprocessing.get_all_start_methods()
        self._context: Any = multiprocessing.get_context("forkserver" if can_fork else "spawn")
        if can_fork:
            check_temporary(tempfile.gettempdir())
            self._context.set_forkserver_preload(["lisabench.benchmarks.run.worker", *preload])
            # The server imports torch and transformers for seconds. Started here, it does so while
            # the caller makes or reads the data, and not when the first worker is needed.
            with without_interrupts():
                forkserver.ensure_running()
        self._time_limit_s = time_limit_s

    def start_case(self, settings: WorkerSettings, gpu: Gpu | None = None) -> "CaseProcess":
        """Start the process of a case.

        Args:
            settings: of the case.
            gpu: the one that it is left; None: that of the pool, or all that are visible.
        """
        gpu = gpu or self.gpu
        return CaseProcess(self._context, CaseWorker, settings, self._time_limit_s, gpu)

    def start_data(self, data: DataReader) -> "DataProcess":
        """Start a process without a model, which reads the data and describes the machine."""
        time_limit_s = max(self._time_limit_s, LEAST_DATA_LIMIT_S)
        return DataProcess(self._context, DataWorker, data, time_limit_s, self.gpu)


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Have processes that are started in the block never see an interrupt.

    An interrupt from the keyboard meets every process. The session handles it, and ends its
    workers, which would each print a traceback. One that comes during the block is handled after
    it.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # It unblocks the interrupt when it starts its process, so that comes first.
    _start_resource_tracker()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_resource_tracker() -> None:
    """Start the process that removes the semaphores which workers leave behind.

    Workers end without Python's clean-up, or are killed, so it always finds some. It would print a
    warning of them when the session ends.
    """
    warnings = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker"
    try:
        resource_tracker.ensure_running()
    finally:
        if warnings is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = warnings


def check_temporary(temporary: str) -> None:
    """Check that the server of worker processes can listen below the folder for temporary files.

    Raises:
        UsageError: its path is too long.
    """
    if len(temporary) > LONGEST_TEMPORARY:
        raise UsageError(
            f"the folder for temporary files, {temporary}, has a path of {len(temporary)} "
            f"characters; name one with {LONGEST_TEMPORARY} or fewer in TMPDIR"
        )


def allow_open_files(needed: int) -> None:
    """Let this process, and those that it starts, have so many files open, if the system lets it.

    Where the files of a process run out, the server of worker processes ends with a traceback.

    Raises:
        UsageError: they may not.
    """
    if resource is None:  # Windows has no such limit
        return
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY or allowed >= needed:
        return
    if most != resource.RLIM_INFINITY and most < needed:
        raise UsageError(
            f"a process may have {most} files open here, and {needed} are needed; run "
            f"`ulimit -n {needed}` first, or have the limit of the system raised"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))


class WorkerProcess:
    """One worker process. A context manager: leaving it ends the process.

    Attributes:
        time_limit_s: how long it may take for one call.
    """

    def __init__(
        self,
        context: Any,
        make_worker: Callable[..., Any],
        of: Any,
        time_limit_s: float,
        gpu: Gpu | None = None,
    ) -> None:
        self.time_limit_s = time_limit_s
        self._start: Callable[[], None] = partial(
            self._start_process, context, make_worker, of, gpu
        )
        self._start()

    @property
    def answers(self) -> Connection:
        """The pipe that a result of the worker comes through, to wait for several workers."""
        return self._pipe

    def _start_process(
        self, context: Any, make_worker: Callable[..., Any], of: Any, gpu: Gpu | None
    ) -> None:
        """Start the process, with a new pipe.

        Raises:
            RunFailed: the server of worker processes was killed while it was asked.
        """
        self._pipe, workers_end = context.Pipe()
        self._process = context.Process(
            target=serve, args=(workers_end, lifeline(), make_worker, of, gpu), daemon=True
        )
        try:
            with without_interrupts():
                self._process.start()
        except (EOFError, ConnectionError) as error:
            raise RunFailed("the server of worker processes was killed") from error
        # The worker must be the only one that holds its end: only then does reading from it fail
        # at once when the process is gone.
        workers_end.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pipe.close()
        self._process.join(timeout=END_LIMIT_S)
        self._process.kill()
        self._process.join(timeout=END_LIMIT_S)
        _end_group(self._process.pid)
        # Python would give back the process's files at some later time, when it collects garbage.
        with suppress(ValueError):  # not even killed yet: it waits for a device
            self._process.close()

    def _call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """Call a method of the worker and return its result; raises as `_receive` does."""
        self._send(method, *arguments)
        return self._receive()

    def _send(self, method: Callable[..., Any], *arguments: Any) -> None:
        """Call a method of the worker without waiting for its result, which `_receive` returns."""
        try:
            self._pipe.send((method, arguments))
        except (BrokenPipeError, ConnectionResetError):
            raise ProcessGone("error", self._how_it_ended()) from None

    def _receive(self) -> Any:
        """Wait for the result of the oldest call that has none yet.

        Raises:
            WorkerLost: the call failed or took too long, or the process is gone.
            LisabenchError: the worker refused, for a reason that the user must fix.
        """
        try:
            if not self._pipe.poll(self.time_limit_s):
                self._process.kill()
                raise WorkerLost(
                    "timeout", f"no answer in {self.time_limit_s:g} s; the process was killed"
                )
            kind, value = self._pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise ProcessGone("error", self._how_it_ended()) from None
        if kind == "refused":
            raise value
        if kind == "failed":
            status, reason = value
            raise WorkerLost(status, reason)
        return value

    def _how_it_ended(self) -> str:
        self._process.join(timeout=END_LIMIT_S)
        code = self._process.exitcode
        if code is None or code >= 0:
            return f"the process ended by itself with exit code {code}"
        # Linux kills processes by SIGKILL where memory runs out.
        hint = "; the system may have run out of memory" if -code == signal.SIGKILL else ""
        return f"the process was ended by {signal.Signals(-code).name}{hint}"


def _end_group(leader: int | None) -> None:
    """Kill what is left of the process group of a worker, such as programs of an adapter."""
    if leader is None or not hasattr(os, "killpg"):
        return
    # Nothing is left, or the worker was ended before it had a group of its own.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


class CaseProcess(WorkerProcess):
    """The process of one case. `case_worker.CaseWorker` describes each method.

    Every method raises `WorkerLost` if the worker fails, and a `LisabenchError` if the user must
    fix something.
    """

    def begin_build(self) -> None:
        """Let the worker build without waiting: other cases can build at the same time."""
        self._send(CaseWorker.build)

    def finish_build(self) -> BuiltCase:
        """Wait for the build that was begun."""
        return self._receive()

    def warm_up(self, at_most: int, core: int | None) -> WarmedUpCase:
        """Bring the case to speed, then pin the process to a core."""
        return self._call(CaseWorker.warm_up, at_most, core)

    def try_batch(self, batch: int, warmup: int) -> BatchTrial:
        """Build the case, unless it is built, and time a few batches of a size."""
        return self._call(CaseWorker.try_batch, batch, warmup)

    def measure_block(self, positions: Sequence[int]) -> list[Line]:
        """Measure the queries at some positions in a row."""
        return self._call(CaseWorker.measure_block, positions)

    def measure_synchronised(self, positions: Sequence[int]) -> list[Line]:
        """Measure queries with the GPU waited for after each stage."""
        return self._call(CaseWorker.measure_synchronised, positions)

    def measure_energy(self, positions: Sequence[int]) -> list[Line]:
        """Measure the energy of a query over queries that are evaluated again and again."""
        return self._call(CaseWorker.measure_energy, positions)

    def begin_untimed_build(self, threads: int | None) -> None:
        """Let the worker build the case for the quality pass, without waiting."""
        self._send(CaseWorker.build_untimed, threads)

    def evaluate(self, positions: Sequence[int]) -> list[Line]:
        """Evaluate the queries at some positions as one batch."""
        return self._call(CaseWorker.evaluate, positions)

    def begin_evaluation(self, positions: Sequence[int]) -> None:
        """Let the worker evaluate a batch without waiting: another process can work meanwhile."""
        self._send(CaseWorker.evaluate, positions)

    def finish_evaluation(self) -> list[Line]:
        """Wait for the batch that was begun."""
        return self._receive()

    def begin_memory(self, queries: int) -> None:
        """Let the worker build the case and measure the peak memory of each stage."""
        self._send(CaseWorker.measure_memory, queries)

    def finish_memory(self) -> MeasuredMemory:
        """Wait for the memory pass that was begun."""
        return self._receive()

    def profile(self) -> list[Line]:
        """Measure how long the GPU is at work in each stage."""
        return self._call(CaseWorker.profile)

    def trace(self, warmup: int, trace: Path, snapshot: Path) -> None:
        """Trace one warm query into a file; on a GPU, write a snapshot of its memory too."""
        self._call(CaseWorker.trace, warmup, trace, snapshot)

    def try_fit(self, queries: int, outside_bytes: int) -> Line:
        """Build the case and evaluate a few queries, limited to the card of its settings."""
        return self._call(CaseWorker.try_fit, queries, outside_bytes)


class DataProcess(WorkerProcess):
    """The process without a model. `data_worker.DataWorker` describes each method.

    No run can go on without it, so every method raises `RunFailed` if the worker fails. A process
    that was killed is replaced once for each call: it keeps nothing from one call to the next.
    """

    def describe_machine(self) -> Machine:
        """Return the machine and the versions of the software."""
        return self._call(DataWorker.describe_machine)

    def resolve_devices(self, devices: Sequence[str]) -> list[str]:
        """Return what each device is on this machine."""
        return self._call(DataWorker.resolve_devices, devices)

    def check_data(self, positions: Sequence[int] | None = None) -> None:
        """Read every image and target once, or those of the queries at some positions."""
        self._call(DataWorker.check_data, positions)

    def check_weights(self, weights: WeightsFolder) -> HashedWeights:
        """Compare the bytes of weights with their hash, for all processes of the run."""
        return self._call(DataWorker.check_weights, weights)

    def save_gallery(self, positions: Sequence[int], path: Path) -> list[str]:
        """Save images and targets of some queries for the report; return the queries' ids."""
        return self._call(DataWorker.save_gallery, positions, str(path))

    def warn_of_other_load(self, devices: Sequence[str]) -> list[str]:
        """Return warnings about other programs that keep the devices busy."""
        return self._call(DataWorker.warn_of_other_load, devices)

    def measure_roofline(self, device: str) -> Line:
        """Return the peak rates of a device."""
        return self._call(DataWorker.measure_roofline, device)

    def unanswered_timed(self, positions: Sequence[int], lost: WorkerLost) -> list[Line]:
        """Return the lines of timed queries whose worker was lost."""
        return self._call(DataWorker.unanswered_timed, positions, lost.failure)

    def unanswered_scored(self, positions: Sequence[int], lost: WorkerLost) -> list[Line]:
        """Return the lines of queries of the quality pass whose worker was lost."""
        return self._call(DataWorker.unanswered_scored, positions, lost.failure)

    def _call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        try:
            try:
                return super()._call(method, *arguments)
            except ProcessGone:
                self._pipe.close()
                self._start()
                return super()._call(method, *arguments)
        except WorkerLost as lost:
            raise RunFailed(f"{method.__name__.replace('_', ' ')}: {lost.reason}") from lost
