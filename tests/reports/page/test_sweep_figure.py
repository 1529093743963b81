"""The figure of a sweep: time, memory and energy over a number that cases differ in."""

import json

import numpy as np
import pytest
from matplotlib.image import imread
from matplotlib.text import Text
from run_factory import edit_lines, edit_run, write_run
from scipy import stats

from lisabench.harness.records.run import read_run
from lisabench.reports.drawing import REPORT_SHEET, column, style
from lisabench.reports.page.sweep import sweep_of
from lisabench.reports.page.sweep_figure import FILE, message, sweep_figure
from lisabench.reports.run.summary import summarise
from lisabench.reports.run_report import write_report

pytestmark = pytest.mark.no_clock

SMALL = {"queries": 16, "size": (24, 32), "gallery": 0, "controls": False}
# In the order of the factory's cases: name, settings, by how much its time per query is shorter.
BATCHES = (
    ("dual-batch1", {"vision": "dual", "batch": 1}, 1.0),
    ("dual-batch4", {"vision": "dual", "batch": 4}, 2.0),
    ("dual-batch8", {"vision": "dual", "batch": 8}, 3.0),
    ("clip-batch1", {"vision": "clip", "batch": 1}, 4.0),
    ("clip-batch8", {"vision": "clip", "batch": 8}, 16.0),
    ("upstream", {"vision": "dual", "execution": "upstream", "batch": 1}, 0.5),
)


def swept_run(folder, cases=BATCHES, scenario="throughput", energy_mj=None, processes=3):
    """A run of cases with these settings, whose times are those of one profile divided."""
    write_run(folder, cases=len(cases), processes=processes, clock="cuda events", **SMALL)
    content = json.loads((folder / "run.json").read_text())
    settings = content["cases"][0]["settings"]
    given = {}
    for entry, (name, own, faster) in zip(content["cases"], cases, strict=True):
        given[entry["name"]] = (name, own.get("batch", 1), faster)
        entry |= {"name": name, "settings": settings | own, "batch": own.get("batch", 1)}
    plan = content["plan"] | {"scenario": scenario}
    edit_run(folder, cases=content["cases"], plan=plan, reference=cases[0][0])

    def renamed(line):
        name, batch, faster = given[line["case"]]
        line |= {"case": name, "batch": batch, "energy_mj": energy_mj}
        if "latency_ns" in line:
            line["latency_ns"] = int(5e7 / faster * (1 + 0.01 * line["process"]))
            if scenario == "throughput":
                line["data_wait_ns"] = 0
        return line

    edit_lines(folder / "samples.jsonl", renamed)
    edit_lines(folder / "memory.jsonl", renamed)
    return folder


def summary_of(folder):
    return summarise(read_run(folder))


@pytest.fixture(scope="module")
def throughput(tmp_path_factory):
    return swept_run(tmp_path_factory.mktemp("runs") / "throughput", energy_mj=2e4)


def points(figure, panel):
    """The values of each line of a panel by their place on the x axis, by the line's name."""
    lines = {}
    for container in figure.axes[panel].containers:
        data = container.lines[0]
        lines[container.get_label()] = dict(zip(data.get_xdata(), data.get_ydata(), strict=True))
    return lines


def labels(figure):
    return [axes.get_ylabel() for axes in figure.axes]


def test_cases_that_differ_only_in_the_batch_are_one_line_and_a_control_is_a_point(throughput):
    sweep = sweep_of(summary_of(throughput))
    assert sweep.setting == "batch"
    assert sweep.values == [1, 4, 8]
    assert [(line.name, [*line.cases]) for line in sweep.lines] == [
        ("dual", [1, 4, 8]),
        ("clip", [1, 8]),
        ("upstream", [1]),
    ]


