"""The table that a run ends with in the terminal."""

import io
import json
import os
import re
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from places import ROOT
from rich.console import Console
from run_factory import edit_lines, edit_run, write_run
from snapshots import assert_as_kept

from lisabench.harness import terminal
from lisabench.harness.records.run import read_run
from lisabench.reports import formatting
from lisabench.reports.page.terminal import measurements, parts, print_summary
from lisabench.reports.run.schema import Summary
from lisabench.reports.run.summary import summarise
from lisabench.reports.run.verdicts import verdicts
from lisabench.reports.run_report import write_report

pytestmark = pytest.mark.no_clock

SMALL = {"queries": 8, "size": (24, 32), "gallery": 2}
WIDTHS = [60, 72, 80, 120]
SNAPSHOTS = Path(__file__).parent / "snapshots"
REFCOCO = {
    "root": "refcoco",
    "split": "val",
    "count": 8,
    "description": "d",
    "fingerprint": "f",
    "protocol": "refcoco",
}
WARNINGS = [
    "dual failed: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of "
    "7.79 GiB of which 1.02 GiB is free",
    "not steady after warm-up: clip",
    "other programs kept 1.7 cores of the host busy: measure on an idle machine",
]
# Prints the table of a run once for each width, which the variable COLUMNS has; "" is without it.
SHOW = """
import os, pathlib, sys
from lisabench.reports.page.terminal import print_summary

folder, *widths = sys.argv[1:]
for width in widths:
    os.environ.pop("COLUMNS", None)
    if width:
        os.environ["COLUMNS"] = width
    print_summary(pathlib.Path(folder))
    print("\\f", end="")
"""


@cache
def summary_of(name: str) -> Summary:
    """Return the summary of a published run."""
    return summarise(read_run(ROOT / "results" / name))


def printed(summary, width: int) -> str:
    """Return what a run ends with in a terminal of this width."""
    text = io.StringIO()
    console = Console(width=width, file=text, markup=False, highlight=False)
    for part in parts(summary, width):
        console.print(part)
        console.print()
    return text.getvalue()


def numbers_of(summary) -> list[str]:
    """Return what must be shown at every width: measurements, and verdicts on time and masks."""
    numbers = []
    for case in summary.cases:
        interval = case.quality.intervals.get("gIoU")
        numbers.append(formatting.score(case.quality.gIoU, interval))
        numbers.append(formatting.milliseconds(case.time.end_to_end_ms))
    for comparison in summary.comparisons:
        time, _, masks = verdicts(comparison, summary.cases)
        for verdict in (time, masks):
            amount = verdict.amount.removesuffix(" points gIoU")
            numbers += [verdict.word, amount, verdict.interval]
    return numbers


def assert_whole(text: str, summary, width: int) -> None:
    """No line is too long, no number is cut, and every case has its name, broken or not."""
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in text
    for number in numbers_of(summary):
        assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.])", text), number
    # Names in these runs have no spaces, and a long one goes on in the next line.
    first_column = "".join(re.findall(r"^(\S+)", text, re.MULTILINE))
    assert all(case.name in first_column for case in summary.cases)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("cases", [3, 8])
def test_what_is_printed_is_whole_at_every_width(tmp_path, width, cases):
    summary = summarise(read_run(write_run(tmp_path, cases=cases, **SMALL)))
    assert_whole(printed(summary, width), summary, width)


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("three-cases", {}),
        ("eight-cases", {"cases": 8}),
        ("random-weights", {"quality": False}),
        ("one-case", {"cases": 1}),
    ],
)
def test_what_a_run_ends_with_is_as_it_is_kept(tmp_path, name, settings, width):
    summary = summarise(read_run(write_run(tmp_path, **(SMALL | settings))))
    summary = summary.model_copy(update={"warnings": WARNINGS})
    assert_as_kept(SNAPSHOTS / f"terminal-{name}-{width}.txt", printed(summary, width))


@pytest.mark.parametrize("width", [60, 80, 120])
def test_scores_by_a_protocol_are_as_they_are_kept(tmp_path, width):
    write_run(tmp_path, **SMALL)
    edit_run(tmp_path, data=REFCOCO)
    summary = summarise(read_run(tmp_path)).model_copy(update={"warnings": []})
    text = printed(summary, width)
    quality = summary.cases[0].quality
    scores = f"{summary.cases[0].name} has cIoU {quality.cIoU:.3f} and mIoU {quality.mIoU:.3f}"
    assert scores in " ".join(text.split())
    assert_as_kept(SNAPSHOTS / f"terminal-protocol-{width}.txt", text)


def test_scores_by_a_protocol_of_many_cases_are_left_to_the_report(tmp_path):
    write_run(tmp_path, cases=8, **SMALL)
    edit_run(tmp_path, data=REFCOCO)
    text = printed(summarise(read_run(tmp_path)), 80)
    assert "By the protocol" not in text
    assert 'All scores of the protocol are in the report, in "Quality by protocol".' in text


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("name", ["claims-7b", "graphs-7b", "throughput-7b"])
def test_what_a_published_run_ends_with_is_as_it_is_kept(name, width):
    summary = summary_of(name).model_copy(update={"warnings": WARNINGS})
    assert_as_kept(SNAPSHOTS / f"terminal-{name}-{width}.txt", printed(summary, width))


