"""Cases that take turns on a GPU launch its kernels from one core."""

import json
import os
import threading
from itertools import count
from types import SimpleNamespace

import psutil
import pytest
import sessions

from lisabench.benchmarks import subprocesses
from lisabench.benchmarks.gate.pairs import Call, Pairing
from lisabench.benchmarks.run import case_worker, cpu_pinning, lockstep, timed_rounds
from lisabench.benchmarks.run.cpu_pinning import CoreRotation
from lisabench.benchmarks.run.timed_rounds import TimedCase
from lisabench.benchmarks.run.worker_messages import WorkerSettings
from lisabench.harness import measure, nvml
from lisabench.harness.environment import online_cores, usable_cores

LINUX = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="only Linux holds threads to cores"
)
pytestmark = [pytest.mark.no_clock, LINUX]


@pytest.fixture
def busy_percent(monkeypatch):
    """Of five cores that are on, of which this process may use four; one, with number 2, is off."""
    busy = dict.fromkeys((0, 1, 3, 4, 6), 0.0)
    monkeypatch.setattr(cpu_pinning, "online_cores", lambda: list(busy))
    monkeypatch.setattr(psutil, "cpu_percent", lambda *_, **__: list(busy.values()))
    monkeypatch.setattr(nvml, "count", lambda: 1)
    monkeypatch.setattr(cpu_pinning, "usable_cores", lambda: {0, 1, 3, 6})
    return busy


def test_every_idle_core_that_may_be_used_has_its_turn_before_one_has_it_again(busy_percent):
    rotation = CoreRotation()
    for _ in range(20):
        assert {rotation.next_core() for _ in range(4)} == {0, 1, 3, 6}
    busy_percent[3] = 11.0
    assert {rotation.next_core() for _ in range(3)} == {0, 1, 6}


def test_it_is_no_fixed_order(busy_percent):
    assert {CoreRotation().next_core() for _ in range(200)} == set(busy_percent) - {4}


def test_where_all_work_it_is_the_one_that_works_least(busy_percent):
    busy_percent.update({0: 90.0, 1: 70.0, 3: 80.0, 6: 95.0})
    rotation = CoreRotation()
    assert [rotation.next_core() for _ in range(3)] == [1, 1, 1]


def test_without_a_gpu_nothing_is_looked_at(monkeypatch):
    monkeypatch.setattr(nvml, "count", lambda: 0)
    monkeypatch.setattr(psutil, "cpu_percent", None)
    assert CoreRotation().next_core() is None


def test_where_no_core_is_known_none_is_named(busy_percent):
    busy_percent.clear()
    assert CoreRotation().next_core() is None


def test_cores_are_counted_as_the_system_counts_them():
    assert len(online_cores()) == len(set(online_cores())) == len(psutil.cpu_times(percpu=True))


def in_a_thread(function):
    """Return a function's value, and the cores that its thread may use then; others keep theirs."""
    found = []
    thread = threading.Thread(target=lambda: found.extend((function(), os.sched_getaffinity(0))))
    thread.start()
    thread.join()
    return found


@pytest.fixture(autouse=True)
def _without_data(monkeypatch):
    monkeypatch.setattr(case_worker, "open_samples", list)


def a_worker(device):
    made = case_worker.CaseWorker(WorkerSettings("fake", None, {}))
    made.device, made.probe = device, None
    return made


@pytest.mark.parametrize(
    ("core", "device", "held"),
    [(0, "cuda", True), (0, "cuda:1", True), (0, "cpu", False), (None, "cuda", False)],
)
def test_a_worker_pins_the_thread_that_launches_kernels_once_it_is_warm(
    monkeypatch, core, device, held
):
    before = set(os.sched_getaffinity(0))
    core = min(before) if core is not None else None
    warmed = []

    def warm_up(*_, **__):
        warmed.append(os.sched_getaffinity(0))
        return measure.WarmUp(1.0, 6, True, 0, 2.0)

    monkeypatch.setattr(measure, "warm_up", warm_up)
    made = a_worker(device)
    known, after = in_a_thread(lambda: made.warm_up(6, core))
    assert warmed == [before] and known.warmup_queries == 6
    assert (known.core, after) == ((core, {core}) if held else (None, before))
    assert known.warnings == ()
    assert set(os.sched_getaffinity(0)) == before


