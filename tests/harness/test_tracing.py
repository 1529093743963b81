"""The profile of a case: what of it can be seen without a GPU. `tests/cuda` has the rest."""

import gzip
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from samples import sample_of
from spoiled_disk import disk_of

from lisabench.harness import tracing
from lisabench.harness.clock import VirtualClock
from lisabench.harness.contract import STAGES
from lisabench.harness.tracing import NamingProbe
from lisabench.models.adapters.fake import FakeCase, build

pytestmark = pytest.mark.no_clock

SAMPLES = [sample_of(np.ones((4, 4), np.uint8))]


@pytest.fixture
def calls(monkeypatch):
    """What is asked of a GPU, in order."""
    noted = []
    memory = torch.cuda.memory

    def dump(path):
        noted.append("dump")
        Path(path).write_bytes(b"a snapshot")

    def record(enabled="all", **_):
        noted.append(f"history {enabled}")

    monkeypatch.setattr(torch.cuda.nvtx, "range_push", lambda name: noted.append(f"> {name}"))
    monkeypatch.setattr(torch.cuda.nvtx, "range_pop", lambda: noted.append("<"))
    monkeypatch.setattr(memory, "_record_memory_history", record)
    monkeypatch.setattr(memory, "_dump_snapshot", dump)
    return noted


def ranges():
    noted = []
    for stage in STAGES:
        noted += [f"> {stage}", "<"]
    return noted


def test_regions_are_ranges_of_nvtx_on_a_gpu_also_when_they_fail(calls):
    probe = NamingProbe(VirtualClock(), on_gpu=True)
    with pytest.raises(ValueError), probe.region("llm"), probe.region("llm.{decode}"):
        raise ValueError
    assert calls == ["> llm", "> llm.{decode}", "<", "<"]


def test_on_a_cpu_there_are_none(calls, tmp_path):
    probe = NamingProbe(VirtualClock(), on_gpu=False)
    adapter = build(FakeCase(), probe)
    tracing.write_trace(adapter, SAMPLES, probe, tmp_path / "a.json.gz")
    assert calls == []
    trace = json.loads(gzip.decompress((tmp_path / "a.json.gz").read_bytes()))
    names = [event["name"] for event in trace["traceEvents"] if event.get("ph") == "X"]
    assert [name for name in names if name in STAGES] == list(STAGES)


def test_the_snapshot_is_of_one_query_and_the_history_ends_after_it(calls, tmp_path):
    probe = NamingProbe(VirtualClock(), on_gpu=True)
    adapter = build(FakeCase(), probe)
    tracing.write_memory_snapshot(adapter, SAMPLES, probe, tmp_path / "a.pickle")
    assert calls == ["history all", *ranges(), "dump", "history None"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.pickle"]


@pytest.mark.parametrize("write", [tracing.write_trace, tracing.write_memory_snapshot])
def test_a_query_that_fails_leaves_no_file(calls, tmp_path, write):
    probe = NamingProbe(VirtualClock(), on_gpu=True)
    adapter = build(FakeCase(fail_every=1), probe)
    with pytest.raises(RuntimeError):
        write(adapter, SAMPLES, probe, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    assert calls.count("<") == sum(call.startswith(">") for call in calls)
    if write is tracing.write_memory_snapshot:
        assert calls[-1] == "history None"


# With no byte, PyTorch leaves an empty file; with a page, one that is cut short.
@pytest.mark.parametrize("left_bytes", [0, 4096])
def test_a_trace_that_the_disk_has_no_room_for_is_an_error_that_names_the_folder(
    tmp_path, left_bytes
):
    probe = NamingProbe(VirtualClock(), on_gpu=False)
    adapter = build(FakeCase(), probe)
    (tmp_path / "out").mkdir()
    with disk_of("full", tmp_path / "disk", mib=1) as disk, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(disk.folder))
        patch.setattr(tracing, "predict_batch", lambda *_: [torch.ones(3) for _ in range(100)])
        (disk.folder / "room").write_bytes(bytes(left_bytes))
        disk.spoil()
        (disk.folder / "room").unlink()
        with pytest.raises(OSError, match=f"into {disk.folder}, whose disk may be full"):
            tracing.write_trace(adapter, SAMPLES, probe, tmp_path / "out" / "a.json.gz")
        disk.mend()
    assert list((tmp_path / "out").iterdir()) == []
