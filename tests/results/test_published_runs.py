"""The table of published runs is that of the records, and none of them is left out."""

import pytest
import yaml
from places import RESULTS

from lisabench.harness.errors import DataError
from lisabench.reports.published.runs import INDEX, TABLE, published_runs_page, read_index

pytestmark = pytest.mark.no_clock


def test_the_page_is_what_the_records_give():
    assert (RESULTS / TABLE).read_text() == published_runs_page()


def test_every_folder_of_records_is_in_the_index():
    """A run's own trainings, a gate's two versions and its re-measurement belong to their entry."""
    listed = {entry.folder for entry in read_index()}
    with_records = [path.parent for path in RESULTS.rglob("run.json")]
    with_records += [path.parent for path in RESULTS.rglob("study.json")]
    with_records += [path.parent for path in RESULTS.rglob("*.jsonl")]
    for folder in with_records:
        relative = folder.relative_to(RESULTS)
        covering = {str(parent) for parent in (relative, *relative.parents)}
        assert covering & listed or str(relative) == "gate-gpu", relative


def test_each_entry_has_a_folder_and_a_row():
    page = (RESULTS / TABLE).read_text()
    entries = read_index()
    assert len({entry.folder for entry in entries}) == len(entries)
    for entry in entries:
        assert (RESULTS / entry.folder).is_dir()
        assert f"| [{entry.folder}](" in page


def test_a_fact_that_nobody_gives_is_refused(tmp_path):
    (tmp_path / "lost").mkdir()
    entry = {"folder": "lost", "question": "Where?", "answer": "Nowhere.", "machine": "none"}
    (tmp_path / INDEX).write_text(yaml.safe_dump([entry]))
    with pytest.raises(DataError, match="lost do not give its date; add `date`"):
        published_runs_page(tmp_path)


@pytest.mark.parametrize(
    ("folder", "problem"),
    [("x" * 5000, "too long"), ("a/" * 5000, "too long"), ("../a", "leads out"), ("/a", "leads")],
)
def test_a_folder_that_cannot_be_one_of_records_is_refused(tmp_path, folder, problem):
    entry = {"folder": folder, "question": "Where?", "answer": "Nowhere."}
    (tmp_path / INDEX).write_text(yaml.safe_dump([entry]))
    with pytest.raises(DataError, match=rf"{INDEX}: .*folder: .*{problem}"):
        published_runs_page(tmp_path)
