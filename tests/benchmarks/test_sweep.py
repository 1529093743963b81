"""Sweeps: each case of a suite is expanded into one for each combination of the swept values."""

import pytest
from sessions import QUICK, QUICK_PLAN, TWO_FAKES, run

from lisabench.benchmarks import suite_file
from lisabench.benchmarks.gate.remeasure import definition_of
from lisabench.benchmarks.resolve import resolve_recorded
from lisabench.benchmarks.sweep import MOST_CASES
from lisabench.harness.errors import UsageError
from lisabench.reports.page.sweep_figure import FILE
from lisabench.reports.run_report import write_report

pytestmark = pytest.mark.no_clock

SWEEP = {"llm_ms": [1, 2], "seed": [0, 7]}


def swept(sweep=SWEEP, **keys):
    """The two fakes with a sweep: `a` has the defaults, `b` its own `vision_ms`."""
    return suite_file.validate(TWO_FAKES | {"sweep": sweep} | keys)


def values(suite, *settings):
    """The values of some settings, by case."""
    return {
        case.name: tuple(getattr(case.config, setting) for setting in settings)
        for case in suite.models
    }


def test_every_case_is_expanded_into_each_combination_in_the_order_of_the_sweep():
    assert values(swept(), "vision_ms", "llm_ms", "seed") == {
        "a-llm_ms1-seed0": (4.0, 1.0, 0),
        "a-llm_ms1-seed7": (4.0, 1.0, 7),
        "a-llm_ms2-seed0": (4.0, 2.0, 0),
        "a-llm_ms2-seed7": (4.0, 2.0, 7),
        "b-llm_ms1-seed0": (9.0, 1.0, 0),
        "b-llm_ms1-seed7": (9.0, 1.0, 7),
        "b-llm_ms2-seed0": (9.0, 2.0, 0),
        "b-llm_ms2-seed7": (9.0, 2.0, 7),
    }


def test_a_case_keeps_its_own_value_of_a_swept_setting():
    suite = swept({"vision_ms": [1, 2], "seed": [3]})
    assert values(suite, "vision_ms", "seed") == {
        "a-vision_ms1": (1.0, 3),
        "a-vision_ms2": (2.0, 3),
        "b": (9.0, 3),
    }


def test_a_sweep_replaces_a_value_of_the_defaults():
    suite = swept({"seed": [1, 2]}, defaults={"seed": 5})
    assert set(values(suite, "seed").values()) == {(1,), (2,)}


def test_a_setting_with_one_value_is_in_no_name():
    assert list(values(swept({"seed": [7]}), "seed").items()) == [("a", (7,)), ("b", (7,))]


def test_the_name_of_a_case_shows_words_after_a_hyphen_and_holds_no_slash():
    cases = {"a": {"adapter": "lisa"}}
    sweep = {"precision": ["bf16", "fp32"], "seed": [1, 2]}
    assert list(values(swept(sweep, cases=cases), "seed")) == [
        "a-precision-bf16-seed1",
        "a-precision-bf16-seed2",
        "a-precision-fp32-seed1",
        "a-precision-fp32-seed2",
    ]
    sweep = {"weights": ["mine/dual", "random"]}
    with pytest.raises(UsageError) as caught:  # there are no such weights
        swept(sweep, cases=cases, reference="a-weights-mine/dual")
    assert "a-weights-mine_dual" in str(caught.value)


def test_the_reference_and_a_group_mean_the_combinations_of_their_case():
    suite = swept({"llm_ms": [1, 2]}, reference="b")
    assert suite.definition.reference == "b-llm_ms1"
    assert suite.groups[0].reference == "b-llm_ms1"

    suite = swept({"llm_ms": [1, 2]}, groups={"one": ["b"], "two": ["a"]})
    assert [(group.reference, group.cases) for group in suite.groups] == [
        ("b-llm_ms1", ("b-llm_ms1", "b-llm_ms2")),
        ("a-llm_ms1", ("a-llm_ms1", "a-llm_ms2")),
    ]
    assert swept(reference="b-llm_ms2-seed7").definition.reference == "b-llm_ms2-seed7"


CLAIM = {"claim": "c", "quantity": "time.end_to_end", "at_most": 1.0}


def test_a_claim_names_one_combination():
    suite = swept(claims=[CLAIM | {"candidate": "b-llm_ms1-seed7"}])
    assert suite.references_for(suite.claims[0])["b-llm_ms1-seed7"] == "a-llm_ms1-seed0"


def test_a_claim_on_trainings_may_name_one_that_is_called_as_an_expanded_case():
    claim = CLAIM | {"quantity": "training.step_time", "candidate": "b"}
    suite = swept(claims=[claim], trainings={"a": {}, "b": {}})
    assert suite.references_for(suite.claims[0])["b"] == "a"


