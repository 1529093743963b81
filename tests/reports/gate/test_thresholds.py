"""What a gate lets pass, and how a suite says so."""

import pytest
from sessions import TWO_FAKES

from lisabench.benchmarks import suite_file
from lisabench.harness.errors import UsageError
from lisabench.reports.gate.thresholds import Gate, gate_of

pytestmark = pytest.mark.no_clock


def gate(**given):
    return suite_file.validate(TWO_FAKES | {"gate": given}).definition.gate


def test_without_a_word_of_the_suite_the_defaults_hold_and_no_stage_is_gated():
    allowed = suite_file.validate(TWO_FAKES).definition.gate.of("a")
    assert (allowed.end_to_end, allowed.stages, allowed.peak, allowed.peak_mib) == (
        0.05,
        {},
        0.01,
        32,
    )
    assert (allowed.gIoU, allowed.cIoU, allowed.mask_iou, allowed.sessions) == (
        0.5,
        0.5,
        0.99,
        0.01,
    )


def test_stages_that_are_only_named_are_gated_at_10_percent():
    assert gate(stages=["vision", "llm"]).of("a").stages == {"vision": 0.10, "llm": 0.10}
    found = gate(stages={"vision": 0.2}).of("a")
    assert (found.of_stage("vision"), found.of_stage("llm")) == (0.2, None)


def test_a_case_has_thresholds_of_its_own_and_shares_the_others():
    found = gate(end_to_end=0.02, gIoU=None, cases={"b": {"end_to_end": 0.3, "stages": ["vision"]}})
    assert (found.of("a").end_to_end, found.of("b").end_to_end) == (0.02, 0.3)
    assert (found.of("b").gIoU, found.of("a").stages, found.of("b").stages) == (
        None,
        {},
        {"vision": 0.10},
    )


def test_a_gate_comes_back_from_run_json_as_it_was():
    suite = suite_file.validate(
        TWO_FAKES | {"gate": {"end_to_end": 0.02, "cases": {"b": {"peak": None}}}}
    )
    assert gate_of(suite.definition.as_recorded()) == suite.definition.gate
    assert gate_of({}) == Gate()


def test_the_command_line_changes_a_threshold():
    content = dict(TWO_FAKES)
    suite_file.change(content, "gate.end_to_end", 0.5)
    assert suite_file.validate(content).definition.gate.of("b").end_to_end == 0.5


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"end_to_end": -0.1}, "end_to_end"),
        ({"mask_iou": 1.1}, "mask_iou"),
        ({"speed": 0.1}, "speed"),
        ({"stages": ["clip"]}, "unknown stage in the gate 'clip'; known: decoder"),
        ({"stages": {"visoin": 0.2}}, "did you mean 'vision'"),
        ({"stages": [["vision"]]}, "unknown stage in the gate"),
        ({"stages": {"vision": None}}, "stages"),
        ({"cases": {"b": {"speed": 1}}}, "speed"),
        ({"cases": {"bb": {}}}, "did you mean 'b'"),
    ],
)
def test_what_no_gate_can_have_is_refused_by_name(wrong, expected):
    with pytest.raises(UsageError, match=expected):
        gate(**wrong)


def test_a_gate_that_was_edited_in_run_json_is_refused():
    with pytest.raises(UsageError, match=r"gate in run\.json"):
        gate_of({"gate": {"end_to_end": "fast"}})


@pytest.mark.parametrize("place", ["all cases", "one case"])
def test_a_limit_of_throughput_is_refused_where_latency_is_measured(place):
    given = {"throughput": 0.05} if place == "all cases" else {"cases": {"b": {"throughput": 0.05}}}
    with pytest.raises(UsageError, match=r"gate\.throughput .* plan\.scenario"):
        gate(**given)
    plan = {"plan": {**TWO_FAKES.get("plan", {}), "scenario": "throughput"}}
    suite = suite_file.validate(TWO_FAKES | {"gate": given} | plan)
    assert suite.definition.gate.of("b").throughput == 0.05


@pytest.mark.parametrize("share", [1.0, 1.5, -0.1])
def test_a_share_of_throughput_that_leaves_none_is_refused(share):
    with pytest.raises(UsageError, match="throughput"):
        gate(throughput=share)
