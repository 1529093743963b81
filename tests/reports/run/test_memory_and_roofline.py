"""The passes beside the timing: what memory is made of, how near a stage is to its ceiling, and who
else is at work.
"""

import json
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from types import SimpleNamespace

import psutil
import pynvml
import pytest
import torch
from query_records import memory_record
from run_factory import edit_run, write_lines, write_run
from sessions import QUICK, content_of

from lisabench.benchmarks import suite_file
from lisabench.benchmarks.queries import Queries
from lisabench.benchmarks.run.case_worker import CaseWorker
from lisabench.benchmarks.run.journal import Journal
from lisabench.benchmarks.run.session import Session
from lisabench.benchmarks.run.worker_messages import WorkerSettings
from lisabench.benchmarks.run.worker_pool import WorkerProcess
from lisabench.harness import noise, nvml, passes, roofline
from lisabench.harness.clock import VirtualClock
from lisabench.harness.contract import Paper
from lisabench.harness.records.from_json import from_json
from lisabench.harness.records.journal import current_lines
from lisabench.harness.records.manifest import CaseEntry
from lisabench.harness.records.run import SAMPLES, CaseRecords, MemoryRecord, PassRecord, read_run
from lisabench.models import registry
from lisabench.models.adapters import lisa
from lisabench.models.lisa import config
from lisabench.reports.run import memory_and_roofline
from lisabench.reports.run.memory_and_roofline import (
    StagePasses,
    memory_split,
    stage_passes,
    unexpected_weights,
)
from lisabench.reports.run.schema import Roofline
from lisabench.reports.run.summary import summarise

pytestmark = pytest.mark.no_clock

MIB = 2**20
PLAIN = {"queries": 8, "size": (24, 32), "gallery": 0, "controls": False}


# What a peak of memory is made of


def line(stage, peak_mib, reserved_mib=None, process_mib=None, **further):
    sizes = {
        "peak_bytes": peak_mib,
        "peak_reserved_bytes": reserved_mib,
        "device_process_bytes": process_mib,
    }
    sizes = {name: mib and mib * MIB for name, mib in sizes.items()}
    return memory_record(stage, **sizes, **further)


def on_paper(weights_mib, cache_mib=0):
    half = weights_mib * MIB // 2
    weight_bytes = {"clip": half, "llm": weights_mib * MIB - half}
    return Paper(weight_bytes, cache_mib * MIB, flops={}, traffic_bytes={})


def test_the_parts_of_a_peak_add_up_to_what_the_driver_counts():
    """The build's own peak is larger than any of a query, and is no part of it."""
    lines = [
        line("build", 9000, 9500, 9900, weights_bytes=1000 * MIB),
        line("vision", 1400, 1500, 1900),
        line("llm", 1300, 1600, 2000, kv_cache_bytes=64 * MIB),
    ]
    split = memory_split(on_paper(990, 60), lines)
    assert (split.weights_bytes, split.paper_weights_bytes) == (1000 * MIB, 990 * MIB)
    assert (split.kv_cache_bytes, split.paper_kv_cache_bytes) == (64 * MIB, 60 * MIB)
    assert split.activations_bytes == 336 * MIB
    assert split.weights_bytes + split.kv_cache_bytes + split.activations_bytes == 1400 * MIB
    assert (split.slack_bytes, split.outside_bytes) == (200 * MIB, 400 * MIB)


def test_without_a_kv_cache_all_but_the_weights_is_activations():
    lines = [
        line("build", 1000, 1000, 1400, weights_bytes=1000 * MIB),
        line("vision", 1400, 1500, 1900),
    ]
    split = memory_split(None, lines)
    assert split.activations_bytes == 400 * MIB
    assert (split.kv_cache_bytes, split.paper_weights_bytes, split.paper_kv_cache_bytes) == (
        None,
        None,
        None,
    )


def test_a_driver_that_does_not_tell_leaves_only_its_own_part_unknown():
    lines = [line("build", 1000, 1000, weights_bytes=1000 * MIB), line("vision", 1400, 1500)]
    split = memory_split(None, lines)
    assert (split.activations_bytes, split.slack_bytes, split.outside_bytes) == (
        400 * MIB,
        100 * MIB,
        None,
    )


