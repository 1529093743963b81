"""The tables of a run for other programs and for papers: what they hold, and that text is data."""

import csv
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from command import lisabench
from hypothesis import given
from hypothesis import strategies as st
from places import RESULTS, ROOT
from run_factory import EMPTY_CLAIM, edit_lines, edit_run, failed, write_run

from lisabench.harness.records.run import read_run
from lisabench.harness.text import one_line
from lisabench.reports.export import tables
from lisabench.reports.export.latex import escape_latex
from lisabench.reports.export.paper_tables import paper_table
from lisabench.reports.export.write import TABLES, as_csv, as_json, table_of
from lisabench.reports.run.summary import summarise

pytestmark = pytest.mark.no_clock

SMALL = {"queries": 8, "size": (24, 32), "gallery": 0}
HOSTILE = r"=a\b{c}$x$ & 50% #1 _^~ <b>|`\input{x}` --- *[0] é ٣"
CLAIMS = [
    EMPTY_CLAIM | {"claim": "faster, 50% & more", "quantity": "time.end_to_end", "candidate": "sam",
                   "reference": "dual", "at_most": 0.5, "published": 0.5},
    EMPTY_CLAIM | {"claim": "as good", "quantity": "quality.gIoU", "candidate": "clip",
                   "reference": "dual", "at_least": -2.0},
    EMPTY_CLAIM | {"claim": "trains", "needs": "something else"},
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("run"), **SMALL)
    edit_run(folder, claims=CLAIMS)
    return folder


def exported(folder, table, kind="csv"):
    done = lisabench("report", folder, "--format", kind, "--table", table)
    assert done.returncode == 0, done.stderr
    return done.stdout


def csv_rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_the_table_of_cases_has_the_numbers_of_the_summary(folder):
    summary = summarise(read_run(folder))
    rows = {row["case"]: row for row in csv_rows(exported(folder, "cases"))}
    assert list(rows) == ["dual", "sam", "clip", "whole-image", "centre-box", "empty"]
    for case in summary.cases:
        row = rows[case.name]
        over_processes = case.time.end_to_end_over_processes
        assert float(row["time_ms"]) == case.time.end_to_end_ms
        assert float(row["time_over_processes_ms_low"]) == over_processes.low
        assert int(row["peak_bytes"]) == case.memory.peak_bytes
        assert float(row["gIoU"]) == case.quality.gIoU
        ends = (float(row["gIoU_low"]), float(row["gIoU_high"]))
        assert ends == case.quality.intervals["gIoU"]
        assert float(row["precision_0.5"]) == case.quality.precision_05
    for comparison in summary.comparisons:
        row = rows[comparison.candidate]
        assert row["reference"] == "dual"
        ratio = [float(row[f"time_ratio{end}"]) for end in ("", "_low", "_high")]
        time = comparison.end_to_end
        assert ratio == [time.ratio, time.low, time.high]
        change = comparison.gIoU_points
        assert float(row["gIoU_change_points"]) == change.difference
        assert float(row["gIoU_change_points_high"]) == change.high
    # The reference is compared with nothing, and its ratio is unknown rather than 1.
    assert rows["dual"]["time_ratio"] == rows["dual"]["reference"] == ""


def test_the_table_of_stages_has_the_numbers_of_the_summary(folder):
    summary = summarise(read_run(folder))
    rows = csv_rows(exported(folder, "stages"))
    by_stage = {(row["case"], row["stage"]): row for row in rows}
    assert len(by_stage) == len(rows) == 3 * 6
    for case in summary.cases:
        assert by_stage[case.name, "build"]["time_ms"] == ""
        for stage, time in case.time.stages.items():
            row = by_stage[case.name, stage]
            assert float(row["time_ms"]) == time.median_ms
            assert int(row["peak_bytes"]) == case.memory.stages[stage].peak_bytes
    ratio = summary.comparison("clip").stages["vision"]
    row = by_stage["clip", "vision"]
    assert (float(row["time_ratio"]), float(row["time_ratio_high"])) == (ratio.ratio, ratio.high)


