import io
import json
import os
import re
import subprocess
import sys
from itertools import pairwise

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread
from matplotlib.text import Text
from rich.console import Console
from run_factory import edit_lines, edit_run, failed, make_older, write_run

from lisabench.harness.errors import UsageError
from lisabench.harness.records.run import read_run
from lisabench.harness.statistics.verdicts import quality_word, time_word
from lisabench.reports import formatting
from lisabench.reports.run import verdict_words
from lisabench.reports.run.figures import peak_memory, stage_times
from lisabench.reports.run.page import write_report
from lisabench.reports.run.summary import summarise
from lisabench.reports.run.tables import comparison_table, slices_table
from lisabench.reports.run.terminal import print_table, terminal_table

pytestmark = pytest.mark.no_clock

SMALL = {"queries": 8, "size": (24, 32), "gallery": 2}
FIGURES = ("stage_times.png", "peak_memory.png", "gallery.png")


def rows_of(markdown: str) -> dict[str, list[str]]:
    """First cell to the others."""
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in markdown.splitlines()
        if line.startswith("|")
    ]
    return {first: rest for first, *rest in cells}


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text)]


def printed(table, width: int) -> str:
    text = io.StringIO()
    Console(width=width, file=text).print(table)
    return text.getvalue()


@pytest.mark.parametrize("cases", [1, 3, 8])
def test_a_report_shows_its_figures_at_readme_width(tmp_path, cases):
    text = write_report(write_run(tmp_path, cases=cases, **SMALL)).read_text()
    assert rows_of(text)["end to end"][0] != "n/a"
    for name in FIGURES:
        pixels = imread(tmp_path / name)
        assert f"]({name})" in text
        assert pixels.shape[1] == 1500 and pixels.shape[0] > 300
        assert np.ptp(pixels) > 0.9  # something is drawn


def test_a_report_leaves_no_half_written_file(tmp_path):
    write_report(write_run(tmp_path, **SMALL))
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "run.json",
        "samples.jsonl",
        "memory.jsonl",
        "gallery.npz",
        "summary.json",
        "report.md",
        *FIGURES,
    }


def test_the_reference_comes_first_and_variants_carry_ratio_and_interval(tmp_path):
    write_run(tmp_path, **SMALL)
    edit_run(tmp_path, reference="sam")
    summary = summarise(read_run(tmp_path))
    rows = rows_of(comparison_table(summary))
    ratio = summary.comparison("clip").end_to_end
    assert rows[""] == ["sam (reference)", "dual", "clip"]
    assert rows["end to end"][2].endswith(
        f"({ratio.ratio:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]: faster)"
    )
    assert "x" not in rows["end to end"][0]
    assert rows["before the build"] == ["360", "360", "360"]
    assert rows["growth over that"] == ["358", "382 (1.07x)", "311 (0.87x)"]
    assert rows["growth of a query (without build)"] == ["358", "382 (1.07x)", "311 (0.87x)"]
    assert rows["largest, whole process"] == ["718", "742", "671"]
    assert "a ratio is of the growth of the resident set" in comparison_table(summary)


def test_on_a_gpu_the_ratio_of_memory_is_that_of_the_peaks(tmp_path):
    write_run(tmp_path, **SMALL, clock="cuda events")
    rows = rows_of(comparison_table(summarise(read_run(tmp_path))))
    assert rows["largest"] == ["742", "718 (0.97x)", "671 (0.90x)"]
    assert "growth over that" not in rows


def test_each_difference_of_quality_has_an_interval_and_a_word(tmp_path):
    summary = summarise(read_run(write_run(tmp_path, **SMALL)))
    rows = rows_of(comparison_table(summary))
    for place, name in enumerate(("sam", "clip"), start=1):
        for score in ("gIoU", "cIoU", "mIoU"):
            points = getattr(summary.comparison(name), f"{score}_points")
            interval = f"[{points.low:+.1f}, {points.high:+.1f}]"
            expected = f"({points.difference:+.1f} points {interval}: {quality_word(points)}"
            assert expected in rows[score][place]
    assert summary.comparison("clip").gIoU_verdict == "regression"
    assert ": worse)" in rows["gIoU"][2] and verdict_words.WORDS_OF_QUALITY in comparison_table(
        summary
    )


