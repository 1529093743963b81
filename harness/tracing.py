"""The profile of a case, to look at with other programs: why does a query take its time and memory?

`write_trace` records what the host and the GPU do in one warm query. Perfetto and chrome://tracing
show the file. `write_memory_snapshot` records what PyTorch's allocator holds on a GPU, and what one
query allocates, for https://pytorch.org/memory_viz. Both slow a query down, so they are done in a
process of their own, and nothing there is timed.
"""

import gzip
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from .clock import Clock
from .contract import Adapter, Sample
from .measure import decode_images, predict_batch, warm_up
from .probe import TimingProbe
from .records.whole_file import whole_file

# Of allocations that a snapshot keeps: far more than one query makes. An entry has several KB.
MOST_ALLOCATIONS = 100_000
# How a trace ends.
LAST_KEY = b'"traceName"'
LONGEST_END = 8192  # bytes; a path has at most 4096


class NamingProbe:
    """A probe that names every region to PyTorch's profiler, and on a GPU to NVIDIA's (NVTX).

    It waits for nothing: kernels run while the host goes on, as in a timed query.
    """

    def __init__(self, clock: Clock, on_gpu: bool) -> None:
        self.clock = clock
        self.on_gpu = on_gpu

    def region(self, name: str) -> AbstractContextManager[object]:
        return self._named(name)

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        import torch

        if self.on_gpu:
            torch.cuda.nvtx.range_push(name)
        try:
            with torch.profiler.record_function(name):
                yield
        finally:
            if self.on_gpu:
                torch.cuda.nvtx.range_pop()


def write_profile(
    adapter: Adapter,
    samples: Sequence[Sample],
    probe: NamingProbe,
    at_most: int,
    batch: int,
    trace: Path,
    snapshot: Path,
) -> None:
    """Write the trace of the first batch once it is warm, and on a GPU a snapshot of its memory.

    Args:
        adapter: built with the probe.
        samples: the queries.
        probe: names the regions.
        at_most: how many batches to warm up with; at least one is.
        batch: how many queries are evaluated at once.
        trace, snapshot: the files to write.
    """
    # Only the batch that is traced: then its graphs are captured, and its kernels chosen.
    warm_up(adapter, samples, TimingProbe(probe.clock), max(1, at_most), timed=batch, batch=batch)
    traced = [samples[position] for position in range(min(batch, len(samples)))]
    write_trace(adapter, traced, probe, trace)
    if probe.on_gpu:
        write_memory_snapshot(adapter, traced, probe, snapshot)


def write_trace(
    adapter: Adapter, samples: Sequence[Sample], probe: NamingProbe, path: Path
) -> None:
    """Trace one batch of queries, and write the trace as JSON in Chrome's format, gzipped.

    Raises:
        OSError: it cannot be written.
    """
    from torch.profiler import ProfilerActivity, profile, supported_activities

    decode_images(samples)  # before the first stage, as in the timing
    activities = {ProfilerActivity.CPU, ProfilerActivity.CUDA} & supported_activities()
    # PyTorch warns of a loss of events unless they are added up. There is one cycle only.
    with profile(activities=activities, acc_events=True) as profiler:
        predict_batch(adapter, samples, probe)
        probe.clock.synchronize()
    with tempfile.TemporaryDirectory(prefix="lisabench-") as folder, whole_file(path) as partial:
        plain = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(plain))
        if not _is_whole(plain):
            raise OSError(
                f"PyTorch could not write its trace into {tempfile.gettempdir()}, whose disk may "
                "be full; make room, or name another folder in TMPDIR"
            )
        with plain.open("rb") as trace, gzip.open(partial, "wb") as packed:
            shutil.copyfileobj(trace, packed)


def _is_whole(trace: Path) -> bool:
    """Return whether PyTorch has written a trace to its end.

    It raises nothing where the disk is full: the file is then cut short, or is not there.
    """
    if not trace.exists():
        return False
    with trace.open("rb") as file:
        file.seek(max(0, trace.stat().st_size - LONGEST_END))
        end = file.read().rstrip()
    # The last key of the object; its value is the path.
    return LAST_KEY in end and end.endswith(b"}")


def write_memory_snapshot(
    adapter: Adapter, samples: Sequence[Sample], probe: NamingProbe, path: Path
) -> None:
    """Write what the GPU's allocator holds after a batch of queries, and what they allocated.

    What was allocated before, such as the weights, is in it without a stack.
    """
    from torch.cuda import memory

    # PyTorch documents these functions as they are, with a leading underscore:
    # https://docs.pytorch.org/docs/stable/torch_cuda_memory.html
    memory._record_memory_history(max_entries=MOST_ALLOCATIONS, stacks="python")
    try:
        predict_batch(adapter, samples, probe)
        probe.clock.synchronize()
        with whole_file(path) as partial:
            memory._dump_snapshot(str(partial))
    finally:
        memory._record_memory_history(enabled=None)