def test_a_resident_set_is_not_split():
    lines = [
        line("build", 1000, weights_bytes=20 * MIB),
        line("vision", 1400, kv_cache_bytes=2 * MIB),
    ]
    split = memory_split(on_paper(20, 2), lines)
    assert (split.weights_bytes, split.kv_cache_bytes) == (20 * MIB, 2 * MIB)
    assert (split.activations_bytes, split.slack_bytes, split.outside_bytes) == (None, None, None)


def test_where_the_weights_are_not_known_nothing_is_split():
    assert memory_split(on_paper(20), [line("vision", 1400, 1500, 1900)]) is None


def complaints(measured_mib, paper_mib):
    lines = [line("build", 1000, weights_bytes=measured_mib * MIB)]
    return list(unexpected_weights([case_of(memory_split(on_paper(paper_mib), lines))]))


def case_of(split):
    return SimpleNamespace(name="c", memory=SimpleNamespace(split=split))


@pytest.mark.parametrize(
    ("measured_mib", "paper_mib", "expected"),
    [
        (
            200,
            100,
            "c: its weights take 200 MiB, by arithmetic 100 MiB: "
            "something is loaded that should not be",
        ),
        (110, 100, None),
        (132, 100, None),  # the bound itself is kept
        (133, 100, "something is loaded that should not be"),
        (67, 100, "c: its weights take 67 MiB, by arithmetic 100 MiB: something is not loaded"),
        (68, 100, None),
        (10_100, 10_000, None),  # 1 % of a large model is more than 32 MiB
        (10_101, 10_000, "something is loaded that should not be"),
        (9_899, 10_000, "something is not loaded"),
    ],
)
def test_weights_may_be_off_paper_by_the_larger_of_one_per_cent_and_32_mib(
    measured_mib, paper_mib, expected
):
    found = complaints(measured_mib, paper_mib)
    assert len(found) == (expected is not None)
    assert expected is None or expected in found[0]


def test_a_case_without_arithmetic_raises_no_complaint():
    lines = [line("build", 1000, weights_bytes=1000 * MIB)]
    assert list(unexpected_weights([case_of(memory_split(None, lines)), case_of(None)])) == []


def build_with_unused(case: config.LisaConfig, probe):
    """A LISA that also holds 100 MB that no stage uses."""
    adapter = lisa.build(case, probe)
    adapter.model.unused = torch.nn.Linear(5000, 5000, bias=False)
    return adapter


@pytest.mark.parametrize(("adapter", "warned"), [("lisa", False), ("lisa-with-unused", True)])
def test_100_mb_that_a_model_does_not_use_raise_the_warning_of_its_weights(
    data_root, monkeypatch, adapter, warned
):
    monkeypatch.setitem(registry.ADAPTERS, "lisa-with-unused", f"{__name__}:build_with_unused")
    found = CaseWorker(
        WorkerSettings(
            adapter, config.LisaConfig(device="cpu"), {"root": data_root, "split": "val"}
        )
    ).measure_memory(1)
    assert found.error is None
    cost = from_json(Paper, found.costs)
    rows = [from_json(MemoryRecord, {"case": "c", "process": 0} | line) for line in found.lines]
    split = memory_split(cost, rows)
    assert split.weights_bytes - split.paper_weights_bytes == pytest.approx(
        100e6 * warned, rel=0, abs=MIB
    )
    complaints = list(unexpected_weights([case_of(split)]))
    assert len(complaints) == warned
    assert all("something is loaded that should not be" in sentence for sentence in complaints)


# Floors, and the passes' times


ON_GPU = {"device": "cuda", "dtype": "bfloat16"}
H200 = {"cuda": {"matrix_flops_per_s": {"bfloat16": 4e14}, "bandwidth_bytes_per_s": 2e12}}
PAPER = Paper(
    weight_bytes={},
    kv_cache_bytes=0,
    flops={"vision": 4e12, "llm": 4e11},
    traffic_bytes={"vision": 1e9, "llm": 1.4e10},
)


def records_of(passes=(), **known):
    entry = CaseEntry(name="a", adapter="lisa", role="model", **known)
    lines = [from_json(PassRecord, line, kind=line["pass"]) for line in passes]
    return CaseRecords(entry, passes=tuple(lines))