def test_costs_are_in_bold_only_where_masks_are_as_good_or_there_is_no_quality(tmp_path):
    """`clip` is much worse than `dual`, and of `sam` eight queries cannot tell."""
    verdicts = {}
    for name, quality in (("trained", True), ("random", False)):
        text = write_report(write_run(tmp_path / name, quality=quality, **SMALL)).read_text()
        summary = summarise(read_run(tmp_path / name))
        verdicts[name] = [found.gIoU_verdict for found in summary.comparisons]
        paragraph, rows = text.split("\n\n")[1], rows_of(comparison_table(summary))
        bold = [f"**{found.candidate} takes" in paragraph for found in summary.comparisons]
        bold += ["**" in cell for cell in (*rows["end to end"], *rows["growth over that"])]
        assert any(bold) is not quality
    assert verdicts == {"trained": ["inconclusive", "regression"], "random": [None, None]}


def test_a_variant_that_is_as_good_is_in_bold(tmp_path):
    write_run(tmp_path, cases=2, **SMALL)
    pixels = ("intersection_px", "union_px", "predicted_px", "predicted_box")
    dual = {
        line["sample_id"]: line for line in read_run(tmp_path).samples if line["case"] == "dual"
    }
    same = lambda line: line | {name: dual[line["sample_id"]][name] for name in pixels}  # noqa: E731
    edit_lines(
        tmp_path / "samples.jsonl", lambda line: same(line) if line["case"] == "sam" else line
    )
    summary = summarise(read_run(tmp_path))
    assert summary.comparison("sam").gIoU_verdict == "same"
    assert "(**0.8" in rows_of(comparison_table(summary))["end to end"][1]
    assert ": as good)" in rows_of(comparison_table(summary))["gIoU"][1]


def test_many_variants_are_spread_over_tables_that_each_begin_with_the_reference(tmp_path):
    table = comparison_table(summarise(read_run(write_run(tmp_path, cases=8, **SMALL))))
    heads = [line for line in table.splitlines() if line.startswith("|  |")]
    assert [head.count("|") - 2 for head in heads] == [4, 4, 2]
    assert all(head.startswith("|  | dual (reference) |") for head in heads)


def test_random_weights_are_said_plainly_and_show_no_quality_of_a_model(tmp_path):
    write_run(tmp_path, quality=False, controls=False, **SMALL)
    text = write_report(tmp_path).read_text()
    rows = rows_of(comparison_table(summarise(read_run(tmp_path))))
    assert rows["gIoU"] == rows["cIoU"] == ["n/a"] * 3
    assert "The weights of all models are random" in text and formatting.WHY_NO_QUALITY in text
    assert "points" not in text and "By kind of query" not in text
    quality = rows_of(text.split("## Quality")[1].split("##")[0])
    assert {cell for name in ("dual", "sam", "clip") for cell in quality[name][1:-1]} == {"n/a"}


def test_controls_stand_in_a_table_of_their_own(tmp_path):
    text = write_report(write_run(tmp_path, **SMALL)).read_text()
    models, controls = text.split("### Trivial baselines")
    assert "centre-box" in rows_of(controls) and "centre-box" not in rows_of(
        models.split("## Quality")[1]
    )
    assert "centre-box" not in rows_of(models.split("## Comparison")[1].split("## Quality")[0])


def test_slices_show_each_case_and_the_floors_by_kind_of_query(tmp_path):
    summary = summarise(read_run(write_run(tmp_path, **SMALL)))
    rows = rows_of(slices_table(summary))
    assert rows["gIoU"] == ["queries", "dual", "sam", "clip", "whole-image", "centre-box", "empty"]
    expected = summary.cases[0].quality.slices["family"]["relation"]
    assert rows["family: relation"][:2] == [str(expected.n), f"{expected.gIoU:.3f}"]


@pytest.mark.parametrize("status", ["running", "failed"])
def test_an_unfinished_run_has_a_report_that_says_so(tmp_path, status):
    write_run(tmp_path, status=status, **SMALL)
    gone = ("sam", "clip")
    edit_lines(
        tmp_path / "samples.jsonl", lambda q: None if q["case"] in gone or q["process"] else q
    )
    edit_lines(tmp_path / "memory.jsonl", lambda m: None if m["case"] in gone else m)
    text = write_report(tmp_path).read_text()
    assert f"Status: {status}" in text and "[!WARNING]" in text
    assert rows_of(text)["end to end"][1:] == ["n/a", "n/a"]


