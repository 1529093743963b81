"""The page of a run, as a browser shows it."""

import json

import numpy as np
import pytest
from browser import IS_MISSING, browser
from places import RESULTS
from pycocotools import mask as coco
from run_factory import Scene, edit_lines, edit_run, failed, make_older, write_run
from waiting import until

from lisabench.harness.records.run import read_run
from lisabench.reports.html.page import PAGE, html, write_html
from lisabench.reports.run.summary import summarise
from lisabench.reports.run_report import write_report

pytestmark = [
    pytest.mark.no_clock,
    pytest.mark.skipif(IS_MISSING, reason="Chromium and ChromeDriver are not installed"),
]

SMALL = {"queries": 12, "size": (60, 80), "controls": False, "gallery": 4}
# The texts of the table's cells, row by row.
ROWS = (
    "return [...document.querySelectorAll('#queries tbody tr')]"
    ".map(row => [...row.cells].map(cell => cell.textContent))"
)
SELECTED = "return document.querySelector('tr[aria-selected=true]')?.cells[0].textContent"
PRESSED = (
    "return [...document.querySelectorAll('#tabs [aria-pressed=true]')].map(tab => tab.textContent)"
)
# Wait until the canvas shows what was chosen: images are decoded beside the script.
DRAWN = """
return (async () => {
  const canvas = document.getElementById("canvas");
  const chosen = () => [state.query.id, state.picture, state.errors, state.maskHidden].join(" ");
  while (canvas.dataset.drawn !== chosen()) await new Promise(requestAnimationFrame);
  const context = canvas.getContext("2d");
  return [...context.getImageData(0, 0, canvas.width, canvas.height).data];
})()
"""
HOSTILE = (
    "<img src=x onerror=alert(1)> & </script><script>alert(2)</script>",
    "\"'><svg/onload=alert(3)> {{ 7*7 }} ${alert(4)} `x` </style>",
    "\u202eright to left\u202c \u05e9\u05dc\u05d5\u05dd \x1b[2J \U0001f600 a|b $x$ </title>",
)


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("browser")) as window:
        window.resize(1280, 1000)
        yield window


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run in which clip failed the second query."""
    folder = write_run(tmp_path_factory.mktemp("run"), **SMALL)

    def with_a_failure(line):
        is_it = line["case"] == "clip" and line["sample_id"] == "scene-0001"
        return failed(line) if is_it else line

    edit_lines(folder / "samples.jsonl", with_a_failure)
    write_report(folder)
    return folder


def canvas(window) -> np.ndarray:
    """Return what the canvas shows, once it is what was chosen: uint8 [h, w, 3]."""
    pixels = window.script(DRAWN)
    height, width = window.script("return state.query.size")
    return np.array(pixels, np.uint8).reshape(height, width, 4)[..., :3]


def fragment(window) -> str:
    return window.script("return location.hash")


def test_the_page_requests_nothing_and_logs_no_error(window, run):
    window.open(run / PAGE)
    canvas(window)
    window.press("j", "e", "2", "0", "i", "ArrowRight", "/", "disc", "Escape")
    window.click("#theme")
    canvas(window)
    assert window.requests() == [(run / PAGE).resolve().as_uri()]
    assert window.console() == []


def test_what_is_requested_and_what_breaks_is_seen_by_these_tests(window, run, tmp_path):
    page = tmp_path / "planted.html"
    text = (run / PAGE).read_text()
    page.write_text(text.replace("<main>", '<main><img src="other.png"><script>boom()</script>'))
    window.open(page)
    messages = " ".join(window.console())
    assert "other.png" in messages and "violates" in messages
    page.write_text('<img src="other.png"><script>boom()</script>')
    window.open(page)
    assert any("other.png" in address for address in window.requests())
    assert "boom is not defined" in " ".join(window.console())


def test_a_click_on_a_heading_sorts_and_another_turns_the_order_round(window, run):
    window.open(run / PAGE)
    headings = [cell.strip() for cell in window.script(ROWS.replace("tbody", "thead"))[0]]
    differences = ["sam \u2212 dual", "clip \u2212 dual"]
    assert headings == ["query", "area %", "dual", "sam", "clip", *differences]
    column = headings.index("clip")
    scores = [float(row[column]) for row in window.script(ROWS)]
    assert len(scores) == 12 and scores != sorted(scores)
    window.click("#queries th button", "clip")
    assert [float(row[column]) for row in window.script(ROWS)] == sorted(scores)
    window.click("#queries th button", "clip \u25b2")
    assert [float(row[column]) for row in window.script(ROWS)] == sorted(scores, reverse=True)
    window.click("#queries th button", "query")
    texts = [row[0] for row in window.script(ROWS)]
    assert texts == sorted(texts, key=str.casefold)


def focus_filter(window):
    """Press / until the filter has the focus: of a page that was just opened, a key may be lost."""
    focused = "return document.activeElement.id === 'filter'"
    until(lambda: window.script(focused) or window.press("/"))
    window.script("document.getElementById('filter').select()")


def test_a_filter_takes_words_and_tags(window, run):
    window.open(run / PAGE)
    focus_filter(window)
    window.press("Blue THING")
    rows = window.script(ROWS)
    assert len(rows) == 2 and {row[0] for row in rows} == {
        "the thing to the left of the blue square"
    }
    assert window.script("return document.getElementById('count').textContent").startswith(
        "2 of 12 queries. Mean IoU over them: dual"
    )
    window.script("document.getElementById('filter').select()")
    window.press("family:odd_one_out size:large")
    assert [row[0] for row in window.script(ROWS)] == ["the one that is unlike all the others"] * 2
    window.script("document.getElementById('filter').select()")
    window.press("nothing:here")
    assert window.script(ROWS) == []
    window.script("document.getElementById('filter').select()")
    window.press(" ")
    assert len(window.script(ROWS)) == 12


def test_buttons_show_the_queries_that_failed_or_have_no_target(window, run):
    window.open(run / PAGE)
    window.click("#chips button", "failed")
    assert [row[0] for row in window.script(ROWS)] == ["the thing to the left of the blue square"]
    assert "oom" not in window.script("return document.getElementById('info').textContent")
    window.press("3")
    assert "clip: oom" in window.script("return document.getElementById('info').textContent")
    window.click("#chips button", "no target")
    assert [row[1] for row in window.script(ROWS)] == ["0.0"]
    window.click("#chips button", "all")
    assert len(window.script(ROWS)) == 12


def test_keys_choose_queries_and_pictures(window, run):
    window.open(run / PAGE)
    texts = [row[0] for row in window.script(ROWS)]
    assert window.script(SELECTED) == texts[0] and "1 dual" in window.script(PRESSED)[0]
    window.press("j", "ArrowDown", "k")
    assert window.script(SELECTED) == texts[1]
    window.press("ArrowUp", "k", "k")
    assert window.script(SELECTED) == texts[0]
    for key, label in (("3", "3 clip"), ("0", "0 target"), ("i", "i image"), ("2", "2 sam")):
        window.press(key)
        assert window.script(PRESSED)[0].startswith(label)
    window.press("ArrowRight", "ArrowRight")  # beyond the last one to the first
    assert window.script(PRESSED) == ["i image"]
    window.press("ArrowLeft", "e")
    assert window.script(PRESSED)[1:] == ["e errors"]
    window.press("9", "x")  # there is no ninth case, and x means nothing
    assert window.script(PRESSED)[0].startswith("3 clip")


def test_masks_are_drawn_as_they_were_kept(window, run):
    window.open(run / PAGE)
    case = next(case for case in read_run(run).cases if case.name == "clip")
    mask_HW = coco.decode(case.scored[0].mask_rle) > 0
    target_HW = Scene(0, SMALL["size"], 0).target_HW == 1
    height, width = window.script("return state.query.size")
    kept = window.script("return [...pixels(state.query.answers[2].mask, ...state.query.size)]")
    assert np.array_equal(np.reshape(kept, (height, width)) > 0, mask_HW)

    window.press("i")
    image = canvas(window).astype(float)
    window.press("3", "e")
    errors = canvas(window).astype(float)
    inner = target_HW.copy()  # without the outline, which is white
    for axis in (0, 1):
        for by in (1, -1):
            inner &= np.roll(target_HW, by, axis)
    for where, colour, strength in (
        (inner & mask_HW, (0, 158, 115), 0.55),
        (mask_HW & ~target_HW, (224, 33, 138), 0.75),
        (inner & ~mask_HW, (240, 228, 66), 0.8),
        (~mask_HW & ~target_HW, (128, 128, 128), 0.45),
    ):
        expected = image * (1 - strength) + np.array(colour) * strength
        assert where.any() and np.abs(errors - expected)[where].max() <= 1
    window.press(" ")
    assert np.array_equal(canvas(window), image)


def test_an_address_shows_the_same_view_again(window, run):
    window.open(run / PAGE)
    window.press("j", "j", "3", "e")
    address = fragment(window)
    assert address == "#query=scene-0002&case=clip&errors=1"
    link = window.script("return document.getElementById('permalink').getAttribute('href')")
    assert link == address
    shown = canvas(window)
    window.open(run / PAGE, address)
    assert "3 clip" in window.script(PRESSED)[0] and window.script(PRESSED)[1] == "e errors"
    assert np.array_equal(canvas(window), shown)
    # An address that is changed by hand is followed, too, and takes a filter away that hides it.
    focus_filter(window)
    window.press("disc", "Escape")
    window.script("location.hash = '#query=scene-0004&show=target'")
    window.script("return new Promise(done => setTimeout(done))")
    assert window.script(SELECTED) == "everything that is not green"
    assert window.script(PRESSED) == ["0 target"]
    window.open(run / PAGE, "#query=gone&case=nobody")
    assert window.script(SELECTED) == "the small red disc"


def test_what_was_not_kept_is_said(window, run):
    window.open(run / PAGE, "#query=scene-0011&case=sam")
    canvas(window)
    legend = "return document.getElementById('legend').textContent"
    assert window.script(legend) == "The image was not kept. The mask was not kept."
    window.press("0")
    assert window.script(legend) == "The image was not kept. The target was not kept."
    # No scene has pixels that are not counted, as ReasonSeg has.
    window.script("state.query = {...state.query, target: '4', ignored: '4'}; showLegend()")
    assert window.script(legend) == "The image was not kept. striped: not counted"
    assert window.console() == []


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_text_from_data_becomes_markup(window, tmp_path, hostile):
    folder = write_run(tmp_path, status="failed", **SMALL)
    manifest = json.loads((folder / "run.json").read_text())
    renamed = json.loads(json.dumps(manifest).replace('"sam"', json.dumps(hostile)))
    renamed["cases"][2]["error"] = hostile
    data = manifest["data"] | {"description": hostile}
    edit_run(folder, **renamed | {"title": hostile, "data": data, "warnings": [hostile]})

    def changed(line):
        line = line | {"case": hostile if line["case"] == "sam" else line["case"]}
        if "query" not in line:
            return line
        line |= {"query": hostile, "tags": {hostile: hostile}, "text": hostile}
        line["sample_id"] += hostile
        return failed(line, "error", hostile) if line["position"] == 3 else line

    for name in ("samples.jsonl", "memory.jsonl"):
        edit_lines(folder / name, changed)
    edit_run(folder, gallery=[f"{name}{hostile}" for name in manifest["gallery"]])
    run = read_run(folder)
    page = write_html(run, summarise(run))
    window.open(page)
    canvas(window)
    window.press("2", "j", "j", "j", "e")
    window.open(page, fragment(window))
    canvas(window)
    assert window.script("return state.query.id") == f"scene-0003{hostile}"
    assert window.console() == [] and len(window.requests()) == 1
    assert window.script("return document.querySelectorAll('img, script, style').length") == 3
    begins = hostile.split("\x1b")[0].replace("\u202e", "\\u202e").replace("\u202c", "\\u202c")
    for place in ("h1", "#query", "#queries tbody td", ".warnings"):
        shown = window.script(f"return document.querySelector('{place}').textContent")
        assert begins.replace("`", "").strip() in shown.replace("`", "")
    assert "49" not in window.script("return document.querySelector('h1').textContent")


def test_random_weights_have_times_and_no_quality(window, tmp_path):
    folder = write_run(tmp_path, quality=False, **SMALL)
    write_report(folder)
    window.open(folder / PAGE)
    headings = [cell.strip() for cell in window.script(ROWS.replace("tbody", "thead"))[0]]
    assert headings == ["query", "area %", "dual ms", "sam ms", "clip ms"]
    text = window.script("return document.querySelector('main').textContent")
    assert "Random weights have no quality" in text and "Cost against quality" not in text
    assert window.script("return document.querySelectorAll('.tradeoff').length") == 0
    canvas(window)
    assert window.console() == []


@pytest.mark.parametrize(
    "options",
    [{"cases": 1}, {"cases": 5}, {"processes": 1}, {"gallery": 0}, {"clock": "cuda events"}],
    ids=str,
)
def test_the_page_of_any_run_opens(window, tmp_path, options):
    write_report(write_run(tmp_path, **SMALL | options))
    window.open(tmp_path / PAGE)
    canvas(window)
    assert len(window.script(ROWS)) == 12 and window.console() == []


def test_a_run_without_any_answer_has_a_page(window, tmp_path):
    write_run(tmp_path, status="running", **SMALL)
    for name in ("samples.jsonl", "memory.jsonl"):
        (tmp_path / name).write_text("")
    write_report(tmp_path)
    window.open(tmp_path / PAGE)
    text = window.script("return document.querySelector('main').textContent")
    assert "No query has been evaluated." in text
    assert text.count("The run was stopped") == 1 and "not finished" not in text
    assert window.console() == []


def test_the_gravest_two_warnings_are_shown_and_the_others_folded(window, tmp_path):
    folder = write_run(tmp_path, **SMALL)
    edit_run(folder, warnings=["first cause: `fix it`", "second", "third", "fourth"])
    run = read_run(folder)
    window.open(write_html(run, summarise(run)))
    visible = "return document.querySelector('.warnings').innerText"
    shown = window.script(visible)
    assert "first cause: fix it" in shown and "second" in shown and "2 more warnings" in shown
    assert "third" not in shown
    assert window.script("return document.querySelector('.warnings code').textContent") == "fix it"
    window.click(".warnings summary")
    assert "third" in window.script(visible) and "fourth" in window.script(visible)


def test_a_run_whose_queries_all_failed_has_a_page(window, tmp_path):
    write_run(tmp_path, status="failed", **SMALL)
    edit_lines(tmp_path / "samples.jsonl", failed)
    write_report(tmp_path)
    window.open(tmp_path / PAGE)
    canvas(window)
    assert len(window.script(ROWS)) == 12 and window.console() == []


def test_older_records_have_the_same_page(tmp_path):
    folder = write_run(tmp_path, **SMALL)
    run = read_run(folder)
    newer = html(run, summarise(run))
    older = read_run(make_older(folder))
    assert html(older, summarise(older)) == newer


def test_a_long_table_gets_its_rows_when_they_are_seen(window, tmp_path):
    folder = write_run(tmp_path, **SMALL | {"queries": 250, "processes": 1, "gallery": 0})
    run = read_run(folder)
    window.open(write_html(run, summarise(run)))
    assert 100 <= len(window.script(ROWS)) < 250
    assert "250 of 250 queries" in window.script(
        "return document.getElementById('count').textContent"
    )
    for _ in range(5):
        window.script("const box = document.querySelector('.queries'); box.scrollTop = 1e6")
        window.script("return new Promise(done => setTimeout(done, 50))")
    assert len(window.script(ROWS)) == 250
    window.open(folder / PAGE, "#query=scene-0249&case=dual")
    assert window.script("return state.query.id") == "scene-0249"
    assert window.script(SELECTED) == window.script("return state.query.text")


def test_a_phone_needs_no_scrolling_sideways(window, run):
    window.resize(390, 844)
    try:
        window.open(run / PAGE)
        canvas(window)
        overflow = "return document.documentElement.scrollWidth - innerWidth"
        assert window.script(overflow) <= 0
    finally:
        window.resize(1280, 1000)


# Of each table: whether each column's heading begins where its cells in the first row begin or end.
ALIGNED = """
return [...document.querySelectorAll('table')].filter(table => table.offsetParent).map(table => {
  const [head, body] = [table.tHead, table.tBodies[0]].map(part => [...part.rows[0].cells]);
  return head.length === body.length && head.every((heading, column) => {
    const [above, below] = [heading, body[column]].map(cell => cell.getBoundingClientRect());
    return above.left === below.left && above.right === below.right && above.bottom <= below.top;
  });
})
"""


@pytest.mark.parametrize("folder", ["cards-7b", "training-7b", "claims"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_heading_of_a_table_stands_above_its_column(window, tmp_path, folder, width):
    run = read_run(RESULTS / folder)
    page = tmp_path / PAGE
    page.write_text(html(run, summarise(run)), encoding="utf-8")
    window.resize(width, 1000)
    window.open(page)
    aligned = window.script(ALIGNED)
    window.resize(1280, 1000)
    assert len(aligned) >= 2 and all(aligned)
