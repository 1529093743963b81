"""Those that take turns on a GPU are asked from one core."""

import os
import threading
from types import SimpleNamespace

import psutil
import pytest
from lisabench.benchmarks import baton, cores, worker
from lisabench.harness import measure, nvml
from lisabench.harness.environment import usable_cores

LINUX = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux holds threads to cores")
pytestmark = [pytest.mark.no_clock, LINUX]


@pytest.fixture
def busy_percent(monkeypatch):
    """Four cores, of which this process may use three; how busy they are, in percent."""
    busy = [0.0, 0.0, 0.0, 0.0]
    monkeypatch.setattr(psutil, "cpu_percent", lambda *_, **__: list(busy))
    monkeypatch.setattr(nvml, "handle", object)
    monkeypatch.setattr(cores, "usable_cores", lambda: {0, 1, 3})
    return busy


def test_any_idle_core_that_may_be_used_is_chosen_and_no_other(busy_percent):
    assert {cores.chosen() for _ in range(200)} == {0, 1, 3}
    busy_percent[:] = 100.0, 3.0, 0.0, 40.0
    assert {cores.chosen() for _ in range(20)} == {1}


def test_where_all_work_it_is_the_one_that_works_least(busy_percent):
    busy_percent[:] = 90.0, 70.0, 0.0, 80.0
    assert cores.chosen() == 1


def test_without_a_gpu_nothing_is_looked_at(monkeypatch):
    monkeypatch.setattr(nvml, "handle", lambda: None)
    monkeypatch.setattr(psutil, "cpu_percent", None)
    assert cores.chosen() is None


def in_a_thread(function):
    """What a function returns, and the cores that its thread may use then: the others' are not touched."""
    found = []
    thread = threading.Thread(target=lambda: found.extend((function(), os.sched_getaffinity(0))))
    thread.start()
    thread.join()
    return found


@pytest.mark.parametrize(
    ("core", "device", "held"), [(0, "cuda", True), (0, "cuda:1", True), (0, "cpu", False), (None, "cuda", False)]
)
def test_a_worker_holds_the_thread_that_asks_a_gpu_once_it_is_warm(monkeypatch, core, device, held):
    before = set(os.sched_getaffinity(0))
    core = min(before) if core is not None else None
    warmed = []

    def warm_up(*_):
        warmed.append(os.sched_getaffinity(0))
        return measure.WarmUp(1.0, 6, True, 0)

    monkeypatch.setattr(measure, "warm_up", warm_up)
    made = worker.Worker(SimpleNamespace(samples=list))
    made.device, made.probe = device, None
    known, after = in_a_thread(lambda: made.warm_up(6, core))
    assert warmed == [before] and known["warmup_queries"] == 6
    assert (known["core"], after) == ((core, {core}) if held else (None, before))
    assert set(os.sched_getaffinity(0)) == before


def test_a_core_that_is_not_there_is_not_held():
    assert in_a_thread(lambda: cores.hold(max(usable_cores()) + 1, "cuda"))[0] is None


def test_a_held_thread_still_counts_all_cores_of_its_process():
    before = set(usable_cores())
    counted, _ = in_a_thread(lambda: (cores.hold(min(before), "cuda"), set(usable_cores()))[1])
    assert counted == before


@pytest.mark.parametrize("core", [None, 0, 5])
def test_both_runs_of_a_pair_are_told_the_same_core(monkeypatch, core):
    suite = SimpleNamespace(trainings={}, plan=SimpleNamespace(gpu_memory=None), fits=list)
    told = []
    for invited in baton.invitations(core):
        for name, value in invited.environment().items():
            monkeypatch.setenv(name, value)
        invited.end.detach()  # whoever reads the environment owns it from here on
        told.append(baton.of_environment(suite))
    assert [mine.core for mine in told] == [core, core]
    assert [mine.alone for mine in told] == [False, False]
    assert not baton.Baton().core
