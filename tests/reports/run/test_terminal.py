"""The table that a run ends with in the terminal."""

import io
import json
import os
import re
import subprocess
import sys
from itertools import pairwise

import pytest
from rich.console import Console
from run_factory import edit_lines, edit_run, write_run

from lisabench.harness import terminal
from lisabench.harness.records.run import read_run
from lisabench.harness.statistics.verdicts import quality_word, time_word
from lisabench.reports import formatting
from lisabench.reports.run.page import write_report
from lisabench.reports.run.summary import summarise
from lisabench.reports.run.terminal import print_table, terminal_table

pytestmark = pytest.mark.no_clock

SMALL = {"queries": 8, "size": (24, 32), "gallery": 2}
WIDTHS = [60, 72, 80, 120]
# Prints the table of a run once for each width, which the variable COLUMNS has; "" is without it.
SHOW = """
import os, pathlib, sys
from lisabench.reports.run.terminal import print_table

folder, *widths = sys.argv[1:]
for width in widths:
    os.environ.pop("COLUMNS", None)
    if width:
        os.environ["COLUMNS"] = width
    print_table(pathlib.Path(folder))
    print("\\f", end="")
"""


def printed(table, width: int) -> str:
    text = io.StringIO()
    Console(width=width, file=text).print(table)
    return text.getvalue()


def numbers_of(summary) -> list[str]:
    """Return what a table must show at every width: quality, time, and both differences."""
    numbers = []
    for case in summary.cases:
        numbers.append(formatting.score(case.quality.gIoU))
        numbers.append(formatting.milliseconds(case.time.end_to_end_ms))
    for comparison in summary.comparisons:
        points, time = comparison.gIoU_points, comparison.end_to_end
        numbers.append(f"{points.difference:+.1f} [{points.low:+.1f}, {points.high:+.1f}]")
        numbers.append(quality_word(points))
        numbers.append(formatting.ratio_with_interval(time))
        numbers.append(time_word(time))
    return numbers


def assert_whole(text: str, summary, width: int) -> None:
    """No line is too long, no number is cut, and every case has its name, broken or not."""
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in text
    for number in numbers_of(summary):
        assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.])", text), number
    # Names in these runs have no spaces, and a long one goes on in the next line.
    first_column = "".join(re.findall(r"^ (\S+)", text, re.MULTILINE))
    assert all(case.name in first_column for case in summary.cases)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("cases", [3, 8])
def test_the_terminal_table_is_whole_at_every_width(tmp_path, width, cases):
    summary = summarise(read_run(write_run(tmp_path, cases=cases, **SMALL)))
    assert_whole(printed(terminal_table(summary, width), width), summary, width)


def test_stages_are_left_out_first_and_quality_never(tmp_path):
    summary = summarise(read_run(write_run(tmp_path, **SMALL)))
    shown = {}
    for width in (*WIDTHS, 40):
        heading = " ".join(printed(terminal_table(summary, width), width).splitlines()[2:4])
        names = ("gIoU", "time", "peak", "vision", "llm", "decoder")
        shown[width] = [name for name in names if name in heading]
    assert shown[120] == ["gIoU", "time", "peak", "vision", "llm", "decoder"]
    assert shown[60] == ["gIoU", "time", "peak"]
    assert shown[40] == ["gIoU", "time"]
    for narrow, wide in pairwise(sorted(shown)):
        assert shown[narrow] == shown[wide][: len(shown[narrow])]


def test_random_weights_have_no_quality_in_the_terminal(tmp_path):
    summary = summarise(read_run(write_run(tmp_path, quality=False, **SMALL)))
    text = printed(terminal_table(summary, 80), 80)
    assert text.count("n/a") == 3 + 1  # once a case, and in the caption
    assert "points" not in text.split("n/a")[-1]


def test_a_pipe_and_a_terminal_of_any_width_show_the_table_whole(tmp_path):
    write_report(write_run(tmp_path, **SMALL))
    summary = summarise(read_run(tmp_path))
    command = [sys.executable, "-c", SHOW, tmp_path, "", *map(str, WIDTHS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *tables, rest = done.stdout.split("\f")
    assert rest == ""
    for width, table in zip((None, *WIDTHS), tables, strict=True):
        assert_whole(table, summary, width or 120)
        assert ("decoder" in table) is (width in (None, 120))


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
    print_table(tmp_path)
    printed_text = capsys.readouterr().out
    assert "The original LISA" in printed_text and "clip" in printed_text


def test_a_name_is_no_markup_of_the_terminal(tmp_path):
    write_run(tmp_path, cases=2, **SMALL)
    for name in ("run.json", "samples.jsonl", "memory.jsonl"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text.replace('"sam"', '"a|b <i> [/c]"'))
    text = printed(terminal_table(summarise(read_run(tmp_path)), width=100), width=100)
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
        print_table(tmp_path)
    out = capsys.readouterr().out
    assert "::error" not in out and "\x1b" not in out
    assert terminal.cell(hostile)[:8] in out
