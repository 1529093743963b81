"""Trainings side by side: each in a process of its own that sees one GPU.

A training that starts from another one begins as soon as that one is finished.
"""

import os
from bisect import insort
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Executor,
    Future,
    ThreadPoolExecutor,
    wait,
)
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ...harness.environment import VISIBLE_GPUS, usable_cpus
from ...harness.errors import RunFailed
from ..subprocesses import kill_children, process_pool

# Each of several processes would otherwise start as many threads as the machine has cores.
THREAD_COUNTS = ("OMP_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS")
KILLED_EVERY_S = 0.5

Result = TypeVar("Result")


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        name: of the variant.
        seed: of the training, and of the dual that it starts from.
        lr: a learning rate to try in place of the variant's own.
    """

    name: str
    seed: int
    lr: float | None = None

    def __str__(self) -> str:
        name = f"{self.name}-{self.seed}"
        return name if self.lr is None else f"{name} at {self.lr:g}"


def side_by_side(
    jobs: Mapping[Job, Job | None],
    width: int,
    gpus: Sequence[str],
    work: Callable[[Job], Result],
    on_result: Callable[[Result], None],
) -> None:
    """Do jobs, several at once.

    A job that fails takes no other with it, except those that start from it.

    Args:
        jobs: each with the job that it starts from. None, or a job that is not among these, is
            finished already.
        width: how many jobs run at once; 1 works in this process.
        gpus: ids that ``CUDA_VISIBLE_DEVICES`` takes, over which the jobs are spread; none on a
            CPU.
        work: does one job; it and its result can be pickled.
        on_result: called with the result of each job as soon as it is there.

    Raises:
        RunFailed: jobs failed, after all others were done.
    """
    threads = max(1, usable_cpus() // width)

    def submit(job: Job, slot: int) -> Future[Result]:
        if width == 1:
            return pool.submit(work, job)
        gpu = gpus[slot % len(gpus)] if gpus else None
        return pool.submit(_in_own_process, work, job, gpu, threads)

    queue: _JobQueue[Result] = _JobQueue(jobs, width)
    with _InThisProcess() if width == 1 else ThreadPoolExecutor(width) as pool:
        try:
            while queue.waiting or queue.running:
                queue.begin(submit)
                queue.finish(on_result)
        except KeyboardInterrupt:
            # Leaving the pool waits for its threads, and each of them for its training. A training
            # that is only being started is met by a later turn.
            while not all(future.done() for future in queue.running):
                kill_children()
                wait(queue.running, timeout=KILLED_EVERY_S)
            raise
    if queue.failed:
        reasons = "; ".join(f"{job} ({reason})" for job, reason in queue.failed.items())
        raise RunFailed(
            f"{len(queue.failed)} of {len(jobs)} trainings failed: {reasons}; "
            "the same command makes only these again"
        )


def visible_gpus() -> list[str]:
    """Return the ids of the GPUs that may be used."""
    import torch

    count = torch.cuda.device_count()
    restricted_to = os.environ.get(VISIBLE_GPUS)
    if restricted_to:
        return restricted_to.split(",")[:count]
    return [str(number) for number in range(count)]


class _JobQueue(Generic[Result]):
    """The jobs that wait, run and failed, and the free slots.

    Attributes:
        waiting: jobs that have not begun, each with the job that it starts from.
        running: the running jobs and their slots, by their future.
        failed: why jobs failed, or were not begun.
        free_slots: numbers of the slots in which nothing runs, in ascending order. A slot stands
            for a GPU, so that running jobs are spread over the GPUs.
    """

    def __init__(self, jobs: Mapping[Job, Job | None], width: int) -> None:
        self.waiting = dict(jobs)
        self.running: dict[Future[Result], tuple[Job, int]] = {}
        self.failed: dict[Job, str] = {}
        self.free_slots = list(range(width))

    def begin(self, submit: Callable[[Job, int], Future[Result]]) -> None:
        """Begin as many jobs as there are free slots, in order.

        A job waits for the one it starts from.
        """
        unfinished = set(self.waiting)
        for job, _ in self.running.values():
            unfinished.add(job)
        for job, start in list(self.waiting.items()):
            if start not in unfinished and self.free_slots:
                del self.waiting[job]
                slot = self.free_slots.pop(0)
                self.running[submit(job, slot)] = (job, slot)

    def finish(self, on_result: Callable[[Result], None]) -> None:
        """Wait until at least one job ends."""
        ended, _ = wait(self.running, return_when=FIRST_COMPLETED)
        for future in ended:
            job, slot = self.running.pop(future)
            insort(self.free_slots, slot)
            error = future.exception()
            if error is None:
                on_result(future.result())
                continue
            # The reason is one line of a message.
            self.failed[job] = " ".join(f"{type(error).__name__}: {error}".split())
            for waiting, start in list(self.waiting.items()):
                if start == job:
                    del self.waiting[waiting]
                    self.failed[waiting] = "not begun"


class _InThisProcess(Executor):
    """Does what it is given at once, in this process, so that an interruption reaches it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def _in_own_process(
    work: Callable[[Job], Result], job: Job, gpu: str | None, threads: int
) -> Result:
    """Do a job in a process of its own: if that process dies, no other job dies with it."""
    with process_pool(1, start_method="spawn") as process:
        return process.submit(_with_environment, work, job, gpu, threads).result()


def _with_environment(
    work: Callable[[Job], Result], job: Job, gpu: str | None, threads: int
) -> Result:
    """Do a job after the variables of its process are set.

    They take effect when torch is imported.
    """
    if gpu is not None:
        os.environ[VISIBLE_GPUS] = gpu
    for variable in THREAD_COUNTS:
        os.environ.setdefault(variable, str(threads))
    return work(job)
