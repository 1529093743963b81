"""Scores by the protocol of the data, and the published rows beside them."""

import re

import numpy as np
import pytest
from markdown_rows import rows_of
from run_factory import edit_lines, edit_run, write_run

from lisabench.harness.protocols import ALL_QUERIES, PROTOCOLS
from lisabench.harness.records.journal import read_lines
from lisabench.harness.records.run import read_run
from lisabench.reports.export.paper_tables import paper_table
from lisabench.reports.export.tables import cases_table, protocol_table
from lisabench.reports.html.page import html
from lisabench.reports.page.page import report_text
from lisabench.reports.page.protocol_table import protocol_section
from lisabench.reports.run.protocol import protocol_in_a_sentence
from lisabench.reports.run.published_values import (
    REASONSEG,
    nearest_row,
    published_table,
)
from lisabench.reports.run.schema import Summary
from lisabench.reports.run.summary import summarise

pytestmark = pytest.mark.no_clock

SMALL = {"cases": 2, "queries": 16, "size": (24, 32), "gallery": 0, "processes": 1}
DATA = {"root": "ReasonSeg", "split": "val", "count": 16, "description": "d", "fingerprint": "f"}


def with_form(line):
    """Every third query is a sentence."""
    number = int(line["sample_id"].removeprefix("scene-"))
    line["tags"] |= {"form": "phrase" if number % 3 else "sentence"}
    return line


def run_of(folder, protocol="reasonseg", **data):
    write_run(folder, **SMALL)
    edit_run(folder, data=DATA | {"protocol": protocol} | data, timed_queries=16)
    edit_lines(folder / "samples.jsonl", with_form)
    return read_run(folder)


def ious(lines):
    pixels = np.array([(line["intersection_px"], line["union_px"]) for line in lines], float)
    intersection, union = pixels.T
    return np.divide(intersection, union, out=np.ones(len(union)), where=union > 0), pixels.sum(0)


def test_reasonseg_has_short_and_long_queries_and_all(tmp_path):
    summary = summarise(run_of(tmp_path))
    lines = [line for line in read_lines(tmp_path / "samples.jsonl") if line["case"] == "dual"]
    groups = {
        "short": [line for line in lines if line["tags"]["form"] == "phrase"],
        "long": [line for line in lines if line["tags"]["form"] == "sentence"],
        ALL_QUERIES: lines,
    }
    protocol = summary.protocol
    assert list(protocol.queries.items()) == [("short", 10), ("long", 6), (ALL_QUERIES, 16)]
    row = protocol.cases[0]
    assert (row.name, row.batch) == ("dual", 1)
    for group, members in groups.items():
        iou_of_each, (intersection, union) = ious(members)
        assert row.scores[group]["gIoU"] == pytest.approx(iou_of_each.mean(), rel=1e-12)
        assert row.scores[group]["cIoU"] == pytest.approx(intersection / union, rel=1e-12)
    assert Summary.model_validate(summary.model_dump(mode="json", by_alias=True)) == summary


@pytest.mark.parametrize("protocol", ["refcoco", "grefcoco"])
def test_other_protocols_report_their_metrics_of_all_queries(tmp_path, protocol):
    summary = summarise(run_of(tmp_path, protocol))
    scores = summary.protocol.cases[0].scores
    assert list(scores) == [ALL_QUERIES]
    quality = summary.cases[0].quality.model_dump(by_alias=True)
    for metric in PROTOCOLS[protocol].metrics:
        assert scores[ALL_QUERIES][metric] == quality[metric] is not None


def test_reasonseg_x_has_each_type_of_reasoning(tmp_path):
    run_of(tmp_path, "reasonseg-x")
    edit_lines(
        tmp_path / "samples.jsonl",
        lambda line: line | {"tags": {"reasoning_type": line["tags"]["size"]}},
    )
    protocol = summarise(read_run(tmp_path)).protocol
    assert set(protocol.queries) == {"small", "large", ALL_QUERIES}
    assert protocol.published == []


def test_a_group_that_is_named_by_the_data_is_text_in_latex(tmp_path):
    run_of(tmp_path, "reasonseg-x")
    edit_lines(
        tmp_path / "samples.jsonl",
        lambda line: line | {"tags": {"reasoning_type": r"\input{x} & 50%"}},
    )
    run = read_run(tmp_path)
    latex = paper_table("protocol", run, summarise(run))
    assert r"\input" not in latex.split("\n", 1)[1]
    assert r"gIoU, \textbackslash{}input\{x\} \& 50\% & " in latex


