"""What queries cost, by process and query: of which queries it is."""

import pytest
from query_records import query_record

from lisabench.harness.records.costs import end_to_end_times, token_times
from lisabench.harness.records.manifest import CaseEntry
from lisabench.harness.records.query import RegionTime
from lisabench.harness.records.run import CaseRecords

pytestmark = pytest.mark.no_clock


def timed(sample_id, latency_ns, process=0, status="ok", **stages_ns):
    regions = {name: RegionTime(1, time_ns, time_ns) for name, time_ns in stages_ns.items()}
    return query_record(sample_id, process, status=status, latency_ns=latency_ns, regions=regions)


def test_a_failed_query_has_no_time_and_a_stage_that_was_not_entered_takes_none():
    queries = [timed("a", 100, vision=60), timed("b", 90, llm=50), timed("c", 80, status="error")]
    assert end_to_end_times(queries) == {(0, "a"): 100, (0, "b"): 90}
    case = CaseRecords(CaseEntry("dual", "lisa", "model"), queries=tuple(queries))
    assert case.stages == ("vision", "llm")
    assert case.stages_ns["vision"] == {(0, "a"): 60, (0, "b"): 0}


def generated(sample_id, steps, status="ok"):
    """Return a query whose prompt takes 70 ns, each further token 10 ns, and the rest of llm 9."""
    spans_ns = {"llm": 3, "llm.embed": 20, "llm.prefill": 50, "llm.head": 6, "llm.projection": 40}
    regions = {name: RegionTime(1, span_ns, span_ns) for name, span_ns in spans_ns.items()}
    regions["vision.clip"] = RegionTime(1 + steps, 500, 500)
    if steps:
        regions["llm.decode"] = RegionTime(steps, 10 * steps, 10 * steps)
    return query_record(sample_id, status=status, latency_ns=1000, regions=regions)


def test_a_further_token_takes_the_language_model_without_the_prompt_and_the_projection():
    queries = [
        generated("a", steps=1),
        generated("b", steps=3),
        generated("c", steps=3, status="oom"),
    ]
    assert token_times(queries) == {(0, "a"): 19, (0, "b"): (9 + 30) // 3}


def test_an_answer_of_one_token_or_a_given_answer_has_no_further_token():
    assert token_times([generated("a", steps=0), timed("b", 100, llm=60)]) == {}


def test_a_case_has_the_costs_of_its_timed_queries():
    queries = [timed("a", 100, preprocess=10, vision=60), timed("b", 90, status="error")]
    case = CaseRecords(CaseEntry("dual", "lisa", "model"), queries=tuple(queries))
    assert case.end_to_end_ns == {(0, "a"): 100}
    assert case.without_preprocess_ns == {(0, "a"): 90}
    assert case.further_token_ns == {}
    assert case.stages_ns["vision"] == {(0, "a"): 60}
    assert case.stages_ns["decoder"] == {(0, "a"): 0}
    assert case.seconds == case.energy_mj == {}
