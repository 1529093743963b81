"""Which queries a run evaluates, and by which protocol."""

import json

import pytest
from samples import write_sample

from lisabench.benchmarks import suite_file
from lisabench.benchmarks.queries import Queries

pytestmark = pytest.mark.no_clock


def queries_of(root, **data) -> Queries:
    changes = {"data.root": str(root)} | {f"data.{name}": value for name, value in data.items()}
    return Queries.of(suite_file.load("tiny", changes))


@pytest.fixture
def reasonseg(tmp_path):
    """A folder by the name of the data set, with two queries, one of them in two wordings."""
    root = tmp_path / "ReasonSeg"
    for number in range(2):
        write_sample(root / "val", f"q{number}", seed=number)
    annotation = root / "val" / "q0.json"
    content = json.loads(annotation.read_text())
    annotation.write_text(json.dumps(content | {"text": ["the square", "the box"]}))
    return root


def test_the_folders_name_says_the_protocol_and_the_user_has_the_last_word(
    reasonseg, tmp_path, monkeypatch
):
    assert queries_of(reasonseg).protocol == "reasonseg"
    assert queries_of(reasonseg).as_recorded()["protocol"] == "reasonseg"
    assert queries_of(reasonseg, protocol="reasonseg-r").protocol == "reasonseg-r"
    unnamed = queries_of(reasonseg, protocol="none")
    assert unnamed.protocol is None and "protocol" not in unnamed.as_recorded()
    # The name that the user sees counts: that of a link, or of the folder one is in.
    link = tmp_path / "queries"
    link.symlink_to(reasonseg)
    assert queries_of(link).protocol is None
    monkeypatch.chdir(reasonseg)
    assert queries_of(".").protocol == "reasonseg"


def test_generated_scenes_have_no_protocol():
    suite = suite_file.load("tiny", {"data.count": 2})
    assert Queries.of(suite).protocol is None


def test_wordings_that_the_protocol_asks_and_the_run_does_not_are_a_warning(reasonseg):
    warning = "the protocol refcoco asks all texts of each query"
    asked_once = queries_of(reasonseg, protocol="refcoco")
    assert [text for text in asked_once.warnings if warning in text] and asked_once.count == 2
    asked_all = queries_of(reasonseg, protocol="refcoco", texts="all")
    assert asked_all.warnings == () and asked_all.count == 3
    assert queries_of(reasonseg).warnings == ()


def test_queries_of_one_wording_need_no_such_warning(reasonseg):
    (reasonseg / "val" / "q0.json").write_text((reasonseg / "val" / "q1.json").read_text())
    assert queries_of(reasonseg, protocol="refcoco").warnings == ()