def test_the_floor_of_a_stage_is_the_larger_of_its_operations_and_its_bytes():
    """Vision: 10 ms of operations and 0.5 of bytes; the language model: 1 and 7."""
    found = stage_passes(records_of(paper=PAPER, settings=ON_GPU), H200)
    assert {name: stage.floor_ms for name, stage in found.items()} == pytest.approx(
        {"vision": 10.0, "llm": 7.0}, rel=1e-9, abs=0
    )
    assert all(
        stage.synchronised_ms is None and stage.gpu_busy_ms is None for stage in found.values()
    )


@pytest.mark.parametrize(
    "known",
    [
        {"paper": PAPER, "settings": ON_GPU | {"dtype": "float8"}},
        {"paper": PAPER, "settings": ON_GPU | {"device": "cpu"}},
        {"paper": PAPER, "settings": None},
        {"paper": None, "settings": ON_GPU},
        {"settings": ON_GPU},
    ],
)
def test_there_is_no_floor_without_a_rate_and_arithmetic(known):
    assert stage_passes(records_of(**known), H200) == {}


def waited(case, process, sample_id, which="synchronised", **stages_ms):
    stages_ns = {name: round(ms * 1e6) for name, ms in stages_ms.items()}
    found = {"case": case, "process": process, "attempt": 0, "pass": which, "stages_ns": stages_ns}
    return found | ({"sample_id": sample_id} if which == "synchronised" else {"queries": 1})


def test_a_stage_takes_the_median_of_its_passes_each_kind_by_itself():
    lines = [waited("a", 0, str(i), vision=ms) for i, ms in enumerate((3, 50, 2))]
    lines += [waited("a", 0, "", "profiled", vision=1.5, llm=0.5)]
    found = stage_passes(records_of(lines), {})
    assert found["vision"] == StagePasses(synchronised_ms=3.0, gpu_busy_ms=1.5, floor_ms=None)
    assert found["llm"] == StagePasses(synchronised_ms=None, gpu_busy_ms=0.5, floor_ms=None)


# The tables


def written(folder, passes=(), **entries):
    """A run on a GPU that was made up, with further keys for its cases' entries."""
    write_run(folder, cases=2, clock="cuda events", **PLAIN)
    cases = json.loads((folder / "run.json").read_text())["cases"]
    edit_run(folder, ceilings=H200, cases=[case | entries.get(case["name"], {}) for case in cases])
    write_lines(folder / "passes.jsonl", list(passes))
    return summarise(read_run(folder))


def cells(table, row):
    found = next(text for text in table.splitlines() if text.startswith(f"| {row} |"))
    return [cell.strip() for cell in found.strip("|").split("|")][1:]


def test_a_cell_of_the_ceilings_reads_floor_over_time(tmp_path):
    paper = asdict(on_paper(100)) | {
        "flops": {"vision": 7.6e-3 * 4e14},
        "traffic_bytes": {"vision": 0},
    }
    lines = [waited("dual", 0, f"scene-000{i}", vision=44.1) for i in range(3)]
    summary = written(tmp_path, lines, dual={"paper": paper, "settings": ON_GPU})
    table = memory_and_roofline.roofline_table(summary)
    assert cells(table, "dual") == ["17 % (7.60 of 44.1 ms)", "n/a", "n/a"]
    assert "| sam |" not in table and "GPU at work" not in table


def test_the_gpu_is_at_work_for_its_busy_times_over_the_time_of_a_query(tmp_path):
    paper = asdict(on_paper(100)) | {"flops": {"llm": 4e11}, "traffic_bytes": {"llm": 0}}
    lines = [waited("dual", 0, "", "profiled", vision=10, llm=6)]
    summary = written(tmp_path, lines, dual={"paper": paper, "settings": ON_GPU})
    table = memory_and_roofline.roofline_table(summary)
    end_to_end_ms = summary.cases[0].time.end_to_end_ms  # drawn around 64 ms
    assert "GPU at work" in table.splitlines()[0]
    assert cells(table, "dual")[0] == f"{1600 / end_to_end_ms:.0f} %"
    median_ms = summary.cases[0].time.stages["llm"].median_ms  # without a synchronised pass
    assert cells(table, "dual")[2] == f"{100 / median_ms:.0f} % (1.00 of {median_ms:.1f} ms)"