def test_a_run_without_a_single_record_has_a_report_without_figures(tmp_path):
    write_run(tmp_path, status="running", **SMALL)
    for name in ("samples.jsonl", "memory.jsonl"):
        (tmp_path / name).write_text("")
    (tmp_path / "gallery.npz").unlink()
    text = write_report(tmp_path).read_text()
    assert "![" not in text and "dual (reference)" in text


def test_a_gallery_that_was_cut_short_costs_the_gallery_only(tmp_path):
    write_run(tmp_path, **SMALL)
    whole = (tmp_path / "gallery.npz").read_bytes()
    (tmp_path / "gallery.npz").write_bytes(whole[: len(whole) // 2])
    text = write_report(tmp_path).read_text()
    assert "gallery.png" not in text and "stage_times.png" in text


def test_failed_queries_and_masks_that_were_not_kept_have_their_place_in_the_gallery(tmp_path):
    write_run(tmp_path, **SMALL)
    edit_lines(tmp_path / "samples.jsonl", lambda q: failed(q) if q["case"] == "sam" else q)
    edit_lines(
        tmp_path / "samples.jsonl", lambda q: q | {"mask_rle": None} if q["case"] == "clip" else q
    )
    assert "gallery.png" in write_report(tmp_path).read_text()


def test_older_and_newer_records_of_the_same_masks_have_the_same_gallery(tmp_path):
    write_report(write_run(tmp_path, **SMALL))
    newer = (tmp_path / "gallery.png").read_bytes()
    (tmp_path / "gallery.png").unlink()
    write_report(make_older(tmp_path))
    assert (tmp_path / "gallery.png").read_bytes() == newer


def test_names_cannot_break_a_table(tmp_path):
    write_run(tmp_path, cases=2, **SMALL)
    for name in ("run.json", "samples.jsonl", "memory.jsonl"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text.replace('"sam"', '"a|b <i> [/c]"'))
    write_report(tmp_path)
    summary = summarise(read_run(tmp_path))
    header = comparison_table(summary).splitlines()[0]
    assert header == "|  | dual (reference) | a\\|b &lt;i> [/c] |"
    assert "a|b <i>" in printed(terminal_table(summary, width=100), width=100)
    wide = " ".join(printed(terminal_table(summary, width=100), width=100).split())
    assert "[/c]" in wide


WIDTHS = [60, 72, 80, 120]
SHOW = "import pathlib; from lisabench.reports.run.terminal import print_table; print_table(pathlib.Path({!r}))"


def numbers_of(summary) -> list[str]:
    """What a terminal table must show at every width: quality and time of each case, and both differences."""
    found = [formatting.score(case.quality.gIoU) for case in summary.cases]
    found += [formatting.milliseconds(case.time.end_to_end_ms) for case in summary.cases]
    for comparison in summary.comparisons:
        points = comparison.gIoU_points
        found += [
            f"{points.difference:+.1f} [{points.low:+.1f}, {points.high:+.1f}]",
            quality_word(points),
        ]
        found += [
            formatting.ratio_with_interval(comparison.end_to_end),
            time_word(comparison.end_to_end),
        ]
    return found


def assert_whole(text: str, summary, width: int) -> None:
    """No line is too long, no number is cut, and every case has its name, which may go on in the next line."""
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in text
    for number in numbers_of(summary):
        assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.])", text), number
    first_column = "".join(
        re.findall(r"^ (\S+)", text, re.MULTILINE)
    )  # names in our runs have no spaces
    assert all(case.name in first_column for case in summary.cases)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("cases", [3, 8])
def test_the_terminal_table_is_whole_at_every_width(tmp_path, width, cases):
    summary = summarise(read_run(write_run(tmp_path, cases=cases, **SMALL)))
    assert_whole(printed(terminal_table(summary, width), width), summary, width)


