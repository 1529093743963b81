"""Figures that README and LOG quote from published runs, each computed again from the records.

To add a sentence, add a line to `SENTENCES`: the document, its words with {} in the place of each figure, and how the
figures are computed. It fails when the document's number changes, and when the records or their evaluation do.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import published
import pytest
from published import (
    LOOKS,
    ROOT,
    change_ms,
    claim,
    claimed,
    gate,
    gate_noise,
    memory_gib,
    memory_share,
    peak_gib,
    saved_ms,
    time_of,
    vision_peak,
)
from scipy import stats

pytestmark = pytest.mark.no_clock

README, LOG = "README.md", "reports/LOG.md"


@dataclass(frozen=True)
class Sentence:
    """Words of a document, with {} for each figure, and the figures as they are to be written."""

    document: str
    words: str
    figures: Callable[[], list[str]]


SENTENCES = [
    # README, at full size: memory
    Sentence(
        README,
        "| `dual` | {} | {} |",
        lambda: [peak_gib("h200", "dual"), peak_gib("h200", "dual-nf4")],
    ),
    Sentence(
        README,
        "| `clip` | {} | {} |",
        lambda: [peak_gib("h200", "clip"), peak_gib("h200", "clip-nf4")],
    ),
    Sentence(
        README,
        "| `sam` | {} | {} |",
        lambda: [peak_gib("h200", "sam"), peak_gib("h200", "sam-nf4")],
    ),
    Sentence(
        README,
        "`clip` in NF4 needs {} GiB less than `dual` in bf16: {} by NF4, {} by sharing, {} of it given back",
        lambda: [memory_gib("h200", "clip-nf4", part) for part in ("whole", "quantization", "vision", "interaction")],
    ),
    Sentence(
        README,
        "due to NF4 ({} of the change), not to sharing ({}; they overlap by {})",
        lambda: [memory_share("claims-7b", "clip-nf4", part) for part in ("quantization", "vision", "interaction")],
    ),
    # README, at full size: time
    Sentence(
        README,
        "`clip` takes {} the time of `dual`, NF4 {}, and both together {}. `dual` measured twice differs by {}, and no "
        "interval of this run is narrower than that one.",
        lambda: [time_of("claims-7b", name) for name in ("clip", "dual-nf4", "clip-nf4", "dual-again")],
    ),
    Sentence(
        README,
        "sharing changes the time of a query by {}, NF4 by {}, and both together by {}. "
        "Their interaction cannot be told from none: {}.",
        lambda: [
            change_ms("claims-7b", "clip-nf4", part) for part in ("vision", "quantization", "whole", "interaction")
        ],
    ),
    Sentence(
        README,
        "Of the {} ms between the medians of `dual` and `clip-nf4`, {} ms are preprocessing on the host. Without "
        "preprocessing `clip-nf4` takes {}.",
        lambda: [
            saved_ms("claims-7b", "dual", "clip-nf4"),
            saved_ms("claims-7b", "dual", "clip-nf4", "preprocess"),
            time_of("claims-7b", "clip-nf4", "time.without_preprocess"),
        ],
    ),
    Sentence(
        README,
        "in each of 3 processes a case) `clip` takes {}, NF4 {}, both together {}, and compilation {}.",
        lambda: [time_of("h200", name) for name in ("clip", "dual-nf4", "clip-nf4", "dual-compiled")],
    ),
    Sentence(
        README,
        "shows no gain: `clip` takes {} the time of `dual`, NF4 {}, and both together {}.",
        lambda: [time_of("h200", name) for name in ("clip-cached", "dual-nf4-cached", "clip-nf4-cached")],
    ),
    # README, claims
    Sentence(
        README,
        "| vision forward is 2x faster | 0.50x | {} | {} |",
        lambda: [claimed("claims-7b", "vision forward"), claim("claims-7b", "vision forward").verdict],
    ),
    Sentence(
        README,
        "| {} by the weights of the vision parts and what they allocate; {} by the peak of the vision stage | {} by",
        lambda: [
            claimed("claims-7b", "vision memory"),
            vision_peak("claims-7b", "clip"),
            claim("claims-7b", "vision memory").verdict,
        ],
    ),
    Sentence(
        README,
        "teacher-forced | 0.75x | {}; without preprocessing {} | {}; without",
        lambda: [
            claimed("claims-7b", "inference is 20"),
            time_of("claims-7b", "clip-nf4", "time.without_preprocess"),
            claim("claims-7b", "inference is 20").verdict,
        ],
    ),
    Sentence(
        README,
        "sizes of `lisa-7b`) | 0.75x | {} | inconclusive |",
        lambda: [time_of("h200", "clip-nf4-cached")],
    ),
    Sentence(
        README,
        "The bound of the claim on inference is {}.",
        lambda: [f"{claim('claims-7b', 'inference is 20').at_most:.2f}x"],
    ),
    # README, the gate on a GPU
    Sentence(README, "| nothing | {} | 1.000x | 0 | 213 |", lambda: [gate("unchanged")]),
    Sentence(README, "| nothing | {} | 1.000x | 0 | 200 |", lambda: [gate("unchanged-again")]),
    Sentence(README, "| {}, again {} | 1.011x", lambda: [gate("planted"), gate("planted/again")]),
    Sentence(README, "had a standard deviation of {} %", lambda: [f"{100 * gate_noise():.2f}"]),
    Sentence(README, "The {} % are of ten pairs", lambda: [f"{100 * gate_noise():.2f}"]),
    # LOG, corrections
    Sentence(
        LOG,
        "the records show no gain: `clip-nf4` {}, NF4 alone {}.",
        lambda: [time_of("h200", "clip-nf4-cached"), time_of("h200", "dual-nf4-cached")],
    ),
    Sentence(
        LOG,
        "Of the {} ms between the medians of `dual` and `clip-nf4` in `claims-7b`, {} are preprocessing; without it "
        "the ratio is {}, inconclusive",
        lambda: [
            saved_ms("claims-7b", "dual", "clip-nf4"),
            saved_ms("claims-7b", "dual", "clip-nf4", "preprocess"),
            time_of("claims-7b", "clip-nf4", "time.without_preprocess"),
        ],
    ),
    Sentence(
        LOG,
        "twice since: sharing {}, NF4 {}.",
        lambda: [time_of("claims-7b", "clip"), time_of("claims-7b", "dual-nf4")],
    ),
    Sentence(
        LOG,
        "as in the tables, it is {}.",
        lambda: [time_of("claims-7b", "clip", "time.vision")],
    ),
    Sentence(
        LOG,
        "is {} by the weights of the vision parts and what they allocate, and {} by the peak",
        lambda: [claimed("claims-7b", "vision memory"), vision_peak("claims-7b", "clip")],
    ),
    Sentence(
        LOG,
        "milliseconds since: sharing {}, NF4 {}, and {} of interaction",
        lambda: [change_ms("claims-7b", "clip-nf4", part) for part in ("vision", "quantization", "interaction")],
    ),
    Sentence(
        LOG,
        "a standard deviation of {} % (pooled within the gates)",
        lambda: [f"{100 * gate_noise():.2f}"],
    ),
    Sentence(
        LOG,
        "All twenty pairs, with those of the planted gate, have {} %; the ten have {} % without the pair at 1.06.",
        lambda: [f"{100 * gate_noise(LOOKS):.2f}", f"{100 * gate_noise(without=0.05):.2f}"],
    ),
]


@cache
def text_of(document: str) -> str:
    """On one line, since documents break their lines anywhere."""
    return " ".join((ROOT / document).read_text(encoding="utf-8").split())


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: sentence.words[:60])
def test_a_quoted_figure_is_that_of_the_records(sentence: Sentence) -> None:
    figures = sentence.figures()
    assert sentence.words.count("{}") == len(figures) > 0
    assert sentence.words.format(*figures) in text_of(sentence.document)


def test_a_planted_figure_is_found() -> None:
    """The same sentence with another digit in its last figure is not in the document."""
    for sentence in SENTENCES:
        *figures, last = sentence.figures()
        digit = (
            next(character for character in last[::-1] if character.isdigit()) if any(map(str.isdigit, last)) else ""
        )
        if digit:
            other = last[::-1].replace(digit, str((int(digit) + 1) % 10), 1)[::-1]
            assert sentence.words.format(*figures, other) not in text_of(sentence.document), sentence.words


# The same figures by a few lines of numpy, without our own functions.


def end_to_end_ms(run: str, name: str, without: str = "none") -> dict[tuple[int, str], float]:
    """By process and query, less the time of the regions of one stage."""
    found = {}
    for line in published.records(run).samples:
        if line["case"] == name and line["latency_ns"]:
            regions = line["regions"].items()
            left_out = sum(part["exclusive_ns"] for region, part in regions if region.split(".")[0] == without)
            found[line["process"], line["sample_id"]] = (line["latency_ns"] - left_out) / 1e6
    return found


def interval(values: list[float]) -> tuple[float, float, float]:
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    return float(np.mean(values)), low, high


def independent_ratio(before: dict, after: dict) -> str:
    logs = []
    for process in sorted({process for process, _ in before}):
        queries = [key for key in before if key[0] == process and key in after]
        if queries:
            logs.append(float(np.median([np.log(after[key] / before[key]) for key in queries])))
    middle, low, high = np.exp(interval(logs))
    return f"{middle:.2f}x [{low:.2f}, {high:.2f}]"


@pytest.mark.parametrize(
    ("run", "reference", "candidate", "without"),
    [
        ("claims-7b", "dual", "clip-nf4", "none"),
        ("claims-7b", "dual", "clip-nf4", "preprocess"),
        ("claims-7b", "dual", "dual-again", "none"),
        ("h200", "dual-cached", "clip-nf4-cached", "none"),
        ("h200", "dual-cached", "dual-nf4-cached", "none"),
    ],
)
def test_ratios_that_no_twin_widens_come_out_by_numpy_alone(run, reference, candidate, without) -> None:
    expected = independent_ratio(end_to_end_ms(run, reference, without), end_to_end_ms(run, candidate, without))
    quantity = "time.end_to_end" if without == "none" else "time.without_preprocess"
    assert time_of(run, candidate, quantity) == expected


def test_the_interaction_in_milliseconds_comes_out_by_numpy_alone() -> None:
    sides = {name: end_to_end_ms("claims-7b", name) for name in ("dual", "clip", "dual-nf4", "clip-nf4")}
    left_over = []
    for process in range(5):
        medians = {
            name: np.median([ms for key, ms in side.items() if key[0] == process]) for name, side in sides.items()
        }
        left_over.append(medians["clip-nf4"] - medians["clip"] - medians["dual-nf4"] + medians["dual"])
    middle, low, high = interval(left_over)
    assert change_ms("claims-7b", "clip-nf4", "interaction") == f"{middle:+.1f} [{low:+.1f}, {high:+.1f}]"


def test_the_vision_stage_comes_out_by_numpy_alone_and_its_interval_is_the_twins() -> None:
    lines = [line for line in published.records("claims-7b").passes if line["pass"] == "synchronised"]
    spans = {(line["case"], line["process"], line["sample_id"]): line["stages_ns"]["vision"] for line in lines}

    def logs(candidate: str) -> list[float]:
        by_process: dict[int, list[float]] = {}
        for (name, process, query), ns in spans.items():
            if name == candidate:
                by_process.setdefault(process, []).append(np.log(ns / spans["dual", process, query]))
        return [float(np.median(found)) for found in by_process.values()]

    middle, low, high = interval(logs("clip"))
    assert [f"{np.exp(end):.2f}" for end in (middle, low, high)] == ["0.26", "0.21", "0.33"]
    _, twin_low, twin_high = interval(logs("dual-again"))
    half = (twin_high - twin_low) / 2
    assert half > (high - low) / 2
    ends = np.exp([middle, middle - half, middle + half])
    assert time_of("claims-7b", "clip", "time.vision") == f"{ends[0]:.2f}x [{ends[1]:.2f}, {ends[2]:.2f}]"


def test_h200_measures_no_reference_twice_in_one_team() -> None:
    """Its `dual-again` is the reference of a team of its own, and took no turns with `dual`."""
    assert published.summary("h200").twins == []
    assert [twin.candidate for twin in published.summary("claims-7b").twins] == ["dual-again"]


def test_the_verdicts_beside_the_row_of_inference_are_those_of_its_bound() -> None:
    found = claim("claims-7b", "inference is 20")
    without = published.comparison("claims-7b", "clip-nf4").without_preprocess
    generated = published.comparison("h200", "clip-nf4-cached").end_to_end
    assert found.verdict == "confirmed"
    assert without.low < found.at_most < without.high
    assert generated.low < found.at_most < generated.high
    assert "for teacher-forced answers only" in found.reason
    peaks = vision_peak("claims-7b", "clip")
    assert float(peaks.rstrip("x")) > claim("claims-7b", "vision memory").at_most


def test_times_of_the_published_runs_are_older_than_one_core_and_warm_lengths() -> None:
    """Since then run.json says from which core each process asked."""
    for name in ("claims-7b", "h200"):
        entries = json.loads((published.PUBLISHED / name / "run.json").read_text())["cases"]
        warmups = [warmup for entry in entries for warmup in entry.get("warmups") or []]
        assert warmups and not [warmup for warmup in warmups if warmup.get("core") is not None]
    newer = json.loads((published.GATES / "one-core" / "unchanged" / "head" / "run.json").read_text())["cases"]
    assert [warmup for entry in newer for warmup in entry.get("warmups") or [] if warmup.get("core") is not None]


def test_of_the_twins_run_no_ratio_of_times_has_a_narrower_interval() -> None:
    (twin,) = published.summary("claims-7b").twins
    for found in published.summary("claims-7b").comparisons:
        ratios = {"time.end_to_end": found.end_to_end, "time.without_preprocess": found.without_preprocess}
        ratios |= {f"time.{stage}": ratio for stage, ratio in found.stages.items()}
        for quantity, ratio in ratios.items():
            assert np.log(ratio.high / ratio.low) / 2 >= twin.half_widths[quantity] - 1e-9, (found.candidate, quantity)