def test_of_an_unfinished_run_the_groups_are_those_of_all_cases(tmp_path):
    run_of(tmp_path)

    def without_sentences_of_dual(line):
        is_left_out = line["case"] == "dual" and line["tags"]["form"] == "sentence"
        return None if is_left_out else line

    edit_lines(tmp_path / "samples.jsonl", without_sentences_of_dual)
    protocol = summarise(read_run(tmp_path)).protocol
    assert list(protocol.queries.items()) == [("short", 10), ("long", 6), (ALL_QUERIES, 16)]
    dual, sam = protocol.cases
    assert list(dual.scores) == ["short", ALL_QUERIES] and "long" in sam.scores


def test_a_run_without_a_protocol_or_with_one_of_a_newer_version_has_no_block(tmp_path):
    for name in (None, "refcoco2030"):
        run = run_of(tmp_path / str(name), name)
        summary = summarise(run)
        assert summary.protocol is None
        assert "by protocol" not in report_text(run, summary)


def test_the_table_has_published_rows_beside_the_measured_ones(tmp_path):
    run = run_of(tmp_path)
    summary = summarise(run)
    section = protocol_section(summary)
    rows = rows_of(section)
    assert rows[""] == [
        *(
            "batch",
            "answer",
            "gIoU, short",
            "cIoU, short",
            "gIoU, long",
            "cIoU, long",
            "gIoU",
            "cIoU",
        )
    ]
    assert rows["dual"][:2] == ["1", "-"]
    assert rows["dual"][6] == f"{summary.cases[0].quality.gIoU:.3f}"
    assert rows["LISA-7B (ft), published"] == ["-", "-", *["n/a"] * 4, "0.529", "0.540"]
    assert "Split val: 16 queries (10 short, 6 long)." in section
    assert "Lai et al., LISA, CVPR 2024, table 1" in section and "orientation only" in section
    text = report_text(run, summary)
    assert "<summary>Quality by protocol</summary>" in text and section in text
    assert protocol_in_a_sentence(summary) == (
        "Quality is by the protocol reasonseg: ReasonSeg val, in batches of 1, but the data have "
        "16 queries, and ReasonSeg val has 200."
    )
    assert f"; {protocol_in_a_sentence(summary)}" in paper_table("cases", run, summary)
    exported = cases_table(summary).rows[0]
    assert (exported["protocol"], exported["quality_batch"]) == ("reasonseg", 1)


def test_the_table_for_other_programs_has_a_row_for_each_group(tmp_path):
    summary = summarise(run_of(tmp_path, split="test"))
    rows = protocol_table(summary).rows
    measured = [row for row in rows if row["origin"] == "measured"]
    assert [(row["model"], row["group"], row["queries"]) for row in measured[:3]] == [
        *(("dual", "short", 10), ("dual", "long", 6), ("dual", ALL_QUERIES, 16))
    ]
    assert measured[2]["gIoU"] == summary.cases[0].quality.gIoU
    (published,) = [
        row for row in rows if (row["model"], row["group"]) == ("LISA-13B (ft)", "long")
    ]
    assert (published["gIoU"], published["cIoU"], published["queries"]) == (0.54, 0.543, None)
    latex = paper_table("protocol", read_run(tmp_path), summary)
    assert "LISA-13B (ft), published & -- & 44.3 & 42.0 & 54.0 & 54.3 & 51.7 & 51.1" in latex


def test_the_page_for_a_browser_has_the_same_table(tmp_path):
    run = run_of(tmp_path)
    summary = summarise(run)
    page = html(run, summary)
    _, _, section = page.partition("<h2>Quality by protocol</h2>")
    section, _, _ = section.partition("</section>")
    assert protocol_in_a_sentence(summary) in section and "orientation only" in section
    text = re.sub("<[^>]*>", "|", section)
    gIoU, cIoU = (f"{getattr(summary.cases[0].quality, name):.3f}" for name in ("gIoU", "cIoU"))
    assert f"|{gIoU}||{cIoU}|" in text
    assert "|LISA-7B (ft), published||-||-||n/a||n/a||n/a||n/a||0.529||0.540|" in text
    unknown = summary.model_copy(update={"protocol": None})
    assert "Quality by protocol" not in html(run, unknown)