def test_stages_are_left_out_first_and_quality_never(tmp_path):
    summary = summarise(read_run(write_run(tmp_path, **SMALL)))
    headings = {w: printed(terminal_table(summary, w), w).splitlines()[2:4] for w in (*WIDTHS, 40)}
    shown = {
        width: [
            name
            for name in ("gIoU", "time", "peak", "vision", "llm", "decoder")
            if name in " ".join(lines)
        ]
        for width, lines in headings.items()
    }
    assert shown[120] == ["gIoU", "time", "peak", "vision", "llm", "decoder"]
    assert shown[60] == ["gIoU", "time", "peak"]
    assert shown[40] == ["gIoU", "time"]
    for narrow, wide in pairwise(sorted(shown)):
        assert shown[narrow] == shown[wide][: len(shown[narrow])]


def test_random_weights_have_no_quality_in_the_terminal(tmp_path):
    summary = summarise(read_run(write_run(tmp_path, quality=False, **SMALL)))
    text = printed(terminal_table(summary, 80), 80)
    assert (
        text.count("n/a") == 3 + 1 and "points" not in text.split("n/a")[-1]
    )  # a case, and the caption


def test_a_pipe_and_a_terminal_of_any_width_show_the_table_whole(tmp_path):
    write_report(write_run(tmp_path, **SMALL))
    summary = summarise(read_run(tmp_path))
    show = SHOW.format(str(tmp_path))
    for width in (None, *WIDTHS):
        own = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        own |= {} if width is None else {"COLUMNS": str(width)}
        done = subprocess.run(
            [sys.executable, "-c", show], env=own, capture_output=True, text=True, check=True
        )
        assert_whole(done.stdout, summary, width or 120)
        assert ("decoder" in done.stdout) is (width in (None, 120))


def test_in_a_terminal_the_table_is_as_wide_as_it_allows(tmp_path):
    pty = pytest.importorskip("pty")
    write_report(write_run(tmp_path, **SMALL))
    show = SHOW.format(str(tmp_path))
    ours, theirs = pty.openpty()
    set_width(theirs, 60)
    own = {
        name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")
    } | {"TERM": "xterm"}
    subprocess.run([sys.executable, "-c", show], env=own, stdin=theirs, stdout=theirs, check=True)
    os.close(theirs)
    text = re.sub(r"\x1b\[[0-9;]*m", "", read_all(ours).replace("\r\n", "\n"))
    assert_whole(text, summarise(read_run(tmp_path)), 60)
    assert "decoder" not in text


def set_width(terminal: int, columns: int) -> None:
    import fcntl
    import struct
    import termios

    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))


def read_all(descriptor: int) -> str:
    """All that was written to the other end of a pseudo-terminal, which has been closed."""
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


def test_the_comparison_shows_the_metrics_that_the_suite_asks_for(tmp_path):
    write_run(tmp_path, **SMALL)
    edit_run(tmp_path, metrics=["mIoU", "precision_0.5"])
    summary = summarise(read_run(tmp_path))
    rows = rows_of(comparison_table(summary))
    assert "gIoU" not in rows
    assert rows["mIoU"][0] == f"{summary.cases[0].quality.mIoU:.3f}"
    assert rows["P@0.5"][0] == f"{summary.cases[0].quality.precision_05:.3f}"


def test_a_title_claims_a_difference_only_where_the_interval_excludes_1(tmp_path):
    write_run(tmp_path, cases=2, controls=False, **SMALL)

    def timed(line):
        latency_ns = 10_000_000 + (0 if line["case"] == "dual" else 300_000 * (line["process"] - 1))
        return line | {"latency_ns": latency_ns, "regions": {}, "unattributed_ns": 0}

    edit_lines(tmp_path / "samples.jsonl", timed)
    found = summarise(read_run(tmp_path)).comparisons
    assert verdict_words.time_clause(found[0]).startswith(
        "sam and dual cannot be told apart in time"
    )
    assert verdict_words.time_title(found) == "no variant can be told apart from dual in time"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "n/a"), (0.0, "0.00"), (0.001, "<0.01"), (0.456, "0.46"), (9.994, "9.99"), (9.996, "10.0"), (64.06, "64.1"),
     (99.96, "100"), (1234.5, "1,234")],
)  # fmt: skip
def test_times_have_three_digits(value, text):
    assert formatting.milliseconds(value) == text


