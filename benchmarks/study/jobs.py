"""Trainings side by side: each in a process of its own that sees one GPU, begun when what it starts from is there."""

import multiprocessing
import os
from bisect import insort
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from dataclasses import dataclass
from typing import Any

from ...harness.environment import usable_cpus
from ...harness.errors import RunFailed

VISIBLE = "CUDA_VISIBLE_DEVICES"
THREADS = ("OMP_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS")


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        name: of its variant.
        seed: of its dual.
        lr: instead of the variant's own.
    """

    name: str
    seed: int
    lr: float | None = None

    def __str__(self) -> str:
        return f"{self.name}-{self.seed}" + ("" if self.lr is None else f" at {self.lr:g}")


Row = dict[str, Any]
Work = Callable[[Job], Row]


def side_by_side(
    jobs: Mapping[Job, Job | None],
    width: int,
    gpus: Sequence[str],
    work: Work,
    told: Callable[[Row], None],
) -> None:
    """Does jobs, several at once. One that fails takes none with it but those that start from what it makes.

    Args:
        jobs: each with the one that it starts from; None, or one that is none of these, is there already.
        width: how many at once; 1 works in this process.
        gpus: ids that ``CUDA_VISIBLE_DEVICES`` knows, over which they are spread; none on a CPU.
        work: does one; can be pickled.
        told: is given what came of each as soon as it has.

    Raises:
        RunFailed: some failed, after all others were done.
    """
    with _Here() if width == 1 else ThreadPoolExecutor(width) as pool:
        board = _Board(dict(jobs), list(range(width)))
        while board.waiting or board.running:
            board.begin(lambda job, slot: pool.submit(*_call(work, job, slot, width, gpus)))
            board.finish(told)
    if board.failed:
        said = "; ".join(f"{job} ({why})" for job, why in board.failed.items())
        raise RunFailed(
            f"{len(board.failed)} of {len(jobs)} trainings failed: {said}; the same command makes only these again"
        )


def visible_gpus() -> list[str]:
    """Ids of the GPUs that may be used."""
    import torch

    said, count = os.environ.get(VISIBLE), torch.cuda.device_count()
    return (said.split(",") if said else [str(i) for i in range(count)])[:count]


class _Board:
    """Which jobs wait, run and failed, and which places are free."""

    def __init__(self, waiting: dict[Job, Job | None], free: list[int]) -> None:
        self.waiting, self.free = waiting, free
        self.running: dict[Future[Row], tuple[Job, int]] = {}
        self.failed: dict[Job, str] = {}

    def begin(self, submit: Callable[[Job, int], Future[Row]]) -> None:
        """Gives the free places to jobs that can be begun, in order; the lowest places first."""
        unmade = {*self.waiting, *(job for job, _ in self.running.values())}
        ready = [job for job, before in self.waiting.items() if before not in unmade]
        for job in ready[: len(self.free)]:
            del self.waiting[job]
            slot = self.free.pop(0)
            self.running[submit(job, slot)] = job, slot

    def finish(self, told: Callable[[Row], None]) -> None:
        """Waits until a job ends."""
        done, _ = wait(self.running, return_when=FIRST_COMPLETED)
        for future in done:
            job, slot = self.running.pop(future)
            insort(self.free, slot)
            error = future.exception()
            if error is None:
                told(future.result())
            else:
                self._fail(job, " ".join(f"{type(error).__name__}: {error}".split()))

    def _fail(self, job: Job, why: str) -> None:
        self.failed[job] = why
        for other in [other for other, before in self.waiting.items() if before == job]:
            del self.waiting[other]
            self.failed[other] = "not begun"


class _Here(Executor):
    """Does what it is given at once, in this process: an interruption reaches it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def _call(work: Work, job: Job, slot: int, width: int, gpus: Sequence[str]) -> tuple[Any, ...]:
    if width == 1:
        return work, job
    return (
        _apart,
        work,
        job,
        gpus[slot % len(gpus)] if gpus else None,
        max(1, usable_cpus() // width),
    )


def _apart(work: Work, job: Job, gpu: str | None, threads: int) -> Row:
    """Does a job in a process of its own, whose end, however it comes, is no other's."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_settled, work, job, gpu, threads).result()


def _settled(work: Work, job: Job, gpu: str | None, threads: int) -> Row:
    """Before torch is imported: to this process its GPU is the only one."""
    os.environ.update({VISIBLE: gpu} if gpu is not None else {})
    for variable in THREADS:
        os.environ.setdefault(variable, str(threads))
    return work(job)