def test_the_table_of_memory_has_the_columns_that_are_known_of_any_case(tmp_path):
    write_run(tmp_path, cases=2, **PLAIN)
    row = {
        "case": "dual",
        "process": 0,
        "instrument": "resident set",
        "stage": "build",
        "start_bytes": 0,
        "peak_bytes": 300 * MIB,
        "queries": 1,
        "weights_bytes": 25 * MIB,
    }
    write_lines(tmp_path / "memory.jsonl", [row])
    table = memory_and_roofline.split_table(summarise(read_run(tmp_path)))
    assert [cell.strip() for cell in table.splitlines()[0].strip("|").split("|")] == [
        "MiB",
        "weights",
    ]
    assert cells(table, "dual") == ["25"]
    assert "| sam |" not in table


def test_where_nothing_is_known_there_is_no_table(tmp_path):
    summary = written(tmp_path)
    assert (
        memory_and_roofline.split_table(summary),
        memory_and_roofline.roofline_table(summary),
        memory_and_roofline.roofline_text({}),
    ) == ("",) * 3


def test_ceilings_are_told_in_words():
    found = Roofline(
        matrix_flops_per_s={"float32": 5e13, "bfloat16": 4e14}, bandwidth_bytes_per_s=2e12
    )
    words = "cuda: 50.00 TFLOP/s in float32, 400.00 TFLOP/s in bfloat16; 2,000 GB/s"
    assert memory_and_roofline.roofline_text({"cuda": found}) == words


# Comparison by synchronised times


def test_stages_are_compared_by_the_pass_that_waits_where_both_sides_have_one(tmp_path):
    """The timed records say about 0.8 for vision; the GPU, waited for, 0.25. A query of one side
    alone has no pair.
    """
    queries = [(process, f"scene-000{i}") for process in range(3) for i in range(4)]
    lines = [waited("dual", *query, vision=40, llm=10) for query in queries]
    lines += [waited("sam", *query, vision=10, llm=10, decoder=1) for query in queries]
    lines += [waited("sam", process, "scene-0007", vision=4000, llm=1) for process in range(3)]
    found = written(tmp_path, lines).comparisons[0]
    assert found.stages_synchronised is True
    assert list(found.stages) == ["vision", "llm"]
    assert found.stages["vision"].ratio == pytest.approx(0.25, rel=1e-9, abs=0)
    assert found.stages["llm"].ratio == pytest.approx(1.0, rel=1e-9, abs=0)
    assert found.stages["vision"].processes == 3


@pytest.mark.parametrize("which", ["synchronised", "profiled"])
def test_stages_are_compared_by_the_timed_records_where_one_side_was_not_waited_for(
    tmp_path, which
):
    lines = [
        waited("dual", 0, "scene-0000", vision=40),
        waited("sam", 0, "scene-0000", "profiled", vision=10),
    ]
    lines += [waited("dual", 0, "scene-0001", which, vision=40)]
    found = written(tmp_path, lines).comparisons[0]
    assert found.stages_synchronised is False
    assert list(found.stages) == ["preprocess", "vision", "llm", "decoder", "postprocess"]
    assert 0.7 < found.stages["vision"].ratio < 0.9  # drawn around 24.4 of 31 ms


# What else goes on


@dataclass
class Machine:
    """Counters of a machine of two cores, as a test sets them; this process may use the first."""

    wall_s: float = 100.0
    own_s: float = 3.0
    cpu: dict = field(
        default_factory=lambda: {"user": 50.0, "system": 10.0, "idle": 900.0, "iowait": 7.0}
    )
    elsewhere: dict = field(default_factory=lambda: {"user": 5.0})

    def passes(self, wall_s, own_s=0.0, **cpu_s):
        self.wall_s, self.own_s = self.wall_s + wall_s, self.own_s + own_s
        self.cpu = self.cpu | {name: self.cpu.get(name, 0.0) + s for name, s in cpu_s.items()}


@pytest.fixture
def machine(monkeypatch):
    made = Machine()
    clock = SimpleNamespace(monotonic=lambda: made.wall_s, process_time=lambda: made.own_s)
    monkeypatch.setattr(noise, "time", clock)

    def cores(**_):
        return [SimpleNamespace(**core) for core in (made.cpu, made.elsewhere)]

    monkeypatch.setattr(psutil, "cpu_times", cores)
    monkeypatch.setattr(noise, "usable_cores", lambda: {0})
    return made