def test_the_table_of_queries_has_a_row_for_each_query_and_case(folder):
    loaded = pd.read_json(folder / "samples.jsonl", lines=True)
    rows = csv_rows(exported(folder, "queries"))
    assert len(rows) == 6 * 8
    for row in rows:
        lines = loaded[(loaded.case == row["case"]) & (loaded.sample_id == row["sample_id"])]
        assert float(row["time_ms"]) == pytest.approx(np.median(lines.latency_ns) / 1e6, rel=1e-12)
        assert int(row["processes"]) == len(lines)
        first = lines.sort_values("process").iloc[0]
        union_px = first.union_px
        iou = first.intersection_px / union_px if union_px else 1.0
        assert float(row["iou"]) == iou
        assert row["tag.family"] == first.tags["family"]


def test_the_table_of_claims_has_bounds_verdicts_and_intervals(folder):
    summary = summarise(read_run(folder))
    rows = csv_rows(exported(folder, "claims"))
    assert [row["verdict"] for row in rows] == [claim.verdict for claim in summary.claims]
    assert (rows[0]["unit"], rows[1]["unit"], rows[2]["unit"]) == ("ratio", "points", "")
    assert float(rows[0]["measured_low"]) == summary.claims[0].interval[0]
    assert rows[2]["measured"] == ""


def test_the_tables_of_claims_say_how_the_answers_came_about():
    generated = RESULTS / "claims-generated"
    summary = summarise(read_run(generated))
    regimes = [claim.regime for claim in summary.claims]
    assert len(set(regimes)) > 1
    rows = csv_rows(exported(generated, "claims"))
    assert [row["regime"] for row in rows] == regimes
    assert [row["meaning"] for row in rows] == [claim.meaning for claim in summary.claims]
    latex = exported(generated, "claims", "latex")
    assert r"Claim & Answers & Verdict & Published & Bound & Measured [95\,\%] \\" in latex
    assert all(latex.count(f"& {regime} &") == regimes.count(regime) for regime in regimes)


def test_a_failed_query_and_random_weights_leave_their_numbers_empty(tmp_path):
    write_run(tmp_path, cases=1, controls=False, quality=False, **SMALL)
    edit_lines(
        tmp_path / "samples.jsonl", lambda q: failed(q) if q["sample_id"] == "scene-0000" else q
    )
    rows = csv_rows(exported(tmp_path, "queries"))
    assert [row["time_ms"] == "" for row in rows] == [True, *[False] * 7]
    assert rows[0]["processes"] == "0"
    assert {row["iou"] for row in rows} == {""}
    (case,) = csv_rows(exported(tmp_path, "cases"))
    assert case["gIoU"] == case["gIoU_low"] == ""


@pytest.mark.parametrize("table", TABLES)
def test_json_and_parquet_have_what_csv_has(folder, tmp_path, table):
    pytest.importorskip("pyarrow")
    in_json = json.loads(exported(folder, table, "json"))
    in_csv = csv_rows(exported(folder, table))
    as_text = [{name: "" if value is None else str(value) for name, value in row.items()}
               for row in in_json]  # fmt: skip
    assert as_text == in_csv
    path = tmp_path / "table.parquet"
    done = lisabench("report", folder, "--format", "parquet", "--table", table, "--out", path)
    assert (done.returncode, done.stdout) == (0, "")
    rows = pd.read_parquet(path).to_dict(orient="records")
    known = [{name: None if pd.isna(value) else value for name, value in row.items()}
             for row in rows]  # fmt: skip
    assert known == in_json


