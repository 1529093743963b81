import shutil
from pathlib import Path

import pytest
import yaml
from import_graph import import_graph
from sessions import TWO_FAKES

from lisabench.benchmarks import suite_file
from lisabench.benchmarks.queries import Queries
from lisabench.benchmarks.resolve import resolve_recorded
from lisabench.benchmarks.run.session import Session
from lisabench.datasets.reasonseg import ReasonSeg
from lisabench.harness.errors import DataError, UsageError
from lisabench.models import registry
from lisabench.models.lisa import packaged, weights_format

pytestmark = pytest.mark.no_clock


def changed(**changes):
    content = {**TWO_FAKES, "cases": dict(TWO_FAKES["cases"])}
    for key, value in changes.items():
        suite_file.change(content, key.replace("__", "."), value)
    return suite_file.validate(content)


def test_shipped_suites_are_valid():
    for name in suite_file.shipped():
        assert suite_file.load(name).name == name


def cases_of(suite):
    """The settings of each case, by its name."""
    return {case.name: vars(case.config) for case in suite.models}


def test_at_random_weights_the_tiny_suite_varies_nothing_but_the_vision():
    tiny = suite_file.load("tiny", {"weights": "random"})
    cases = cases_of(tiny)
    varying = {key for case in cases.values() for key in case if case[key] != cases["dual"][key]}
    assert varying == {"vision"}
    assert [case["vision"] for case in cases.values()] == ["dual", "clip", "sam"]
    assert {case.name for case in tiny.baselines} == {"whole-image", "centre-box", "empty"}


def test_the_tiny_suite_as_it_ships_differs_from_that_by_its_weights_and_the_axes_that_they_bring():
    shipped, random = (
        cases_of(suite_file.load("tiny", change)) for change in ({}, {"weights": "random"})
    )
    for name, case in shipped.items():
        brought = weights_format.read(packaged.located("tiny", case["vision"])).settings
        assert case == random[name] | brought | {"weights": "packaged"}
    assert shipped["dual"] == random["dual"] | {"weights": "packaged"}


def test_the_tiny_suite_asks_about_scenes_of_another_seed_than_trainings_do():
    assert suite_file.load("tiny").data.seed != 0


@pytest.mark.parametrize("name", [name for name in suite_file.shipped_names() if name != "tiny"])
def test_every_other_shipped_suite_has_random_weights(name):
    assert {case["weights"] for case in cases_of(suite_file.load(name)).values()} == {"random"}


