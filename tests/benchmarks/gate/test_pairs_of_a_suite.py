"""How many pairs a gate measures, and when it measures memory at the same time."""

from types import SimpleNamespace

import pytest
import yaml

from lisabench.benchmarks.gate import against
from lisabench.benchmarks.run import memory_pass
from lisabench.benchmarks.run.command import Request
from lisabench.benchmarks.suite_file import load

pytestmark = pytest.mark.no_clock


def suite_with(folder, processes):
    content = {"title": "t", "reference": "a", "cases": {"a": {"adapter": "fake"}}}
    file = folder / "s.yaml"
    file.write_text(yaml.safe_dump(content | {"plan": {"processes": processes}}))
    return str(file)


def pairs(suite, **changes):
    request = Request(suite=suite, changes=changes, out=None, resume=False)
    found, _ = against._plan(request, suite)
    return found


@pytest.mark.parametrize(("processes", "expected"), [(3, 5), (5, 5), (8, 8)])
def test_a_suite_may_ask_for_more_than_five_pairs(tmp_path, processes, expected):
    assert pairs(suite_with(tmp_path, processes)) == expected


@pytest.mark.parametrize("key", ["processes", "plan.processes"])
def test_the_command_line_has_the_last_word(tmp_path, key):
    assert pairs(suite_with(tmp_path, 8), **{key: 2}) == 2


def test_a_suite_that_only_another_version_knows_has_five():
    assert pairs("not-yet-shipped") == 5


def test_the_gate_on_a_gpu_has_an_even_number_of_blocks_so_that_drift_cancels():
    suite = load("gate-gpu")
    blocks, rest = divmod(suite.plan.timed_queries, suite.plan.block)
    assert (blocks % 2, rest) == (0, 0) and suite.data.count == suite.plan.timed_queries


DEVICES = [
    ("cuda", "cuda", False, False),
    ("cuda:1", "cuda", False, False),
    ("auto", "cuda", False, False),
    ("auto", "cpu", False, True),
    ("cpu", "cuda", False, True),
    ("cuda", "cuda", True, True),  # the GPU's time at work is measured in the same process
]


@pytest.mark.parametrize(("device", "machine", "beside", "expected"), DEVICES)
def test_memory_is_measured_in_turn_unless_an_allocator_counts_it(
    device, machine, beside, expected
):
    run = SimpleNamespace(
        suite=SimpleNamespace(
            case=lambda _: SimpleNamespace(device=device), plan=SimpleNamespace(beside=beside)
        ),
        manifest=SimpleNamespace(environment={"device": machine}),
    )
    assert memory_pass.needs_turn(run, "a") is expected
