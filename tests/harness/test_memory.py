"""What a GPU's memory meter counts, with PyTorch's allocator played by a stand-in."""

from types import SimpleNamespace

import pytest
import torch

from lisabench.harness import memory
from lisabench.harness.memory import CudaMeter, MemoryProbe

pytestmark = pytest.mark.no_clock

COMMON, OF_GRAPHS = (0, 0), (0, 7)


class Allocator:
    """Counts as PyTorch's allocator does: a replay uses a pool's memory and changes no number."""

    def __init__(self) -> None:
        self.allocated = self.peak_allocated = 1000
        self.reserved = self.peak_reserved = 1200
        self.segments = [segment(COMMON, 1200, 1000)]

    def synchronize(self) -> None:
        pass

    def reset_peak_memory_stats(self) -> None:
        self.peak_allocated, self.peak_reserved = self.allocated, self.reserved

    def memory_allocated(self) -> int:
        return self.allocated

    def max_memory_allocated(self) -> int:
        return self.peak_allocated

    def max_memory_reserved(self) -> int:
        return self.peak_reserved

    def memory_snapshot(self, include_traces: bool) -> list[dict]:
        assert not include_traces  # they take long to collect
        return self.segments

    def capture(self, temporary: int, result: int) -> None:
        """Allocate in a private pool, then free all but the result."""
        self.peak_allocated = self.allocated + temporary + result
        self.allocated += result
        self.reserved += temporary + result
        self.peak_reserved = self.reserved
        self.segments.append(segment(OF_GRAPHS, temporary + result, result))

    def allocate_for_a_while(self, size: int) -> None:
        self.peak_allocated = max(self.peak_allocated, self.allocated + size)


def segment(pool: tuple[int, int], total: int, allocated: int) -> dict:
    return {"segment_pool_id": pool, "total_size": total, "allocated_size": allocated}


@pytest.fixture
def allocator(monkeypatch: pytest.MonkeyPatch) -> Allocator:
    stand_in = Allocator()
    monkeypatch.setattr(torch, "cuda", stand_in)
    monkeypatch.setattr(memory, "device_process_bytes", lambda: None)
    return stand_in


def test_a_replay_takes_the_memory_that_its_graph_has_kept(allocator: Allocator) -> None:
    probe = MemoryProbe(CudaMeter())
    with probe.region("vision"):
        allocator.capture(temporary=500, result=100)
    with probe.region("vision"):
        pass  # a replay
    captured, replayed = probe.readings["vision"]
    assert (captured.start_bytes, captured.peak_bytes) == (1000, 1600)
    assert (replayed.start_bytes, replayed.peak_bytes) == (1600, 1600)


def test_tensors_beside_the_graphs_add_to_what_the_graphs_hold(allocator: Allocator) -> None:
    probe = MemoryProbe(CudaMeter())
    with probe.region("vision"):
        allocator.capture(temporary=500, result=100)
    with probe.region("postprocess"):
        allocator.allocate_for_a_while(200)
    (postprocess,) = probe.readings["postprocess"]
    assert postprocess.peak_bytes == 1000 + 100 + 500 + 200


def test_a_peak_is_no_larger_than_what_is_reserved(allocator: Allocator) -> None:
    """A second graph takes the memory of the first, which is counted as in use already."""
    probe = MemoryProbe(CudaMeter())
    with probe.region("vision"):
        allocator.capture(temporary=500, result=100)
    with probe.region("llm"):
        allocator.allocate_for_a_while(500)
    (llm,) = probe.readings["llm"]
    assert llm.peak_bytes == llm.peak_reserved_bytes == 1800


@pytest.mark.usefixtures("allocator")
def test_memory_that_the_allocator_keeps_without_graphs_is_not_in_use() -> None:
    probe = MemoryProbe(CudaMeter())
    with probe.region("vision"):
        pass
    (vision,) = probe.readings["vision"]
    assert (vision.start_bytes, vision.peak_bytes, vision.peak_reserved_bytes) == (1000, 1000, 1200)


@pytest.mark.parametrize(
    ("of_process", "expected"),
    [
        (900, 300),  # what the driver counts for the process, less what is reserved now
        (None, 400),  # in a container: 1100 in use now, 100 before, 600 reserved
    ],
)
def test_what_lies_outside_of_the_allocator_is_measured_when_all_work_is_done(
    monkeypatch, of_process, expected
):
    used = iter((100, 1100))
    monkeypatch.setattr(memory.nvml, "used_bytes", lambda: next(used))
    monkeypatch.setattr(memory, "device_process_bytes", lambda: of_process)
    stand_in = SimpleNamespace(synchronize=lambda: None, memory_reserved=lambda: 600)
    monkeypatch.setattr(torch, "cuda", stand_in)
    assert memory.OutsideAllocator().read() == expected


def test_on_a_broken_device_what_lies_outside_of_the_allocator_is_unknown(monkeypatch):
    def synchronize():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(memory.nvml, "used_bytes", lambda: 100)
    monkeypatch.setattr(torch, "cuda", SimpleNamespace(synchronize=synchronize))
    assert memory.OutsideAllocator().read() is None


def test_without_a_driver_what_lies_outside_of_the_allocator_is_unknown(monkeypatch):
    monkeypatch.setattr(memory.nvml, "used_bytes", lambda: None)
    assert memory.OutsideAllocator().read() is None