def test_the_figure_has_queries_per_second_memory_and_energy_of_every_case(throughput):
    summary = summary_of(throughput)
    figure = sweep_figure(summary, sweep_of(summary))
    assert labels(figure) == [
        "queries per second",
        "latency of a batch (ms)",
        "peak memory (MiB)",
        "energy per query (joules)",
    ]
    # The geometric mean of 50.0, 50.5 and 51.0 ms, the times of the three processes.
    second = 1000 / (50.0 * 50.5 * 51.0) ** (1 / 3)
    rates, _, memory, energy = (points(figure, panel) for panel in range(4))
    assert rates["dual"] == pytest.approx({1: second, 4: 2 * second, 8: 3 * second}, rel=1e-6)
    assert rates["clip"] == pytest.approx({1: 4 * second, 8: 16 * second}, rel=1e-6)
    assert rates["upstream"] == pytest.approx({1: second / 2}, rel=1e-6)
    assert [*memory["dual"]] == [1, 4, 8]
    assert energy["clip"] == pytest.approx({1: 20.0, 8: 20.0})


def test_the_latency_of_a_batch_is_the_time_of_all_its_queries_with_its_interval(throughput):
    summary = summary_of(throughput)
    figure = sweep_figure(summary, sweep_of(summary))
    share_ms = (50.0 * 50.5 * 51.0) ** (1 / 3)
    latencies = points(figure, 1)
    assert latencies["dual"] == pytest.approx(
        {1: share_ms, 4: 4 * share_ms / 2, 8: 8 * share_ms / 3}, rel=1e-6
    )
    dual = next(c for c in figure.axes[1].containers if c.get_label() == "dual")
    (bars,) = dual.lines[2]
    (_, low), (_, high) = bars.get_segments()[2]
    time = summary.cases[2].time.end_to_end_over_processes
    assert (low, high) == pytest.approx((8 * time.low, 8 * time.high))


def test_the_intervals_are_those_of_the_summary(throughput):
    summary = summary_of(throughput)
    figure = sweep_figure(summary, sweep_of(summary))
    dual = next(c for c in figure.axes[0].containers if c.get_label() == "dual")
    (bars,) = dual.lines[2]
    (_, low), (_, high) = bars.get_segments()[0]
    time = summary.cases[0].time.end_to_end_over_processes
    assert (low, high) == pytest.approx((1000 / time.high, 1000 / time.low))
    assert low < 1000 / time.value < high
    assert "bars: 95 % intervals over 3 processes" in texts(figure)


def test_the_energy_has_an_interval_over_the_means_of_the_processes(tmp_path):
    folder = swept_run(tmp_path, energy_mj=2e4)

    def more_in_each_process(line):
        if "energy_mj" in line:
            line["energy_mj"] = 2e4 * (1 + 0.1 * line["process"])
        return line

    edit_lines(folder / "samples.jsonl", more_in_each_process)
    summary = summary_of(folder)
    axes = sweep_figure(summary, sweep_of(summary)).axes[-1]
    logs = np.log([20.0, 22.0, 24.0])
    arm = stats.t.ppf(0.975, 2) * np.std(logs, ddof=1) / np.sqrt(3)
    dual = next(c for c in axes.containers if c.get_label() == "dual")
    (bars,) = dual.lines[2]
    (_, low), (_, high) = bars.get_segments()[0]
    assert dual.lines[0].get_ydata()[0] == pytest.approx(np.exp(np.mean(logs)))
    assert (low, high) == pytest.approx((np.exp(np.mean(logs) - arm), np.exp(np.mean(logs) + arm)))


def texts(figure):
    return " ".join(text.get_text() for text in figure.findobj(Text))


def test_the_values_of_the_batch_are_the_ticks_of_a_logarithmic_axis(throughput):
    summary = summary_of(throughput)
    axes = sweep_figure(summary, sweep_of(summary)).axes[0]
    assert axes.get_xscale() == "log"
    assert [*axes.get_xticks()] == [1, 4, 8]
    assert axes.get_ylim()[0] == 0


def test_the_title_names_the_largest_throughput_with_its_ratio(throughput):
    summary = summary_of(throughput)
    title = message(summary, sweep_of(summary))
    assert title == "clip-batch8: 317 queries per second, 16.00x that of dual-batch1"


def test_the_report_shows_the_figure_at_readme_width(throughput):
    text = write_report(throughput).read_text()
    assert f"]({FILE})" in text
    assert imread(throughput / FILE).shape[1] == 1500