def test_large_memory_is_shown_in_gib():
    unit = formatting.memory_unit([None, 15 << 30])
    assert unit.name == "GiB" and formatting.memory(15 << 30, unit) == "15.00"
    assert formatting.memory_unit([9 << 30]).name == "MiB"


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"run\.json"):
        write_report(tmp_path)


def test_reports_import_neither_torch_nor_pyplot(tmp_path):
    write_run(tmp_path, **SMALL)
    program = (
        "import sys; from pathlib import Path; from lisabench.reports.run.page import write_report;"
        "write_report(Path(sys.argv[1]));"
        "print([name for name in ('torch', 'transformers', 'matplotlib.pyplot') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_drawing_leaves_matplotlibs_settings_as_they_were(tmp_path):
    with matplotlib.rc_context({"font.size": 3, "axes.titlelocation": "right"}):
        before = dict(matplotlib.rcParams)
        write_report(write_run(tmp_path, **SMALL))
        assert dict(matplotlib.rcParams) == before


def test_the_same_records_make_the_same_summary(tmp_path):
    write_report(write_run(tmp_path, **SMALL))
    first = (tmp_path / "summary.json").read_text()
    write_report(tmp_path)
    assert (tmp_path / "summary.json").read_text() == first
    assert json.loads(first)["suite"] == "tiny"


def test_a_case_without_times_or_memory_keeps_its_place_in_the_figures(tmp_path):
    write_run(tmp_path, **SMALL)
    for name in ("samples.jsonl", "memory.jsonl"):
        edit_lines(tmp_path / name, lambda line: None if line["case"] == "sam" else line)
    summary = summarise(read_run(tmp_path))
    for figure, instead in (
        (stage_times(summary), "no times"),
        (peak_memory(summary), "not measured"),
    ):
        assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
            "dual",
            "sam",
            "clip",
        ]
        assert texts(figure).count(instead) == 1


def test_the_title_of_the_memory_names_the_peak_that_differs_most(tmp_path):
    write_run(tmp_path, **SMALL)
    peaks_mib = {"dual": 700, "sam": 690, "clip": 1400}
    edit_lines(
        tmp_path / "memory.jsonl", lambda line: line | {"peak_bytes": peaks_mib[line["case"]] << 20}
    )
    figure = peak_memory(summarise(read_run(tmp_path)))
    assert "the memory of clip grows by 3.06x that of dual" in texts(figure)


def test_the_figure_of_times_says_that_its_labels_are_no_sums(tmp_path):
    found = texts(stage_times(summarise(read_run(write_run(tmp_path, **SMALL)))))
    assert any(text.startswith("bars: stage medians; label: median end to end") for text in found)


def test_teams_have_a_panel_a_bullet_and_a_table_of_differences_each(tmp_path):
    write_run(tmp_path, cases=4, **SMALL)
    one = {"name": "small ones", "reference": "sam", "cases": ["dual", "sam"]}
    edit_run(
        tmp_path,
        teams=[one, {"name": "others", "reference": "clip", "cases": ["clip", "dual-nf4"]}],
    )
    text = write_report(tmp_path).read_text()
    summary = summarise(read_run(tmp_path))
    for figure in (stage_times(summary), peak_memory(summary)):
        assert len(figure.axes) == 2 and {"small ones", "others"} <= set(texts(figure))
    assert "4 cases in 2 groups" in text and "- **small ones**, against `sam`: `dual` time " in text
    differ = text.split("## What differs")[1].split("## How")[0]
    assert (
        "### small ones" in differ
        and "| setting | sam | dual |" in differ
        and "| setting | clip | dual-nf4 |" in differ
    )
    assert "the reference of its group" in verdict_words.time_title(summary.comparisons)


def test_a_bar_that_is_longer_than_the_median_end_to_end_is_not_cut_off(tmp_path):
    write_run(tmp_path, cases=1, **SMALL)
    edit_lines(
        tmp_path / "samples.jsonl", lambda line: line | {"latency_ns": line["latency_ns"] // 2}
    )
    (axes,) = stage_times(summarise(read_run(tmp_path))).axes
    assert max(bar.get_x() + bar.get_width() for bar in axes.patches) <= axes.get_xlim()[1]