def test_a_suite_is_read_from_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(TWO_FAKES | {"name": "mine"}))
    assert suite_file.load(str(path)).case("b").config.vision_ms == 9.0


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"reference": "c"}, "known: a, b"),
        ({"cases": {"a": {"adapter": "lissa"}}}, "did you mean 'lisa'"),
        ({"cases": {"a": {"adapter": "fake", "vision_s": 1}}}, "vision_ms"),
        ({"cases": {"a": {"adapter": "fake", "vision_ms": "slow"}}}, "vision_ms"),
        ({"cases": {"a": {"adapter": "lisa", "vision": "dino"}}}, "known: clip, dual, sam"),
        ({"cases": {"a": {}}}, "names no adapter"),
        ({"metrics": ["IoU"]}, "gIoU"),
        ({"factors": [["vision"]]}, "names of settings, and not ['vision']"),
        ({"plan": {"proceses": 3}}, "plan: unknown key 'proceses' (did you mean 'processes'?)"),
        ({"plan": {"scenario": "trouput"}}, "not 'trouput' (did you mean 'throughput'?)"),
        ({"plans": {}}, "did you mean 'plan'"),
        ({"data": {"count": 0}}, "count"),
        ({"controls": {"a": {"adapter": "empty"}}}, "a is both a case and a control"),
        ({"groups": {"t": ["a"]}}, "exactly one group, which is not so for b"),
        ({"teams": {"t": ["a", "b"], "u": ["c"]}}, "unknown case in a group 'c'"),
        ({"plan": {"gpu_memory": "8"}}, "8GB"),
        ({"cards": ["8GB", "12"]}, "card '12': expected its memory, such as 8GB"),
        ({"cards": "8GB"}, "cards: expected a list, such as [A, B], not '8GB'"),
        ({"cards": [8]}, "cards.0: expected text, not 8"),
        ({"claims": [{"claim": "c", "mean": {}}]}, "claims.0: unknown key 'mean' (did you mean"),
        ({"claims": [{"claim": "c", "means": "good"}]}, "expected a mapping, such as {KEY: VALUE}"),
        (
            {"claims": [{"claim": "c", "means": {"confirm": "yes"}}]},
            "claims.0.means: unknown key 'confirm' (did you mean 'confirmed'?); known: confirmed, ",
        ),
        ({"gate": {"energi": 0.1}}, "gate: unknown key 'energi' (did you mean 'energy'?)"),
        ({"gate": {"energy": -0.1}}, "gate.energy: Input should be greater than or equal to 0"),
        (
            {"gate": {"cases": {"a": {"energi": 1}}}},
            "gate: case a: unknown key 'energi' (did you mean",
        ),
        ({"cards": ["8GB", "8192 MiB"]}, "8GB and 8192 MiB have the same size"),
        ({"cards": [f"{size}GB" for size in range(1, 7)]}, "6 cards are too many"),
        ({"plan": {"processes": -1}}, "processes"),
        ({"plan": {"memory_queries": "most"}}, "expected a number of queries from 1, or all"),
        ({"plan": {"decode_workers": 2}}, "decode_workers is 2, but for latency"),
        ({"plan": {"decode_workers": 0, "scenario": "latency"}}, "scenario to throughput"),
        ({"data": {"root": ""}}, "data.root: the path is empty"),
    ],
)
def test_what_a_suite_cannot_have_is_refused_with_what_it_can(wrong, expected):
    with pytest.raises(UsageError) as caught:
        suite_file.validate(TWO_FAKES | wrong)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_groups_may_have_their_older_name_and_are_recorded_under_it():
    groups = {"one": ["b"], "two": ["a"]}
    newer, older = (suite_file.validate(TWO_FAKES | {key: groups}) for key in ("groups", "teams"))
    assert newer == older
    assert [(group.name, group.reference, group.cases) for group in newer.groups] == [
        ("one", "b", ("b",)),
        ("two", "a", ("a",)),
    ]
    recorded = newer.definition.as_recorded()
    assert recorded["teams"] == groups and "groups" not in recorded
    assert resolve_recorded(recorded) == newer
    with pytest.raises(UsageError, match="both groups and teams"):
        suite_file.validate(TWO_FAKES | {"groups": groups, "teams": groups})


@pytest.mark.parametrize("name", suite_file.shipped_names())
def test_each_case_of_a_suite_is_made_once_until_its_session_can_begin(name, tmp_path, monkeypatch):
    made, make = [], registry.make_case
    monkeypatch.setattr(registry, "make_case", lambda *given: made.append(given) or make(*given))
    monkeypatch.setattr(registry, "preload", lambda _: ())
    suite = suite_file.load(name, {"limit": 16, "count": 16})  # as many as the largest batch
    Session(suite, Queries.of(suite), tmp_path / "out", lambda *_: None)
    assert len(made) == len(suite.cases)


@pytest.mark.parametrize("with_root", [False, True])
def test_the_config_of_weights_is_read_once(with_root, tmp_path, monkeypatch):
    """Whatever is worked out from it: settings, split and contaminations of packaged weights and
    of a folder, which is read once more before, to choose its cases."""
    folders, read = [], weights_format.read
    monkeypatch.setattr(
        weights_format, "read", lambda folder: folders.append(folder) or read(folder)
    )
    packaged.read.cache_clear()
    shutil.copytree(packaged.located("tiny", "dual"), tmp_path / "dual")
    changes = {"data.root": str(tmp_path)} if with_root else {}
    suite = suite_file.load("tiny", changes)
    assert len(folders) == len(set(folders)) == len(suite.models) == 3
    folders.clear()
    suite_file.load("tiny", changes)
    assert folders == []
    suite_file.load("tiny", changes | {"weights": str(tmp_path / "dual")})
    assert folders == [tmp_path / "dual"]