@pytest.mark.parametrize(
    ("user_s", "cores", "warned"),
    [(11.4, 0.7, True), (9.0, 0.1, False), (10.6, 0.5, False), (5.0, 0.0, False)],
)
def test_other_programs_are_what_is_busy_beside_this_process(machine, user_s, cores, warned):
    """Over 4 s, of which this process has computed 9.6; waiting for a disk is no work."""
    watch = noise.Watch("cpu")
    machine.passes(4.0, own_s=9.6, user=user_s, steal=0.4, system=0.6, idle=1.0, iowait=30.0)
    found = watch.end(2)
    assert found.other_cores == pytest.approx(cores, rel=0, abs=1e-9)
    assert (found.energy_mj, found.sm_clock_mhz) == (None, None)
    assert len(found.warnings) == warned
    assert all(f"kept {cores} cores of the host busy" in warning for warning in found.warnings)


def test_programs_on_cores_that_this_process_may_not_use_are_no_matter(machine):
    watch = noise.Watch("cpu")
    machine.wall_s, machine.elsewhere = machine.wall_s + 4.0, {"user": 9.0}
    assert (watch.end(2).other_cores, watch.end(2).warnings) == (0.0, ())


def test_the_load_of_short_blocks_is_added_up_until_a_fifth_of_a_second_has_passed(machine):
    """Seven blocks of 30 ms, in each of which another program is busy for 24; what lies between
    them is no part.
    """
    watch = noise.Watch("cpu")
    told = []
    for _ in range(14):
        machine.passes(5.0, user=5.0)  # another case's turn
        watch.begin()
        machine.passes(0.030, own_s=0.030, user=0.054)
        found = watch.end(1)
        told.append((found.other_cores, len(found.warnings)))
    assert told == [*[(None, 0)] * 6, (0.8, 1)] * 2


def test_a_long_block_tells_of_itself_alone(machine):
    watch = noise.Watch("cpu")
    machine.passes(4.0, user=4.0)
    assert watch.end(1).other_cores == pytest.approx(1.0, rel=0, abs=1e-9)
    watch.begin()
    machine.passes(4.0, own_s=4.0, user=4.0)
    assert watch.end(1).other_cores == pytest.approx(0.0, rel=0, abs=1e-9)


@pytest.mark.parametrize(
    ("battery", "warned"),
    [(None, False), (SimpleNamespace(power_plugged=True), False),
     (SimpleNamespace(power_plugged=None), False),
     (SimpleNamespace(power_plugged=False), True)],
)  # fmt: skip
def test_a_machine_on_its_battery_is_warned_of(monkeypatch, battery, warned):
    monkeypatch.setattr(psutil, "sensors_battery", lambda: battery, raising=False)
    found = noise.surroundings("cpu")
    assert len(found) == warned
    assert all("battery" in warning and "plug it in" in warning for warning in found)


@pytest.fixture
def gpu(monkeypatch):
    """What a GPU answers, as a test sets it; an error is raised."""
    says = {"reasons": 0, "clock": 1980, "energy": 1000, "processes": []}

    def answers(what):
        def asked(*_):
            if isinstance(says[what], Exception):
                raise says[what]
            return says[what]

        return asked

    monkeypatch.setattr(nvml, "handle", lambda: "a handle")
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCurrentClocksThrottleReasons", answers("reasons"))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetClockInfo", answers("clock"))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", answers("energy"))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", answers("processes"))
    return says


@pytest.mark.parametrize(
    ("reasons", "expected"),
    [
        (pynvml.nvmlClocksThrottleReasonSwPowerCap, "by its power limit (at 1200 MHz)"),
        (pynvml.nvmlClocksThrottleReasonHwSlowdown, "by a hardware slowdown (at"),
        (pynvml.nvmlClocksThrottleReasonSwThermalSlowdown, "by heat (at"),
        (pynvml.nvmlClocksThrottleReasonHwThermalSlowdown, "by heat (hardware) (at"),
        (pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown, "by the power supply (at"),
        (
            pynvml.nvmlClocksThrottleReasonSwPowerCap
            | pynvml.nvmlClocksThrottleReasonSwThermalSlowdown,
            "by its power limit and heat (at",
        ),
        (pynvml.nvmlClocksThrottleReasonGpuIdle, None),
        (pynvml.nvmlClocksThrottleReasonApplicationsClocksSetting, None),
        (0, None),
    ],
)
# `machine` is an idle host.
def test_a_gpu_that_is_held_back_says_by_what(machine, gpu, reasons, expected):  # noqa: ARG001
    gpu |= {"reasons": reasons, "clock": 1200}
    found = noise.Watch("cuda").end(1)
    assert found.sm_clock_mhz == 1200
    assert len(found.warnings) == (expected is not None)
    assert expected is None or f"the GPU was held back {expected}" in found.warnings[0]