def test_generated_answers_are_told_from_forced_ones(tmp_path):
    run_of(tmp_path)
    content = (tmp_path / "run.json").read_text()
    generated = content.replace('"settings": {', '"settings": {"answer": "generated", ', 1)
    (tmp_path / "run.json").write_text(generated)
    rows = rows_of(protocol_section(summarise(read_run(tmp_path))))
    assert [rows[name][1] for name in ("dual", "sam")] == ["generated", "-"]


@pytest.mark.parametrize(
    ("protocol", "data", "departures"),
    [
        ("reasonseg", {"texts": "all"}, ["each wording is a query of its own"]),
        ("reasonseg", {"texts": "all", "limit": 16}, ["each wording", "at most the first 16"]),
        ("reasonseg", {"limit": 16}, ["at most the first 16 queries"]),
        ("reasonseg", {}, ["the data have 16 queries, and ReasonSeg val has 200"]),
        ("reasonseg", {"count": 200}, ["scores are of 16 of 200 queries"]),
        (
            "reasonseg",
            {"limit": 16, "layout": "hub", "source": "ReasonSeg_val", "ignored": "none: bool"},
            ["at most the first 16 queries", "marks no ignored pixels"],
        ),
        ("refcoco", {}, ["it is not known whether the data are refCOCO"]),
        ("refcoco", {"root": "/data/refcoco"}, []),
        ("refcoco", {"root": ".", "description": "refcoco/val"}, []),
        ("refcoco", {"layout": "refcoco", "source": "a (refs(unc).p)", "ignored": "none"}, []),
    ],
)
def test_departures_from_the_protocol_are_named_above_its_scores(
    tmp_path, protocol, data, departures
):
    summary = summarise(run_of(tmp_path, protocol, **data))
    named = summary.protocol.departures
    assert len(named) == len(departures)
    for departure, expected in zip(named, departures, strict=True):
        assert expected in departure
        assert departure in protocol_in_a_sentence(summary)
        assert departure in protocol_section(summary)


def test_the_published_row_nearest_to_a_release_is_named(tmp_path):
    run_of(tmp_path)
    raw = read_run(tmp_path)
    assert summarise(raw).protocol.nearest == {}
    content = (tmp_path / "run.json").read_text()
    released = content.replace('"name": "dual",', '"name": "dual", "weights_source": "%s",')
    (tmp_path / "run.json").write_text(released % "xinlai/LISA-7B-v1")
    summary = summarise(read_run(tmp_path))
    assert summary.protocol.nearest == {"dual": "LISA-7B (ft)"}
    section = protocol_section(summary)
    assert "dual to LISA-7B (ft)" in section and "train and val together" in section
    assert nearest_row("my-training", "reasonseg") is None
    assert nearest_row("xinlai/LISA-13B-llama2-v1", "reasonseg") is None
    assert nearest_row(None, "reasonseg") is None


def test_random_weights_have_no_scores_and_no_block(tmp_path):
    write_run(tmp_path, **SMALL, quality=False, controls=False)
    edit_run(tmp_path, data=DATA | {"protocol": "reasonseg"})
    summary = summarise(read_run(tmp_path))
    assert protocol_section(summary) == protocol_in_a_sentence(summary) == ""


# What is published


def test_published_values_of_short_and_long_queries_have_one_weighted_mean():
    """One share of short queries must explain all rows of the table up to rounding.

    So a mistyped value of test is found: each row has its own short, long and overall gIoU.
    """
    shares = np.linspace(0, 1, 1001)
    fits = np.ones_like(shares, bool)
    for _, (short, _), (long, _), (overall, _) in REASONSEG.values():
        explained = shares * short + (1 - shares) * long
        fits &= np.abs(explained - overall) <= 0.1 + 1e-9
    assert fits.any() and 0.2 < shares[fits].mean() < 0.28


def test_published_rows_are_of_the_split_and_of_who_made_it():
    val, test = published_table("reasonseg", "val", None), published_table("reasonseg", "test", "")
    assert val.models["LISA-7B"] == {ALL_QUERIES: {"gIoU": 0.444, "cIoU": 0.46}}
    assert test.models["LISA-7B"]["long"] == {"gIoU": 0.366, "cIoU": 0.347}
    assert published_table("reasonseg", "train", None) is None
    by_unc, by_google = "refcocog (refs(umd).p)", "refcocog (refs(google).p)"
    assert published_table("refcocog", "test", by_unc).models["LISA-7B"] == {
        ALL_QUERIES: {"cIoU": 0.685}
    }
    assert published_table("refcocog", "test", by_google) is None
    assert published_table("refcoco", "testA", None).source.endswith("table 2")
    assert published_table("grefcoco", "val", None) is None