@pytest.mark.parametrize("value", ["suite", "resolved_suite", "claim"])
def test_a_value_of_a_suite_imports_no_builder_loader_or_checker(value):
    graph, reached, waiting = import_graph(), set(), [f"benchmarks.{value}"]
    while waiting:
        module = waiting.pop()
        reached.add(module)
        waiting += graph[module] - reached
    makers = {"resolve", "suite_file", "suite_checks", "claim_checks", "factors"}
    assert not reached & ({"models.registry"} | {f"benchmarks.{maker}" for maker in makers})


def test_a_suite_that_another_version_has_recorded_is_one_clear_line():
    recorded = suite_file.validate(TWO_FAKES).definition.as_recorded()
    with pytest.raises(UsageError, match="another version of lisabench has made the run"):
        resolve_recorded(recorded | {"novelty": 1})


def test_an_unknown_suite_lists_the_known_ones():
    with pytest.raises(UsageError, match=r"unknown suite 'tinny' .*did you mean 'tiny'"):
        suite_file.load("tinny")


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"there is no suite .*gone\.yaml"):
        suite_file.load(str(tmp_path / "gone.yaml"))
    (tmp_path / "bad.yaml").write_text("title: [")
    with pytest.raises(UsageError, match=r"bad\.yaml: not YAML"):
        suite_file.load(str(tmp_path / "bad.yaml"))


def test_a_suite_takes_its_claims_from_another_that_lists_them(tmp_path):
    claim = {
        "claim": "it is faster",
        "quantity": "time.end_to_end",
        "candidate": "b",
        "at_most": 0.9,
    }
    listing, taking, none = (
        str(tmp_path / f"{name}.yaml") for name in ("listing", "taking", "none")
    )
    Path(listing).write_text(yaml.safe_dump(TWO_FAKES | {"claims": [claim]}))
    Path(taking).write_text(yaml.safe_dump(TWO_FAKES | {"claims": listing}))
    (taken,) = suite_file.load(taking).claims
    assert (taken.claim, taken.at_most) == ("it is faster", 0.9)
    for silent in ("tiny", taking):
        Path(none).write_text(yaml.safe_dump(TWO_FAKES | {"claims": silent}))
        with pytest.raises(UsageError, match="states no claims that another suite could take"):
            suite_file.load(none)
    Path(none).write_text(yaml.safe_dump(TWO_FAKES | {"claims": "clams"}))
    with pytest.raises(UsageError, match="did you mean 'claims'"):
        suite_file.load(none)


def test_a_change_reaches_the_plan_the_data_every_case_or_one():
    assert changed(processes=5).plan.processes == 5
    assert changed(limit=2).data.limit == 2
    assert changed(metrics=["mIoU"]).definition.metrics == ("mIoU",)
    both = changed(llm_ms=7.0)
    assert (both.case("a").config.llm_ms, both.case("b").config.llm_ms) == (7.0, 7.0)
    one = changed(b__llm_ms=7.0)
    assert (one.case("a").config.llm_ms, one.case("b").config.llm_ms) == (3.0, 7.0)


def test_a_change_reaches_every_place_of_that_name_or_the_one_that_is_named():
    everywhere = changed(seed=7)
    assert [everywhere.data.seed, *(case.config.seed for case in everywhere.models)] == [7, 7, 7]
    assert changed(data__seed=7).case("a").config.seed == 0
    assert changed(a__seed=7).data.seed == 0


def test_generated_scenes_have_the_size_that_the_data_says(tmp_path, monkeypatch):
    monkeypatch.setenv("LISABENCH_CACHE", str(tmp_path))
    queries = Queries.of(changed(count=2, image_px=[320, 240]))
    samples = ReasonSeg(**queries.reader)
    assert [sample.image.shape for sample in samples] == [(240, 320, 3)] * 2
    assert queries.description.endswith("of 320 x 240 pixels")
    with pytest.raises(UsageError, match="image_px is 100 x 100"):
        Queries.of(changed(count=2, image_px=[100, 100]))
    with pytest.raises(UsageError, match=r"data\.image_px"):
        changed(image_px=[100])