def test_a_column_has_the_same_type_where_nothing_in_it_is_known(folder, tmp_path):
    empty = write_run(tmp_path / "empty", cases=1, controls=False, quality=False, **SMALL)
    (empty / "samples.jsonl").write_text("")
    (empty / "memory.jsonl").write_text("")
    for table in ("cases", "stages", "claims"):
        measured = table_of(table, read_run(folder)).frame().dtypes.to_dict()
        nothing = table_of(table, read_run(empty)).frame().dtypes.to_dict()
        assert measured == nothing


@pytest.mark.parametrize("table", TABLES)
def test_a_file_has_what_standard_output_has(folder, tmp_path, table):
    for kind in ("csv", "latex", "json"):
        path = tmp_path / kind
        options = ("--format", kind, "--table", table, "--out", path)
        done = lisabench("report", folder, *options)
        assert (done.returncode, done.stdout) == (0, "")
        assert path.read_text() == exported(folder, table, kind)


def test_no_report_is_written_where_a_table_is_asked_for(folder):
    before = {path.name for path in folder.iterdir()}
    exported(folder, "cases")
    assert {path.name for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--format", "cvs"), "unknown format 'cvs' (did you mean 'csv'?)"),
        (("--format", "csv", "--table", "case"), "unknown table 'case' (did you mean 'cases'?)"),
        (("--table", "cases"), "--table and --out need --format"),
        (("--format", "parquet"), "parquet is not text: name a file with --out"),
        (("--format", "csv", "--out", "{here}/no/x.csv"), "name another file with --out"),
    ],
)
def test_what_cannot_be_written_is_one_line_and_code_2(folder, tmp_path, options, said):
    done = lisabench(
        "report", folder, *[option.replace("{here}", str(tmp_path)) for option in options]
    )
    assert done.returncode == 2
    assert said in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_study_has_no_such_tables(tmp_path):
    (tmp_path / "study.json").write_text("{}")
    done = lisabench("report", tmp_path, "--format", "csv")
    assert done.returncode == 2 and "is not a run's folder" in done.stderr


def test_the_document_lists_every_column():
    document = (ROOT / "docs" / "reports.md").read_text()
    for columns in (tables.CASE_COLUMNS, tables.STAGE_COLUMNS, tables.QUERY_COLUMNS,
                    tables.CLAIM_COLUMNS, tables.PROTOCOL_COLUMNS):  # fmt: skip
        for column in columns:
            stem = re.sub("_(low|high)$", "", column.name)
            assert f"`{stem}`" in document, stem


# Text is data


def hostile_run(folder):
    """Give a run names and queries that mean something in LaTeX, CSV and spreadsheets."""
    write_run(folder, cases=2, controls=False, **SMALL)
    renamed = {"sam": HOSTILE}
    for name in ("samples.jsonl", "memory.jsonl"):
        edit_lines(folder / name, lambda q: q | {"case": renamed.get(q["case"], q["case"])})
    hostile = {"query": f"{HOSTILE}\n::error::{HOSTILE}", "tags": {"reasoning_type": HOSTILE}}
    edit_lines(folder / "samples.jsonl", lambda q: q | hostile)
    manifest = json.loads((folder / "run.json").read_text())
    cases = [
        entry | {"name": renamed.get(entry["name"], entry["name"])} for entry in manifest["cases"]
    ]
    data = manifest["data"] | {"protocol": "reasonseg-x", "split": HOSTILE}
    edit_run(folder, cases=cases, suite=f"%{HOSTILE}\n\\end{{document}}", data=data)
    return folder