def test_energy_is_of_one_query_nil_where_the_counter_stood_still_and_unknown_where_it_was_set_back(
    machine,  # noqa: ARG001
    gpu,
):
    watch = noise.Watch("cuda")
    assert watch.end(4).energy_mj == 0
    gpu["energy"] += 1000
    assert watch.end(4).energy_mj == 250.0
    watch.begin()
    gpu["energy"] = 10
    assert watch.end(4).energy_mj is None


def test_a_gpu_that_does_not_tell_is_no_failure(machine, gpu):  # noqa: ARG001
    refused = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    gpu |= dict.fromkeys(gpu, refused)
    found = noise.Watch("cuda").end(1)
    assert (found.energy_mj, found.sm_clock_mhz, found.warnings) == (None, None, ())


@pytest.mark.parametrize(
    ("processes", "used_mib", "warned"), [([], 600, False), ([], 2000, True), (["one"], 600, True)]
)
def test_other_programs_on_the_gpu_are_warned_of(gpu, monkeypatch, processes, used_mib, warned):
    monkeypatch.setattr(psutil, "sensors_battery", lambda: None, raising=False)
    monkeypatch.setattr(nvml, "used_bytes", lambda: used_mib * MIB)
    gpu["processes"] = processes
    found = noise.surroundings("cuda")
    assert len(found) == warned
    assert all(f"({len(processes)} listed, {used_mib} MiB in use" in warning for warning in found)
    assert noise.surroundings("cpu") == []


# The pass that waits


class Asynchronous(VirtualClock):
    """A device that works on after the host: the time is spent where it is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.queued_ns = 0

    def synchronize(self) -> None:
        self.wait(self.queued_ns)
        self.queued_ns = 0


@pytest.fixture
def asynchronous(monkeypatch):
    """Such a device, whose time is the host's, too."""
    clock = Asynchronous()
    monkeypatch.setattr(passes, "time", SimpleNamespace(perf_counter_ns=clock.mark))
    return clock


def test_a_stage_lasts_until_its_work_is_done_and_what_came_before_is_not_its_own(asynchronous):
    probe = passes.SynchronisedProbe(asynchronous)
    asynchronous.queued_ns = 100
    with probe.region("vision"):
        asynchronous.queued_ns += 20
    assert probe.stages_ns == {"vision": 20}


def test_a_stage_that_is_entered_twice_adds_up_and_finer_regions_pass_unseen(asynchronous):
    probe = passes.SynchronisedProbe(asynchronous)
    for _ in range(2):
        with probe.region("llm"), probe.region("llm.prefill"):
            asynchronous.wait(20)
    with probe.region("vision.clip"):
        asynchronous.wait(3)
    assert probe.stages_ns == {"llm": 40}


# A machine's ceilings are measured once


@pytest.fixture
def measurements(monkeypatch):
    """The devices whose ceilings were measured, in order."""
    asked = []

    def measured(device):
        asked.append(device)
        return H200["cuda"] | {"bandwidth_bytes_per_s": 1e12 + len(asked)}

    monkeypatch.setattr(roofline, "measure_roofline", measured)
    return asked


def test_ceilings_are_measured_once_for_each_device_and_version(
    tmp_path, monkeypatch, measurements
):
    monkeypatch.setenv("LISABENCH_CACHE", str(tmp_path / "cache"))
    first = roofline.cached_roofline("cpu")
    assert roofline.cached_roofline("cpu") == first
    assert measurements == ["cpu"]
    roofline.cached_roofline("cuda")
    monkeypatch.setattr(roofline.environment, "versions", lambda: {"torch": "another"})
    roofline.cached_roofline("cpu")
    assert measurements == ["cpu", "cuda", "cpu"]