def test_stages_are_left_out_first_and_quality_never(tmp_path):
    summary = summarise(read_run(write_run(tmp_path, **SMALL)))
    shown = {}
    for width in (*WIDTHS, 40):
        table = measurements(summary, width)
        names = ("time", "gIoU", "growth", "vision", "llm", "decoder")
        headings = " ".join(str(column.header) for column in table.columns)
        shown[width] = [name for name in names if name in headings]
    assert shown[120] == ["time", "gIoU", "growth", "vision", "llm", "decoder"]
    assert shown[60] == ["time", "gIoU", "growth", "vision", "llm"]
    assert shown[40] == ["time", "gIoU"]
    for narrow, wide in pairwise(sorted(shown)):
        assert shown[narrow] == shown[wide][: len(shown[narrow])]


def test_random_weights_have_no_quality_in_the_terminal(tmp_path):
    summary = summarise(read_run(write_run(tmp_path, quality=False, **SMALL)))
    text = printed(summary, 80)
    assert text.count("n/a") == 3 + 1  # once a case, and in the sentence that says why
    assert "points" not in text.split("n/a")[-1]


def test_of_many_warnings_the_gravest_are_printed_whole_and_the_others_counted(tmp_path):
    summary = summarise(read_run(write_run(tmp_path, **SMALL)))
    grave = "the gravest warning, " + "with many words " * 10
    summary = summary.model_copy(update={"warnings": [grave, "b is odd", "c is odd", "d is odd"]})
    for width in WIDTHS:
        joined = " ".join(printed(summary, width).split())
        assert f"warning: {' '.join(grave.split())} warning: b is odd 2 more" in joined
        assert "c is odd" not in joined


def test_a_claim_is_a_line_that_begins_with_its_verdict():
    summary = summary_of("claims-7b")
    lines = printed(summary, 120).splitlines()
    for claim in summary.claims:
        (line,) = [line for line in lines if claim.claim in line]
        assert line.strip().startswith(f"{claim.verdict}  ")
    assert "claims: 5 confirmed, 4 not measured" in lines


def test_a_pipe_and_a_terminal_of_any_width_show_the_table_whole(tmp_path):
    write_report(write_run(tmp_path, **SMALL))
    summary = summarise(read_run(tmp_path))
    command = [sys.executable, "-c", SHOW, tmp_path, "", *map(str, WIDTHS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *tables, rest = done.stdout.split("\f")
    assert rest == ""
    for width, table in zip((None, *WIDTHS), tables, strict=True):
        assert_whole(table, summary, width or 120)
        assert ("decoder" in table) is (width != 60)


def test_in_a_terminal_the_table_is_as_wide_as_it_allows(tmp_path):
    pty = pytest.importorskip("pty")
    write_report(write_run(tmp_path, **SMALL))
    ours, theirs = pty.openpty()
    set_width(theirs, 60)
    environment = os.environ | {"TERM": "xterm"}
    environment.pop("LINES", None)
    command = [sys.executable, "-c", SHOW, tmp_path, ""]
    subprocess.run(command, env=environment, stdin=theirs, stdout=theirs, check=True)
    os.close(theirs)
    text = re.sub(r"\x1b\[[0-9;]*m", "", read_all(ours).replace("\r\n", "\n")).removesuffix("\f")
    assert_whole(text, summarise(read_run(tmp_path)), 60)
    assert "decoder" not in text


def set_width(terminal: int, columns: int) -> None:
    import fcntl
    import struct
    import termios

    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))


def read_all(descriptor: int) -> str:
    """Return all that was written to the other end of a pseudo-terminal, which has been closed."""
    parts = []
    while True:
        try:
            part = os.read(descriptor, 4096)
        except OSError:  # as Linux tells the end
            part = b""
        if not part:
            os.close(descriptor)
            return b"".join(parts).decode()
        parts.append(part)


def test_the_table_of_a_written_report_can_be_printed(tmp_path, capsys):
    write_report(write_run(tmp_path, **SMALL))
    print_summary(tmp_path)
    printed_text = capsys.readouterr().out
    assert "The original LISA" in printed_text and "clip" in printed_text


def test_a_name_is_no_markup_of_the_terminal(tmp_path):
    write_run(tmp_path, cases=2, **SMALL)
    for name in ("run.json", "samples.jsonl", "memory.jsonl"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text.replace('"sam"', '"a|b <i> [/c]"'))
    text = printed(summarise(read_run(tmp_path)), width=100)
    assert "a|b <i>" in text
    assert "[/c]" in text


@pytest.mark.parametrize("hostile", ["[/red] [bold]x", ":smile: \x1b[2J", "a" * 12 + "::error::x"])
def test_names_and_the_title_act_neither_on_a_terminal_nor_in_ci(
    tmp_path, capsys, monkeypatch, hostile
):
    write_run(tmp_path, **SMALL)
    edit_run(tmp_path, title=hostile)
    manifest = (tmp_path / "run.json").read_text()
    (tmp_path / "run.json").write_text(manifest.replace('"sam"', json.dumps(hostile)))
    for name in ("samples.jsonl", "memory.jsonl"):
        edit_lines(
            tmp_path / name,
            lambda line: line | {"case": hostile} if line["case"] == "sam" else line,
        )
    write_report(tmp_path)
    for columns in ("60", "120"):
        monkeypatch.setenv("COLUMNS", columns)
        print_summary(tmp_path)
    out = capsys.readouterr().out
    assert "::error" not in out and "\x1b" not in out
    assert terminal.cell(hostile)[:8] in out