def test_a_spreadsheet_carries_nothing_out_and_each_row_is_a_line(tmp_path):
    run = read_run(hostile_run(tmp_path))
    for table in TABLES:
        text = as_csv(table_of(table, run))
        assert len(text.splitlines()) == 1 + len(table_of(table, run).rows)
        for row in csv.reader(io.StringIO(text)):
            assert not [cell for cell in row if re.match(r"[=@]|[+-](?![\d.])", cell)]
    names = [row["case"] for row in csv_rows(as_csv(table_of("cases", run)))]
    assert names == ["dual", f"'{HOSTILE}"]
    # JSON has no formulas, and keeps the text as it is.
    assert json.loads(as_json(table_of("cases", run)))[1]["case"] == HOSTILE


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs LaTeX")
def test_latex_sets_hostile_names_and_queries(tmp_path):
    run = read_run(hostile_run(tmp_path / "run"))
    summary = summarise(run)
    # The font of pdflatex has no Arabic digit; engines for Unicode have.
    pages = [paper_table(table, run, summary).replace("٣", "3") for table in TABLES]
    written = r"\documentclass{article}\usepackage{booktabs}\begin{document}" + "\n\n".join(pages)
    (tmp_path / "page.tex").write_text(written + "\n\\end{document}\n")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]


# An independent reading of the escapes: what LaTeX shows for each.
SHOWN = {
    r"\textbackslash{}": "\\", r"\textasciicircum{}": "^", r"\textasciitilde{}": "~",
    r"\textless{}": "<", r"\textgreater{}": ">", r"\textbar{}": "|", r"{\char34}": '"',
    r"\textasciigrave{}": "`", "-{}": "-", "{[}": "[", "{*}": "*",
    **{f"\\{character}": character for character in "{}$&#%_"},
}  # fmt: skip


@given(st.text(alphabet=st.sampled_from([*'\\{}$&#%_^~<>|"`-[]*ab 1é', "\n", "\x1b"])))
def test_escaped_text_is_shown_as_it_is(text):
    tokens = "|".join(re.escape(token) for token in SHOWN)
    parts = re.split(f"({tokens})", escape_latex(text))
    assert not re.search(r"[\\{}$&#%_^~<>|\"`]|--", "x".join(parts[::2]))
    assert "".join(SHOWN.get(part, part) for part in parts) == one_line(text)
    assert not parts[0].startswith(("[", "*"))


def test_a_table_of_cases_in_latex_is_that_of_a_paper(folder):
    lines = exported(folder, "cases", "latex").splitlines()
    assert lines[0].startswith("% lisabench: suite tiny, 2026-01-31, AMD EPYC")
    assert lines[2:6] == [
        r"\begin{tabular}{lrrrrrr}",
        r"\toprule",
        r"Variant & Time (ms) & Time ratio [95\,\%] & Growth (MiB) & Growth ratio [95\,\%] & gIoU "
        r"& Points [95\,\%] \\",
        r"\midrule",
    ]
    assert [line.split(" & ")[0] for line in lines[6:9]] == ["dual", "sam", "clip"]
    reference, sam = lines[6].split(" & "), lines[7].split(" & ")
    assert (reference[2], reference[4]) == ("1", "1") and reference[6].startswith("--")
    for place in (2, 4):
        assert re.fullmatch(r"0\.\d\d( \[0\.\d\d, 0\.\d\d\])?", sam[place])
    signed = r"(\$-\$|\+)\d+\.\d"
    assert re.match(rf"{signed} \[{signed}, {signed}\]", sam[6])
    assert lines[9:] == [r"\bottomrule", r"\end{tabular}"]


def test_a_column_without_a_number_is_left_out_of_a_paper(tmp_path):
    folder = write_run(tmp_path, cases=1, controls=False, quality=False, **SMALL)
    header = exported(folder, "cases", "latex").splitlines()[4]
    assert header == (
        r"Variant & Time (ms) & Time ratio [95\,\%] & Peak (MiB) & Peak ratio [95\,\%] \\"
    )


def test_negative_numbers_have_a_minus_sign(folder):
    assert re.search(r"\$-\$\d+\.\d points \[\$-\$", exported(folder, "claims", "latex"))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("claims-described", marks=pytest.mark.slow),
        pytest.param("throughput-7b", marks=pytest.mark.slow),
        "training-7b",
        "fits-8gb",
    ],
)
def test_published_runs_are_exported(name):
    for table in TABLES:
        for kind in ("csv", "json", "latex"):
            exported(RESULTS / name, table, kind)