def test_a_thread_that_a_core_is_not_there_for_stays_free_and_says_so(monkeypatch):
    monkeypatch.setattr(measure, "warm_up", lambda *_, **__: measure.WarmUp(1.0, 6, True, 0, 2.0))
    made = a_worker("cuda")
    known, after = in_a_thread(lambda: made.warm_up(6, 4095))
    assert (known.core, known.warnings, after) == (
        None,
        (cpu_pinning.NOT_PINNED,),
        set(os.sched_getaffinity(0)),
    )


def test_a_worker_that_was_not_warmed_up_is_not_held(monkeypatch):
    monkeypatch.setattr(measure, "warm_up", lambda *_, **__: measure.WarmUp(None, 0, False, 0, 0.0))
    made = a_worker("cuda")
    known, after = in_a_thread(lambda: made.warm_up(0, min(usable_cores())))
    assert (known.core, known.warnings, after) == (None, (), set(os.sched_getaffinity(0)))


def test_a_held_thread_still_counts_all_cores_of_its_process():
    before = set(usable_cores())
    counted, _ = in_a_thread(lambda: (cpu_pinning.pin(min(before), "cuda"), set(usable_cores()))[1])
    assert counted == before


@pytest.mark.parametrize("core", [None, 0, 5])
def test_both_runs_of_a_pair_are_told_the_same_core(monkeypatch, core):
    suite = SimpleNamespace(trainings={}, plan=SimpleNamespace(gpu_memory=None), fits=[])
    told = []
    for invited in lockstep.invitations(core):
        for name, value in invited.environment().items():
            monkeypatch.setenv(name, value)
        invited.end.detach()  # whoever reads the environment owns it from here on
        told.append(lockstep.lockstep_of_environment(suite))
    assert [mine.next_core() for mine in told] == [core, core]
    assert [mine.alone for mine in told] == [False, False]


@pytest.fixture
def _many_cores(monkeypatch):
    """Of a machine with a GPU and more cores than any test asks for."""
    numbers = {}
    monkeypatch.setattr(
        CoreRotation, "next_core", lambda self: next(numbers.setdefault(self, count(7)))
    )


@pytest.mark.usefixtures("_many_cores")
@pytest.mark.parametrize("apart", [None, "do not fit side by side"])
def test_all_cases_of_a_round_launch_from_one_core_and_those_of_the_next_from_another(
    data_root, tmp_path, monkeypatch, apart
):
    monkeypatch.setattr(timed_rounds, "why_not_side_by_side", lambda *_: apart)
    cores, warm_up = [], TimedCase.warm_up
    monkeypatch.setattr(
        TimedCase, "warm_up", lambda self, *given: cores.append(given[1]) or warm_up(self, *given)
    )
    found = sessions.run(sessions.suite(data_root), tmp_path / "out").run
    assert cores == [7, 7, 8, 8]  # two cases, two rounds; the control is in the quality pass
    assert {warmed["core"] for entry in found["cases"] for warmed in entry["warmups"]} == {
        None
    }  # not on a CPU


@pytest.mark.usefixtures("_many_cores")
def test_both_versions_of_a_pair_are_invited_to_one_core_and_those_of_the_next_to_another(
    tmp_path, monkeypatch
):
    invited = []

    def run(*commands, **_):
        invited.append(
            [json.loads(command.variables[lockstep.VARIABLE])[2] for command in commands]
        )
        return [subprocesses.Done(0, "", "") for _ in commands]

    monkeypatch.setattr(subprocesses, "run", run)
    command = lambda *_: subprocesses.Command(["true"], tmp_path)  # noqa: E731
    versions = [
        SimpleNamespace(name=name, label=name, command=command, capabilities={lockstep.PROTOCOL})
        for name in ("base", "head")
    ]
    pairing = Pairing(versions)
    for pair in range(2):
        calls = [Call(version, [], tmp_path / f"{pair}-{version.name}") for version in versions]
        for call in calls:
            call.folder.mkdir()
            (call.folder / "samples.jsonl").touch()
        assert len(list(pairing.carry_out([tuple(calls)]))) == 2
    assert invited == [[7, 7], [8, 8]]