@pytest.mark.parametrize(
    ("sweep", "keys", "expected"),
    [
        (
            SWEEP,
            {"claims": [CLAIM | {"candidate": "b"}]},
            "name one of b-llm_ms1-seed0, ",
        ),
        (SWEEP, {"gate": {"cases": {"a": {"peak": None}}}}, "the gate names the case 'a'"),
        (SWEEP, {"reference": "c"}, "known: a-llm_ms1-seed0"),
        (SWEEP, {"groups": {"g": ["a", "b", "c"]}}, "unknown case in a group 'c'"),
        ({"llm_s": [1, 2]}, {}, "did you mean 'llm_ms'"),
        ({"seed": [1, 1]}, {}, "two cases are named 'a-seed1'"),
        ({"seed": []}, {}, "sweep.seed"),
        ({"seed": 3}, {}, "sweep.seed"),
        ({"seed": [None, 3]}, {}, "sweep.seed.0"),
        ({"seed": [*range(33)]}, {}, f"makes 66 cases of 2, and a suite has at most {MOST_CASES}"),
        ({"seed": [*range(99)]} | {f"s{i}": [*range(99)] for i in range(9)}, {}, "sweep fewer"),
    ],
)
def test_what_a_sweep_cannot_be_is_refused(sweep, keys, expected):
    with pytest.raises(UsageError) as caught:
        swept(sweep, **keys)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_suite_may_have_as_many_cases_as_the_limit_says():
    assert len(swept({"seed": [*range(MOST_CASES // 2)]}).models) == MOST_CASES


def test_the_command_line_replaces_the_values_of_a_sweep(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "title: t\nreference: a\ncases: {a: {adapter: fake}}\nsweep: {seed: [1, 2], llm_ms: [1, 2]}"
    )
    changes = {"sweep.seed": [3, 4, 5], "sweep.llm_ms": 6, "a.vision_ms": 8}
    suite = suite_file.load(str(path), changes)
    assert values(suite, "seed", "llm_ms", "vision_ms") == {
        "a-seed3": (3, 6.0, 8.0),
        "a-seed4": (4, 6.0, 8.0),
        "a-seed5": (5, 6.0, 8.0),
    }
    suite = suite_file.load(str(path), {"sweep.noise": [0.5, 1.5]})
    assert "a-seed1-llm_ms1-noise0.5" in values(suite, "noise")


def test_a_change_of_a_swept_setting_says_where():
    content = {**TWO_FAKES, "cases": dict(TWO_FAKES["cases"]), "sweep": {"llm_ms": [1, 2]}}
    with pytest.raises(UsageError, match=r"use sweep\.llm_ms=3 for all cases, or CASE\.llm_ms=3"):
        suite_file.change(content, "llm_ms", 3)
    suite_file.change(content, "b.llm_ms", 3)
    suite_file.change(content, "vision_ms", 5)
    assert values(suite_file.validate(content), "llm_ms", "vision_ms") == {
        "a-llm_ms1": (1.0, 5.0),
        "a-llm_ms2": (2.0, 5.0),
        "b": (3.0, 5.0),
    }


def test_a_run_records_the_expanded_cases_and_the_sweep(data_root, tmp_path):
    content = TWO_FAKES | {
        "data": {"root": data_root, "limit": 2},
        "plan": QUICK_PLAN,
        "cases": {"a": QUICK, "b": QUICK | {"llm_ms": 5}},
        "sweep": {"llm_ms": [1, 2]},
    }
    suite = suite_file.validate(content)
    records = run(suite, tmp_path)
    names = ["a-llm_ms1", "a-llm_ms2", "b"]
    assert [case["name"] for case in records.run["cases"]] == names
    assert {row["case"] for row in records.samples} == set(names)
    definition = records.run["definition"]
    assert definition["sweep"] == {"llm_ms": [1, 2]}
    assert list(definition["cases"]) == names
    assert resolve_recorded(definition) == suite
    assert suite_file.validate(definition | {"data": content["data"]}) == suite

    alone = resolve_recorded(definition_of(definition, "val", "a-llm_ms2"))
    assert values(alone, "llm_ms") == {"a-llm_ms2": (2.0,)}
    assert alone.definition.sweep == {}


def test_a_sweep_of_the_batch_is_timed_in_these_batches_and_drawn_in_the_report(
    data_root, tmp_path
):
    content = TWO_FAKES | {
        "data": {"root": data_root},
        "plan": QUICK_PLAN | {"scenario": "throughput", "block": 4, "decode_workers": 0},
        "cases": {"a": QUICK, "b": QUICK | {"batch": 1, "vision_ms": 9.0}},
        "sweep": {"batch": [1, 2, 4]},
    }
    suite = suite_file.validate(content)
    batches = {"a-batch1": 1, "a-batch2": 2, "a-batch4": 4, "b": 1}
    assert {case.name: case.batch for case in suite.models} == batches
    records = run(suite, tmp_path)
    assert {row["case"]: row.get("batch", 1) for row in records.samples} == batches
    report = write_report(tmp_path).read_text()
    assert f"]({FILE})" in report
    assert (tmp_path / FILE).exists()


@pytest.mark.parametrize("not_a_list", [2, [], "two"])
def test_values_that_are_no_list_are_refused_with_what_is_expected(not_a_list):
    with pytest.raises(
        UsageError, match=r"sweep.seed: expected a list of values, such as \[1, 2\]"
    ):
        swept({"seed": not_a_list})


def test_an_unknown_swept_setting_names_the_batch_among_the_known():
    with pytest.raises(UsageError, match=r"'bath' \(did you mean 'batch'\?\)"):
        swept({"bath": [1, 2]})


def test_a_suite_without_a_sweep_is_recorded_as_before():
    assert "sweep" not in suite_file.validate(TWO_FAKES).definition.as_recorded()
