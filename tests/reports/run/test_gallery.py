"""The gallery of masks."""

import pytest
from matplotlib.text import Text
from run_factory import edit_lines, failed, make_older, write_run

from lisabench.harness.errors import DataError
from lisabench.harness.records.run import read_run
from lisabench.reports.run.gallery import draw_query, gallery
from lisabench.reports.run.summary import summarise
from lisabench.reports.run_report import write_report

pytestmark = pytest.mark.no_clock

SMALL = {"queries": 8, "size": (24, 32), "gallery": 2}


def test_a_gallery_that_was_cut_short_costs_the_gallery_only(tmp_path):
    write_run(tmp_path, **SMALL)
    whole = (tmp_path / "gallery.npz").read_bytes()
    (tmp_path / "gallery.npz").write_bytes(whole[: len(whole) // 2])
    text = write_report(tmp_path).read_text()
    assert "gallery.png" not in text
    assert "stage_times.png" in text


def test_failed_queries_and_masks_that_were_not_kept_have_their_place_in_the_gallery(tmp_path):
    write_run(tmp_path, **SMALL)

    def changed(line):
        if line["case"] == "sam":
            return failed(line)
        if line["case"] == "clip":
            return line | {"mask_rle": None}
        return line

    edit_lines(tmp_path / "samples.jsonl", changed)
    run = read_run(tmp_path)
    texts = [text.get_text() for text in gallery(run, summarise(run)).findobj(Text)]
    of_two_queries = 2
    assert sum(text.startswith("failed: ") for text in texts) == of_two_queries
    assert sum(text.endswith(", mask not kept") for text in texts) == of_two_queries
    assert sum(text.startswith("IoU ") for text in texts) == 2 * of_two_queries
    assert "gallery.png" in write_report(tmp_path).read_text()


def test_older_and_newer_records_of_the_same_masks_have_the_same_gallery(tmp_path):
    write_report(write_run(tmp_path, **SMALL))
    newer = (tmp_path / "gallery.png").read_bytes()
    (tmp_path / "gallery.png").unlink()
    write_report(make_older(tmp_path))
    assert (tmp_path / "gallery.png").read_bytes() == newer


def test_one_query_is_drawn_alone_and_an_unknown_one_is_refused(tmp_path):
    run = read_run(write_run(tmp_path, **SMALL))
    summary = summarise(run)
    first = run.cases[0].scored[0].query
    assert draw_query(run, summary, first, tmp_path / "one.png").is_file()
    with pytest.raises(DataError, match="has no query 'no such words'"):
        draw_query(run, summary, "no such words", tmp_path / "none.png")