def test_cases_that_take_turns_need_a_memory_pass():
    with pytest.raises(
        UsageError, match="memory_processes is 0, but whether the cases of a group fit"
    ):
        changed(memory_processes=0)
    alone = suite_file.validate(
        {**TWO_FAKES, "cases": {"a": {"adapter": "fake"}}, "plan": {"memory_processes": 0}}
    )
    assert alone.plan.memory_processes == 0


def test_a_key_that_stands_twice_is_refused(tmp_path):
    (tmp_path / "twice.yaml").write_text(
        "title: t\nreference: a\ncases: {a: {adapter: fake}, a: {adapter: lisa}}\n"
    )
    with pytest.raises(UsageError, match="'a' stands twice"):
        suite_file.load(str(tmp_path / "twice.yaml"))


def test_a_case_without_adapter_or_settings_is_one_clear_line():
    for case in ({}, None):
        content = {**TWO_FAKES, "cases": {"a": case, "b": {"adapter": "fake"}}}
        with pytest.raises(UsageError):
            suite_file.change(content, "noise", 1.0)
            suite_file.validate(content)


def test_an_unknown_change_lists_what_can_be_changed():
    with pytest.raises(
        UsageError, match=r"unknown setting 'proceses' \(did you mean 'processes'\?\)"
    ):
        changed(proceses=5)
    with pytest.raises(UsageError, match="unknown case 'c'; known: a, b"):
        changed(c__llm_ms=5)


def test_every_registered_adapter_can_be_found():
    for name in registry.ADAPTERS:
        assert callable(registry.find(name))
        assert registry.case_type(name)


NO_NAME = ("a\x1b[2J", "a\nb", " ", "x" * 201, "\u202e")
NO_FOLDER = ("../../x", "/tmp/x", "a/b", "..", ".", "", "a\\b", "a\x1b")


@pytest.mark.parametrize("name", NO_NAME)
def test_names_that_no_report_could_show_are_refused(name):
    settings = TWO_FAKES["cases"]["a"]
    for section in ("cases", "controls"):
        content = TWO_FAKES | {section: TWO_FAKES.get(section, {}) | {name: settings}}
        with pytest.raises(UsageError, match="expected a name of 1 to 200 characters") as error:
            suite_file.validate(content)
        assert str(error.value).isprintable()


@pytest.mark.parametrize("name", NO_FOLDER)
def test_a_suite_or_split_whose_name_is_a_path_is_refused(name):
    for wrong in ({"name": name}, {"data": {"split": name}}):
        with pytest.raises(UsageError, match=r"expected (a|the) name"):
            suite_file.validate(TWO_FAKES | wrong)


def test_a_title_is_on_one_line_and_has_no_control_character():
    assert (
        suite_file.validate(TWO_FAKES | {"title": "what it\n  costs\n"}).definition.title
        == "what it costs"
    )
    with pytest.raises(UsageError, match="without control characters"):
        suite_file.validate(TWO_FAKES | {"title": "a\x1b[2Jb"})


@pytest.mark.parametrize("value", [float("inf"), "inf", "nan", "1e999"])
def test_numbers_are_finite(value):
    with pytest.raises(UsageError, match="time_limit_s"):
        changed(plan__time_limit_s=value)


def test_a_suite_of_a_few_hundred_bytes_that_stands_for_billions_of_values_is_refused(tmp_path):
    lines = ["title: t", "reference: a", "cases: {a: {adapter: fake}}", "factors: &a0 [x, x, x]"]
    for level in range(1, 12):
        lines.append(f"x{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]")
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    assert (tmp_path / "bomb.yaml").stat().st_size < 1000
    with pytest.raises(UsageError, match=r"bomb\.yaml: not YAML \(more than 100,000 values"):
        suite_file.load(str(tmp_path / "bomb.yaml"))


def test_a_suite_in_latin_1_is_refused_and_one_with_a_byte_order_mark_is_read(
    tmp_path,
):
    text = yaml.safe_dump(TWO_FAKES) + "# caf\u00e9\n"
    (tmp_path / "s.yaml").write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=r"s\.yaml: was read as UTF-8"):
        suite_file.load(str(tmp_path / "s.yaml"))
    (tmp_path / "s.yaml").write_text(text, encoding="utf-8-sig")
    assert suite_file.load(str(tmp_path / "s.yaml")).name == "mine"