def test_latency_over_a_setting_is_drawn_as_the_time_of_a_query(tmp_path):
    cases = (
        ("clip", {"vision": "clip", "clip_px": 224, "image_tokens": 256}, 2.0),
        ("clip-fine", {"vision": "clip", "clip_px": 336, "image_tokens": 576}, 1.0),
    )
    summary = summary_of(swept_run(tmp_path, cases, scenario="latency", processes=1))
    sweep = sweep_of(summary)
    assert (sweep.setting, sweep.values) == ("clip_px", [224, 336])
    assert [line.name for line in sweep.lines] == ["clip"]
    figure = sweep_figure(summary, sweep)
    assert labels(figure) == [
        "time of a query (milliseconds)",
        "stages (ms)",
        "peak memory (MiB)",
    ]
    assert points(figure, 0)["clip"] == pytest.approx({224: 25.0, 336: 50.0})
    assert message(summary, sweep) == "clip: 25.0 ms a query at clip_px 224, 50.0 ms at 336"
    assert "one process each, so no intervals" in texts(figure)


RESOLUTIONS = (
    ("dual-clip_px224", {"vision": "dual", "clip_px": 224, "image_tokens": 256}, 2.0),
    ("dual-clip_px336", {"vision": "dual", "clip_px": 336, "image_tokens": 576}, 1.0),
    ("clip-clip_px224", {"vision": "clip", "clip_px": 224, "image_tokens": 256}, 4.0),
    ("clip-clip_px336", {"vision": "clip", "clip_px": 336, "image_tokens": 576}, 3.0),
)


def test_each_line_of_latency_has_a_panel_with_the_stages_of_its_cases_on_one_scale(tmp_path):
    summary = summary_of(swept_run(tmp_path, RESOLUTIONS, scenario="latency"))
    figure = sweep_figure(summary, sweep_of(summary))
    panels = [axes for axes in figure.axes if axes.get_ylabel() == "stages (ms)"]
    assert [axes.get_title(loc="left") for axes in panels] == ["dual", "clip"]
    assert len({axes.get_ylim() for axes in panels}) == 1
    cases = {case.name: case for case in summary.cases}
    for axes, line in zip(panels, ("dual", "clip"), strict=True):
        bars = [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in axes.patches]
        expected = []
        for place, px in enumerate((224, 336)):
            for stage in cases[f"{line}-clip_px{px}"].time.stages.values():
                expected.append((pytest.approx(place), pytest.approx(stage.median_ms)))
        assert bars == expected
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["224", "336"]
    assert set(labels(figure)) >= {"time of a query (milliseconds)", "peak memory (MiB)"}


def test_numbers_stand_only_in_the_parts_of_bars_that_have_room_for_them(tmp_path):
    def halves_of_a_query(line):
        if "regions" in line:
            whole_ns = line["latency_ns"]
            for stage, share in (("vision", 0.5), ("llm", 0.49)):
                own = {"calls": 1, "exclusive_ns": int(share * whole_ns)}
                line["regions"][stage] = own | {"inclusive_ns": int(share * whole_ns)}
        return line

    folder = swept_run(tmp_path, RESOLUTIONS, scenario="latency")
    edit_lines(folder / "samples.jsonl", halves_of_a_query)
    summary = summary_of(folder)
    for sheet in (REPORT_SHEET, column(3.5)):
        with style(sheet):
            figure = sweep_figure(summary, sweep_of(summary), sheet)
            figure.draw_without_rendering()
        for axes in figure.axes:
            parts = [bar.get_window_extent() for bar in axes.patches]
            for number in axes.texts:
                box = number.get_window_extent()
                assert any(
                    part.x0 <= box.x0 and box.x1 <= part.x1 and part.height >= box.height
                    for part in parts
                )


@pytest.mark.parametrize("width_in", [2.5, 3.5, 10])
@pytest.mark.parametrize("scenario", ["latency", "throughput"])
def test_no_label_reaches_out_of_the_figure_or_into_another_panel(tmp_path, width_in, scenario):
    cases = RESOLUTIONS if scenario == "latency" else BATCHES
    summary = summary_of(swept_run(tmp_path, cases, scenario, energy_mj=2e4))
    sheet = REPORT_SHEET if width_in == 10 else column(width_in)
    with style(sheet):
        figure = sweep_figure(summary, sweep_of(summary), sheet)
        figure.draw_without_rendering()
    boxes = []
    for axes in figure.axes:
        texts_of_axes = [axes.xaxis.label, axes.yaxis.label]
        boxes += [text.get_window_extent() for text in texts_of_axes]
    inside = figure.bbox
    for box in boxes:
        assert box.x0 >= inside.x0 and box.x1 <= inside.x1
        assert box.y0 >= inside.y0 and box.y1 <= inside.y1
    for place, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:place])


