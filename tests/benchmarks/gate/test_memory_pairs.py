"""Which processes of a side measure memory, and what comes of those that do not."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from raw_runs import raw_run
from run_factory import edit_lines, edit_run, write_run

from lisabench.benchmarks.capabilities import (
    LOCKSTEP,
    RUN_WITHOUT_MEMORY_PASS,
    SHARED_MACHINE,
)
from lisabench.benchmarks.gate import pairs as pairs_module
from lisabench.benchmarks.gate.merge import merge_runs
from lisabench.benchmarks.gate.pairs import (
    Pairing,
    has_one_peak,
    memory_is_known,
    pairs_that_fit,
)
from lisabench.harness.records.run import Run, read_run
from lisabench.reports.gate.baseline import reduced
from lisabench.reports.gate.checks import Check, gate_checks
from lisabench.reports.gate.pairs import time_pairs
from lisabench.reports.gate.thresholds import Gate

pytestmark = pytest.mark.no_clock

GPU, CPU = "cuda events", "host"


def part(folder: Path, more_mib: int | None = 0, clock: str = GPU, cases: int = 1) -> Run:
    """Write a run of one process, whose peaks are so much larger than those of others.

    None: it has no memory pass.
    """
    write_run(
        folder, cases, queries=8, processes=1, clock=clock, controls=False, size=(24, 32), gallery=0
    )
    plan = {
        "processes": 1,
        "block": 8,
        "warmup": 0,
        "memory_processes": int(more_mib is not None),
    }
    edit_run(folder, plan=plan, definition={"plan": plan})
    if more_mib is None:
        (folder / "memory.jsonl").unlink()
    else:
        edit_lines(folder / "memory.jsonl", lambda line: line | _grown(line, more_mib))
    return read_run(folder)


def _grown(line: dict, more_mib: int) -> dict:
    names = ("peak_bytes", "peak_reserved_bytes")
    return {name: line[name] + (more_mib << 20) for name in names if line[name] is not None}


def parts(folder: Path, mib: Sequence[int | None], **more) -> list[Run]:
    return [part(folder / str(number), more_mib, **more) for number, more_mib in enumerate(mib)]


@pytest.mark.parametrize(
    ("base", "head", "more", "expected"),
    [
        ([0, 0], [0, 0], {}, True),
        ([0, 0], [64, 64], {}, True),  # as large a difference as there may be, but between versions
        ([0, 0], [0, 2], {}, False),
        ([0, 0], [0, None], {}, False),
        ([0, 0], [None, None], {}, False),
        ([0, 0], [0, 0], {"clock": CPU}, False),
        ([0, 0], [0, 0], {"cases": 2}, False),
    ],
)
def test_memory_is_known_where_each_side_has_one_case_with_one_peak_by_the_allocator(
    tmp_path, base, head, more, expected
):
    sides = [parts(tmp_path / "base", base, **more), parts(tmp_path / "head", head, **more)]
    assert all(has_one_peak(side) for side in sides) is expected


def test_where_the_memory_pass_failed_memory_is_not_known(tmp_path):
    side = parts(tmp_path, [0, 0])
    (entry,) = raw_run(side[1].folder).run["cases"]
    edit_run(side[1].folder, cases=[entry | {"memory_error": "out of memory"}])
    assert not has_one_peak([side[0], read_run(side[1].folder)])


class Versioned:
    """A version that can do what it is told."""

    label = "a version"

    def __init__(self, *capabilities: str) -> None:
        self.capabilities = frozenset(capabilities)


NEWER, OLDER = Versioned(RUN_WITHOUT_MEMORY_PASS), Versioned()


@pytest.mark.parametrize(
    ("base", "head", "expected"),
    [(NEWER, NEWER, True), (OLDER, NEWER, False), (NEWER, OLDER, False)],
)
def test_both_sides_leave_memory_out_or_neither_does(tmp_path, base, head, expected):
    sides = {name: parts(tmp_path / name, [0, 0]) for name in ("base", "head")}
    assert memory_is_known([base, head], sides) is expected


def of_gpu(folder: Path, held_gib: int, gpu_gib: int = 24, cases: int = 1) -> Run:
    """Write a run of one process, whose cases hold so much of a GPU of that size each."""
    part(folder, cases=cases)
    context = 700 << 20
    reserved = {"peak_reserved_bytes": (held_gib << 30) - context, "device_process_bytes": None}
    edit_lines(folder / "memory.jsonl", lambda line: line | reserved)
    edit_run(folder, passport=raw_run(folder).run["passport"] | {"gpu_memory_bytes": gpu_gib << 30})
    return read_run(folder)


@pytest.mark.parametrize(
    ("held_gib", "cases", "host_gib", "expected"),
    [
        (5, 1, 1000, 2),  # two pairs take 20 of 22.8 GiB, three would take 30
        (6, 1, 1000, 1),
        (2, 2, 1000, 2),  # two cases of each version
        (1, 1, 1000, 11),
        (1, 1, 17, 2),  # two runs with one worker each take 8 GiB of the host
        (20, 1, 1000, 1),  # one pair does not fit either, which is found when it is built
    ],
)
def test_so_many_pairs_build_together_as_the_gpu_and_the_host_hold(
    tmp_path, monkeypatch, held_gib, cases, host_gib, expected
):
    available = SimpleNamespace(available=host_gib << 30)
    monkeypatch.setattr(pairs_module.psutil, "virtual_memory", lambda: available)
    runs = {name: [of_gpu(tmp_path / name, held_gib, cases=cases)] for name in ("base", "head")}
    assert pairs_that_fit(runs) == expected


def test_pairs_build_one_after_the_other_on_a_cpu_and_where_nothing_is_known(tmp_path):
    on_cpu = {name: [part(tmp_path / name, clock=CPU)] for name in ("base", "head")}
    assert pairs_that_fit(on_cpu) == 1
    without_memory = {name: [part(tmp_path / f"{name}-2", None)] for name in ("base", "head")}
    assert pairs_that_fit(without_memory) == 1
    assert pairs_that_fit({"base": [], "head": []}) == 1


@pytest.mark.parametrize(
    ("able", "expected"),
    [
        ([{LOCKSTEP, SHARED_MACHINE}] * 2, 3),
        ([{LOCKSTEP}, {LOCKSTEP, SHARED_MACHINE}], 1),
        ([{SHARED_MACHINE}, {LOCKSTEP, SHARED_MACHINE}], 1),
    ],
)
def test_pairs_build_together_only_if_both_versions_can(monkeypatch, able, expected):
    monkeypatch.setattr(pairs_module, "pairs_that_fit", lambda _: 4)
    versions = [Versioned(*capabilities) for capabilities in able]
    assert Pairing(versions).at_once({}, left=3) == expected


def checks(
    folder: Path, base: Sequence[int | None], head: Sequence[int | None]
) -> dict[str, Check]:
    """By figure, as `run --against` judges two versions whose parts were these."""
    runs = [merge_runs(parts(folder / name, mib), folder / f"{name}-whole", {}) for name, mib in
            (("base", base), ("head", head))]  # fmt: skip
    assert [run.manifest.plan.memory_processes for run in runs] == [
        len(base) - base.count(None)
    ] * 2
    found = gate_checks(reduced(runs[0]), reduced(runs[1]), Gate(), pairs=time_pairs(*runs))
    return {check.metric: check for check in found}


def test_parts_without_memory_count_for_time_and_those_with_it_give_the_peak_an_interval(tmp_path):
    found = checks(tmp_path, [0, 0, None], [0, 0, None])
    assert found["time.end_to_end"].low is not None
    for metric in ("memory.peak", "memory.query_peak"):
        assert (found[metric].verdict, found[metric].low, found[metric].high) == ("holds", 1, 1)


def test_a_model_that_takes_64_mib_more_is_found_by_two_processes_a_side(tmp_path):
    found = checks(tmp_path, [0, 0, None, None, None], [64, 64, None, None, None])
    assert {found[f"memory.{name}"].verdict for name in ("peak", "query_peak")} == {"regression"}


def test_two_processes_a_side_that_differ_say_what_they_must_and_no_more(tmp_path):
    found = checks(tmp_path, [0, 0, None], [0, 64, None])["memory.peak"]
    assert (found.verdict, found.why) == ("inconclusive", "its interval reaches over the limit")


@pytest.mark.parametrize("others", [[], [None, None]])
def test_one_process_a_side_tells_nothing_of_memory_and_says_so(tmp_path, others):
    found = checks(tmp_path, [0, *others], [64, *others])["memory.peak"]
    assert (found.verdict, found.why) == ("inconclusive", "one process gives no interval")


def test_a_side_without_any_memory_is_missing_it(tmp_path):
    runs = [merge_runs(parts(tmp_path / name, mib), tmp_path / f"{name}-whole", {}) for name, mib in
            (("base", [0, 0]), ("head", [None, None]))]  # fmt: skip
    found = gate_checks(reduced(runs[0]), reduced(runs[1]), Gate())
    assert {check.verdict for check in found if check.metric.startswith("memory")} == {"missing"}
