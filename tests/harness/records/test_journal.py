import json

import pytest

from lisabench.harness.errors import DataError, UsageError
from lisabench.harness.records.journal import append, read_lines, supersede, write_json
from lisabench.harness.records.run import read_run

pytestmark = pytest.mark.no_clock

ROW = {"case": "a", "query": "two\u2028lines\u0085and \u2029more", "latency_ns": 7}


def test_rows_come_back_as_they_were_written(tmp_path):
    append(tmp_path / "j", [ROW])
    append(tmp_path / "j", [ROW, ROW])
    assert read_lines(tmp_path / "j") == [ROW] * 3


def test_a_half_written_last_line_is_dropped(tmp_path):
    append(tmp_path / "j", [ROW, ROW])
    whole = (tmp_path / "j").read_bytes()
    for cut in (len(whole) - 2, len(whole) - 30):
        (tmp_path / "j").write_bytes(whole[:cut])
        assert read_lines(tmp_path / "j") == [ROW]


def test_any_other_broken_line_is_named(tmp_path):
    (tmp_path / "j").write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    with pytest.raises(DataError, match=r"j, line 2: not JSON"):
        read_lines(tmp_path / "j")


def test_superseding_marks_lines_and_keeps_them(tmp_path):
    append(tmp_path / "j", [ROW | {"process": p} for p in range(3)])
    with (tmp_path / "j").open("a") as journal:
        journal.write('{"case": ')
    supersede(tmp_path / "j", lambda row: row["process"] == 1)
    append(tmp_path / "j", [ROW | {"process": 1, "attempt": 1}])
    rows = read_lines(tmp_path / "j")
    assert [(row["process"], row.get("superseded", False)) for row in rows] == [
        (0, False),
        (1, True),
        (2, False),
        (1, False),
    ]


def test_a_number_that_json_does_not_know_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Out of range"):
        append(tmp_path / "j", [{"x": float("nan")}])
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "x.json", {"x": float("inf")})
    assert not (tmp_path / "x.json").exists()


def test_a_folder_without_a_run_or_with_another_schema_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"has no run\.json"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"schema": "lisabench.run/9"}))
    with pytest.raises(
        DataError, match=r"'lisabench\.run/9'; expected 'lisabench\.run/2' or 'lisabench\.run/1'"
    ):
        read_run(tmp_path)


def test_a_line_that_is_not_an_object_is_named(tmp_path):
    for line in ("[1]", "7", '"text"', "", '{"a": NaN}'):
        (tmp_path / "j").write_text(f'{{"a": 1}}\n{line}\n{{"a": 3}}\n')
        with pytest.raises(DataError, match=r"j, line 2: not "):
            read_lines(tmp_path / "j")


@pytest.mark.parametrize("half", ['{"case": ', '{"case": "a", "query": "tw', '{"case": 1}, {'])
def test_appending_never_continues_a_half_written_line(tmp_path, half):
    append(tmp_path / "j", [ROW])
    with (tmp_path / "j").open("a") as journal:
        journal.write(half)
    append(tmp_path / "j", [ROW | {"latency_ns": 8}])
    assert read_lines(tmp_path / "j") == [ROW, ROW | {"latency_ns": 8}]


def test_appending_keeps_a_whole_line_whose_end_is_missing(tmp_path):
    append(tmp_path / "j", [ROW, ROW])
    (tmp_path / "j").write_bytes((tmp_path / "j").read_bytes()[:-1])
    append(tmp_path / "j", [ROW | {"latency_ns": 8}])
    assert read_lines(tmp_path / "j") == [ROW, ROW, ROW | {"latency_ns": 8}]


def test_appending_to_a_journal_that_is_one_half_written_line_leaves_the_new_ones(tmp_path):
    (tmp_path / "j").write_text('{"ca')
    append(tmp_path / "j", [ROW])
    assert read_lines(tmp_path / "j") == [ROW]