def test_a_line_that_is_named_from_outside_is_no_formula_and_is_cut_over_its_panel(tmp_path):
    cases = []
    for name, own, faster in RESOLUTIONS[:2]:
        cases.append((name.replace("dual", "$x$_" + 80 * "w"), own, faster))
    summary = summary_of(swept_run(tmp_path, cases, scenario="latency"))
    with style():
        figure = sweep_figure(summary, sweep_of(summary))
        figure.draw_without_rendering()
    title = figure.axes[1].get_title(loc="left")
    assert title.startswith("$x$_www") and len(title) == 30


def test_two_swept_numbers_have_a_line_for_each_value_of_the_one_that_is_not_the_batch(tmp_path):
    cases = []
    for px in (224, 336):
        for batch in (1, 2):
            name = f"clip-batch{batch}-clip_px{px}"
            cases.append((name, {"clip_px": px, "batch": batch}, 1.0))
    sweep = sweep_of(summary_of(swept_run(tmp_path, cases)))
    assert sweep.setting == "batch"
    assert {line.name: [*line.cases] for line in sweep.lines} == {
        "clip-clip_px224": [1, 2],
        "clip-clip_px336": [1, 2],
    }


def test_a_case_that_is_measured_twice_has_two_lines(tmp_path):
    cases = []
    for base in ("dual", "dual-again"):
        for batch in (1, 2):
            cases.append((f"{base}-batch{batch}", {"batch": batch}, 1.0))
    cases.append(("control", {"batch": 1}, 1.0))
    sweep = sweep_of(summary_of(swept_run(tmp_path, cases)))
    assert {line.name: [*line.cases] for line in sweep.lines} == {
        "dual": [1, 2],
        "dual-again": [1, 2],
        "control": [1],
    }


@pytest.mark.parametrize(
    "differing",
    [
        ({"seed": 1}, {"seed": 2}),
        ({"reuse": True}, {"reuse": False}),
        ({"vision": "dual", "clip_px": 112}, {"vision": "clip", "clip_px": 224}),
        ({"clip_px": 112}, {"clip_px": 112}),
    ],
)
def test_there_is_no_figure_where_no_quantity_differs_alone(tmp_path, differing):
    cases = [(f"case{place}", own, 1.0) for place, own in enumerate(differing)]
    folder = swept_run(tmp_path, cases)
    assert sweep_of(summary_of(folder)) is None
    assert FILE not in write_report(folder).read_text()
    assert not (folder / FILE).exists()


def test_a_case_without_times_is_left_out(tmp_path):
    folder = swept_run(tmp_path)
    edit_lines(
        folder / "samples.jsonl",
        lambda line: None if line["case"] == "dual-batch8" else line,
    )
    summary = summary_of(folder)
    assert [*sweep_of(summary).lines[0].cases] == [1, 4]
    sweep_figure(summary, sweep_of(summary))


def test_an_interval_that_is_much_wider_than_the_values_is_cut_and_the_figure_says_so(tmp_path):
    folder = swept_run(tmp_path, processes=2)

    def one_process_ten_times_slower(line):
        if line["case"] == "upstream" and line["process"] == 1:
            line["latency_ns"] *= 10
        return line

    edit_lines(folder / "samples.jsonl", one_process_ten_times_slower)
    summary = summary_of(folder)
    (upstream,) = [case for case in summary.cases if case.name == "upstream"]
    assert upstream.time.queries_per_second_over_processes.high > 1e6
    figure = sweep_figure(summary, sweep_of(summary))
    fastest = max(max(values.values()) for values in points(figure, 0).values())
    assert figure.axes[0].get_ylim()[1] == pytest.approx(2 * fastest, rel=0.2)
    (subtitle,) = [text.get_text() for text in figure.texts if "a line" in text.get_text()]
    assert "over 2 processes, cut at" in subtitle
