"""A file that is written whole or not at all."""

import os

import pytest

from lisabench.harness.records.whole_file import whole_file

pytestmark = pytest.mark.no_clock


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "report.md"
    path.write_text("old")
    with whole_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "report.md"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), whole_file(path) as temporary:
        temporary.write_text("half")
        _ = 1 / 0
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_not_continued(tmp_path):
    path = tmp_path / "samples.jsonl"
    (tmp_path / f".samples.jsonl.{os.getpid()}.partial").write_text("left over")
    with whole_file(path) as temporary, temporary.open("a") as journal:
        journal.write("whole")
    assert path.read_text() == "whole"