def test_a_cache_that_cannot_be_written_to_costs_only_the_measurement(
    tmp_path, monkeypatch, measurements
):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("LISABENCH_CACHE", str(tmp_path / "file"))
    found = [roofline.cached_roofline("cpu")["bandwidth_bytes_per_s"] for _ in range(2)]
    assert found == [1e12 + 1, 1e12 + 2]
    assert measurements == ["cpu", "cpu"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"owner": {}, "ceil',
        "[1]",
        "{}",
        '{"ceilings": 7}',
        '{"ceilings": {"matrix_flops_per_s": {"float32": "fast"}, "bandwidth_bytes_per_s": 1}}',
        '{"ceilings": {"matrix_flops_per_s": {"float32": 0}, "bandwidth_bytes_per_s": 1}}',
        '{"ceilings": {"matrix_flops_per_s": {}, "bandwidth_bytes_per_s": 1}}',
        '{"ceilings": {"matrix_flops_per_s": {"float32": NaN}, "bandwidth_bytes_per_s": 1}}',
    ],
)
def test_a_damaged_cache_of_ceilings_is_measured_again_and_replaced(
    tmp_path, monkeypatch, measurements, content
):
    monkeypatch.setenv("LISABENCH_CACHE", str(tmp_path))
    roofline.cached_roofline("cpu")
    (file,) = tmp_path.glob("ceilings-*.json")
    file.write_text(content)
    again = roofline.cached_roofline("cpu")
    assert again == roofline.cached_roofline("cpu")
    assert measurements == ["cpu", "cpu"]


def test_what_is_measured_beside_can_be_left_out(data_root, tmp_path, monkeypatch):
    send, case = WorkerProcess._send, {"a": {"adapter": "lisa", "device": "cpu"}}

    def asked(beside: bool) -> list[str]:
        names: list[str] = []
        session = session_of(data_root, tmp_path / str(beside), case, beside=beside)
        with monkeypatch.context() as patch:
            patch.setattr(
                WorkerProcess,
                "_send",
                lambda self, method, *rest: (
                    names.append(method.__name__) or send(self, method, *rest)
                ),
            )
            session.start()
        return names

    with_it, without = asked(beside=True), asked(beside=False)
    assert set(with_it) - set(without) == {"measure_roofline", "profile"}
    assert "measure_memory" in without


# Cases too large to be side by side


def session_of(data_root, folder, cases=None, **plan):
    cases = cases or {"a": QUICK, "b": QUICK}
    controls = {"empty": {"adapter": "empty"}}
    suite = suite_file.validate(content_of(data_root, cases, plan, controls=controls))
    return Session(suite, Queries.of(suite), folder, lambda *_: None)


def test_cases_that_do_not_fit_side_by_side_alternate_as_fresh_processes(
    data_root, tmp_path, monkeypatch
):
    monkeypatch.setattr(Journal, "memory_needed", lambda *_: (1 << 60, False))
    session = session_of(data_root, tmp_path / "out")
    pool = session.run.pool
    start, alive, side_by_side = pool.start_case, [], []

    @contextmanager
    def counted(order, gpu=None):
        with start(order, gpu) as worker:
            alive.append(order)
            side_by_side.append(len(alive))
            yield worker
        alive.remove(order)

    monkeypatch.setattr(pool, "start_case", counted)
    session.start()
    run = read_run(tmp_path / "out")
    lines = current_lines(run.folder / SAMPLES)
    orders = [
        "".join(r["case"] for r in lines if r["process"] == p and r["case"] != "empty")
        for p in (0, 1)
    ]
    assert orders == ["aaaaaabbbbbb", "bbbbbbaaaaaa"]
    assert set(side_by_side) == {1}
    keys = Counter((row["case"], row["process"], row["sample_id"]) for row in lines)
    assert (
        set(keys.values()) == {1} and len(keys) == 2 * 2 * 6
    )  # the control is in the quality pass
    assert [w for w in run.manifest.warnings if "a, b do not fit side by side" in w]
    assert run.manifest.status == "complete"


def test_cases_that_are_capped_to_a_card_have_it_to_themselves(data_root, tmp_path):
    session = session_of(data_root, tmp_path / "out", gpu_memory="8GB")
    session.start()
    run = read_run(tmp_path / "out")
    asked = "".join(
        row["case"]
        for row in current_lines(run.folder / SAMPLES)
        if row["process"] == 0 and row["case"] != "empty"
    )
    assert asked == "aaaaaabbbbbb"
    assert [w for w in run.manifest.warnings if "a, b have a card of 8GB each" in w]
