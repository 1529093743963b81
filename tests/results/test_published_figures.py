"""Numbers that documents and LOG quote from published runs, each computed again from the records.

To add a sentence, add a line to `SENTENCES`: the document, its words with {} in the place of each
figure, and how the figures are computed. It fails when the document's number changes, and when the
records or their evaluation do.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import published
import pytest
from published import (
    LOOKS,
    ROOT,
    case,
    change_ms,
    claim,
    claimed,
    driver_gib,
    energy_of,
    gate,
    gate_noise,
    memory_share,
    peak_gib,
    saved_ms,
    summary,
    time_of,
    vision_peak,
)
from scipy import stats

from lisabench.reports import formatting
from lisabench.reports.published.cells import ratio_cell
from lisabench.reports.run.schema import ClaimResult
from lisabench.reports.run.verdict_words import claim_measured

pytestmark = pytest.mark.no_clock

README, RESULTS, GATE = "README.md", "docs/results.md", "docs/gate.md"
MEASURING = "docs/measuring.md"
LOG = "results/LOG.md"
NEW = "claims"  # the modified LISA as its document describes it, as CUDA graphs
GENERATED = "claims-generated"
EAGER = "claims-described"  # the same, eagerly
IN_NF4 = ("dual-nf4", "clip-nf4", "sam-nf4")


GRAPHS = "graphs-7b"
CARDS = "cards-7b"
ANSWERS = "answers-7b"
THROUGHPUT = "throughput-7b"


def of_encoder(words: str, encoder: str, run: str = NEW) -> ClaimResult:
    """Return the claim that begins so and is about this encoder."""
    (found,) = [
        one
        for one in summary(run).claims
        if one.claim.startswith(words) and f"{encoder}'s encoder shared" in one.claim
    ]
    return found


def answered_under_the_cap() -> list[str]:
    """Return how many queries each capped process of generated answers answered, and got."""
    fits = published.raw_records(GENERATED).fits
    assert {line["case"] for line in fits} == {"clip-nf4", "sam-nf4"}
    ((answered, asked),) = {(line["answered"], line["asked"]) for line in fits}
    return [str(answered), str(asked)]


def answered_without_a_cap(run: str, names: tuple[str, ...]) -> list[str]:
    """Return how many queries each uncapped process of these cases answered, and got.

    No process of theirs was capped.
    """
    raw = published.raw_records(run)
    assert not [line for line in raw.fits if line["case"] in names]
    lines = [line for line in raw.memory if line["case"] in names and line["stage"] != "build"]
    (answered,) = {line["queries"] for line in lines}
    return [str(answered), str(raw.run["plan"]["memory_queries"])]


def taken_on_card(name: str, card: str | None = None) -> str:
    """``7.94``: the GiB that the process took which was capped to a card; None: without a cap."""
    if card is None:
        lines = [line for line in published.raw_records(CARDS).memory if line["case"] == name]
    else:
        fits = published.raw_records(CARDS).fits
        lines = [line for line in fits if (line["case"], line["card"]) == (name, card)]
    reserved_bytes = max(line["peak_reserved_bytes"] for line in lines)
    (outside_bytes,) = {line["beside_bytes"] for line in lines if line.get("beside_bytes")}
    return f"{(reserved_bytes + outside_bytes) / 2**30:.2f}"


def published_cases(size: str, nf4: bool) -> list[str]:
    """Return the cases of `cards-7b` of a size, in NF4 or not."""
    names = [one.name for one in published.records(CARDS).cases]
    return [name for name in names if ("13b" in name) == (size == "13b") and ("nf4" in name) == nf4]


def taken_range(names: list[str]) -> list[str]:
    """Return the least and the most GiB that these cases took without a cap."""
    taken = sorted((taken_on_card(name) for name in names), key=float)
    return [taken[0], taken[-1]]


def weights_gib(name: str) -> str:
    """``7.24``: the GiB that building a case asked the allocator for."""
    lines = published.raw_records(CARDS).memory
    (build,) = [line for line in lines if (line["case"], line["stage"]) == (name, "build")]
    return f"{build['weights_bytes'] / 2**30:.2f}"


def outside_allocator_range() -> list[str]:
    """Return the least and the most GiB outside of the allocator, of all processes."""
    raw = published.raw_records(CARDS)
    lines = [*raw.memory, *raw.fits]
    outside = [line["beside_bytes"] / 2**30 for line in lines if line.get("beside_bytes")]
    return [f"{min(outside):.2f}", f"{max(outside):.2f}"]


def answered_in_memory_pass() -> list[str]:
    """Return how many queries each case of `cards-7b` answered without a cap, and got."""
    raw = published.raw_records(CARDS)
    (answered,) = {line["queries"] for line in raw.memory if line["stage"] != "build"}
    assert raw.run["plan"]["memory_queries"] == "all"
    return [str(answered), str(raw.run["data"]["count"])]


def longest_prompt() -> str:
    """Return the tokens of the longest prompt of all cases."""
    return str(max(line.get("prompt_tokens", 0) for line in published.raw_records(CARDS).memory))


def busy_share(run: str, name: str) -> float:
    """Return the share of a query's time in which the GPU was at work, in percent."""
    time = case(run, name).time
    assert time.end_to_end_ms is not None
    busy_ms = sum(stage.gpu_busy_ms or 0.0 for stage in time.stages.values())
    return 100 * busy_ms / time.end_to_end_ms


def busy_range() -> list[str]:
    """Return the least and the largest of these shares of the newest eager run."""
    shares = [busy_share(EAGER, one.name) for one in summary(EAGER).cases]
    return [f"{min(shares):.0f}", f"{max(shares):.0f}"]


def energy_spread(name: str) -> float:
    """Return the standard deviation of the energy of a query over processes, in percent."""
    energies = []
    for line in published.raw_records(NEW).passes:
        if line["pass"] == "energy" and line["case"] == name:
            energies.append(line["power_w"] * line["seconds"] / line["queries"])
    return 100 * float(np.std(energies, ddof=1)) / float(np.mean(energies))


def half_width(candidate: str) -> float:
    """Return how far the interval of a ratio of times reaches to its wider side, in percent."""
    ratio = published.comparison(NEW, candidate).end_to_end
    assert ratio.ratio and ratio.low and ratio.high
    return 100 * max(ratio.high / ratio.ratio - 1, 1 - ratio.low / ratio.ratio)


def process_range_ms(run: str, name: str) -> tuple[float, float]:
    """Return the least and the largest median of a query over the processes of a case."""
    times_ms: dict[int, list[float]] = {}
    for line in published.raw_records(run).samples:
        if line["case"] == name:
            times_ms.setdefault(line["process"], []).append(line["latency_ns"] / 1e6)
    medians = [float(np.median(times)) for times in times_ms.values()]
    return min(medians), max(medians)


def clocks_mhz(run: str) -> list[str]:
    """Return the lowest and the highest clock of the GPU in the timed rounds of a run."""
    clocks = [line["sm_clock_mhz"] for line in published.raw_records(run).samples]
    return [str(min(clocks)), str(max(clocks))]


def context_gib(run: str) -> str:
    """``0.67``: what the driver counts in each process beyond what the allocator reserved."""
    outside = set()
    for line in published.raw_records(run).memory:
        if line["stage"] != "build":
            outside_bytes = line["device_process_bytes"] - line["peak_reserved_bytes"]
            outside.add(f"{outside_bytes / 2**30:.2f}")
    (size,) = outside
    return size


def memory_saved(candidate: str) -> str:
    """``74 %``: the share of the reference's memory of a query that is saved."""
    parts = published.attribution(NEW, candidate).memory
    assert parts.whole.bytes is not None and parts.reference_bytes
    return f"{-100 * parts.whole.bytes / parts.reference_bytes:.0f} %"


def idle_gaps() -> list[str]:
    """Return the kernels and copies of a query of `clip`, and the gaps between them in ms."""
    trials = (published.PUBLISHED / GRAPHS / "trials.txt").read_text(encoding="utf-8")
    (kernels,) = re.findall(r"gpu events (\d+)$", trials, re.MULTILINE)
    (gaps_us,) = re.findall(r"small gaps sum (\d+) us$", trials, re.MULTILINE)
    return [kernels, f"{int(gaps_us) / 1000:.2f}"]


def first_gate_ms() -> str:
    """``134``: the median time of a query in the first gate."""
    head = published.raw_run(published.GATES / "one-core" / "unchanged" / "head")
    times_ms = [line["latency_ns"] / 1e6 for line in head.samples if line["latency_ns"]]
    return f"{np.median(times_ms):.0f}"


GRAPHED_GATE = "graphed-lisa-7b"


def first_graphed_gate() -> list[str]:
    """Return the time of the unchanged tree's gate, as its check.json has it, and its seconds."""
    folder = published.GATES / GRAPHED_GATE / "unchanged"
    checks = json.loads((folder / "check.json").read_text())["checks"]
    (time,) = [check for check in checks if check["metric"] == "time.end_to_end"]
    assert time["verdict"] == "inconclusive"
    seconds = json.loads((folder / "gate.json").read_text())["seconds"]
    return [f"{time['change']:.3f}x [{time['low']:.3f}, {time['high']:.3f}]", f"{seconds:.0f}"]


def graphed_gate_noise() -> float:
    """Return the standard deviation of the log ratios of that gate's pairs."""
    return float(np.std(published.gate_pairs("unchanged", GRAPHED_GATE), ddof=1))


def graphed_gate_llm_ms() -> tuple[float, float]:
    """Return the least and the largest median of the language model over that gate's processes."""
    medians = []
    for side in ("base", "head"):
        run = published.raw_run(published.GATES / GRAPHED_GATE / "unchanged" / side)
        medians += llm_medians_ms(run.samples).values()
    assert len(medians) == 12
    return min(medians), max(medians)


def llm_medians_ms(lines: list[dict]) -> dict[int, float]:
    """Return the median time of the language model in each process."""
    times_ms: dict[int, list[float]] = {}
    for line in lines:
        time_ms = line["regions"]["llm"]["inclusive_ns"] / 1e6
        times_ms.setdefault(line["process"], []).append(time_ms)
    return {process: float(np.median(times)) for process, times in times_ms.items()}


def llm_spread(name: str) -> float:
    """Return the standard deviation over processes of a case's language model, in percent."""
    lines = [line for line in published.raw_records(NEW).samples if line["case"] == name]
    medians = list(llm_medians_ms(lines).values())
    return 100 * float(np.std(np.log(medians), ddof=1))


def further_token_ms(name: str) -> str:
    """``4.91``: the milliseconds of a further token."""
    return formatting.milliseconds(case(ANSWERS, name).time.further_token_ms)


def throughput_of(name: str) -> str:
    """``6.79x``: how many times as many queries per second as the original's way."""
    return formatting.ratio(published.comparison(THROUGHPUT, name).throughput.ratio)


@dataclass(frozen=True)
class Sentence:
    """Words of a document, with {} for each figure, and the figures as they are to be written."""

    document: str
    words: str
    figures: Callable[[], list[str]]


def gib_of_dual(run: str) -> tuple[float, float]:
    """What `dual` reserved in a run, and what it took outside of the allocator, in GiB."""
    memory = case(run, "dual").memory
    reserved, of_process = memory.peak_reserved_bytes, memory.device_process_bytes
    return reserved / 2**30, (of_process - reserved) / 2**30


SENTENCES = [
    Sentence(RESULTS, "its clock was between {} and {} MHz", lambda: clocks_mhz(GRAPHS)),
    Sentence(RESULTS, "The CUDA context takes {} GiB more.", lambda: [context_gib(NEW)]),
    Sentence(
        RESULTS,
        "between the {} kernels and copies of a query there is just under a microsecond each, also "
        "within a graph, {} ms in all",
        idle_gaps,
    ),
    Sentence(
        RESULTS,
        "![clip-nf4 takes {} less memory than dual and {} its time",
        lambda: [memory_saved("clip-nf4"), time_of(NEW, "clip-nf4").split()[0]],
    ),
    Sentence(
        "docs/measuring.md",
        "reserved {} GiB eagerly (`results/h200`) and {} GiB as CUDA graphs",
        lambda: [f"{gib_of_dual(run)[0]:.2f}" for run in ("h200", GRAPHS)],
    ),
    Sentence(
        "docs/measuring.md",
        "which took {} GiB more outside of the allocator",
        lambda: [f"{gib_of_dual(GRAPHS)[1] - gib_of_dual('h200')[1]:.2f}"],
    ),
    Sentence(
        RESULTS,
        "`dual` measured twice differs by {}: the interval's half-width is {} %",
        lambda: [
            time_of(GRAPHS, "dual-again"),
            f"{100 * summary(GRAPHS).twins[0].half_widths['time.end_to_end']:.2f}",
        ],
    ),
    Sentence(
        RESULTS,
        "takes {} the time on this host: its GPU waits",
        lambda: [time_of(GRAPHS, "dual-upstream").split()[0]],
    ),
    Sentence(
        RESULTS,
        "too short for NVML's counter: `dual` twice differs by {}",
        lambda: [energy_of(GRAPHS, "dual-again")],
    ),
    Sentence(
        RESULTS,
        "`clip-batch16` waited for images for {} % of its time",
        lambda: [f"{100 * case(THROUGHPUT, 'clip-batch16').time.waiting_share:.0f}"],
    ),
    Sentence(
        RESULTS,
        "**Memory** of a query is {} as graphs, and {} the original's way; reserved are {} and {}.",
        lambda: [
            f"{case(GRAPHS, 'dual').memory.query_peak_bytes / 2**30:.2f} GiB",
            f"{case(GRAPHS, 'dual-upstream').memory.query_peak_bytes / 2**30:.2f} GiB",
            f"{case(GRAPHS, 'dual').memory.peak_reserved_bytes / 2**30:.2f} GiB",
            f"{case(GRAPHS, 'dual-upstream').memory.peak_reserved_bytes / 2**30:.2f} GiB",
        ],
    ),
    # results, 8 GB: three numbers for the memory of a query
    Sentence(
        RESULTS,
        "peak of the vision stage it is {} with CLIP's encoder shared and {} with SAM's: refuted.",
        lambda: [vision_peak(NEW, "clip"), vision_peak(NEW, "sam")],
    ),
    Sentence(
        RESULTS,
        "NF4 alone saves {} of what both save together. Sharing alone saves {} of it. The two add "
        "up to more than the whole: NF4 alone also shrinks SAM's encoder, which sharing removes, "
        "and this saving of {} is counted twice.",
        lambda: [
            memory_share(NEW, "clip-nf4", part)
            for part in ("quantization", "vision", "interaction")
        ],
    ),
    Sentence(
        README,
        "The original's way of running takes {} as long as",
        lambda: [time_of(GRAPHS, "dual-upstream").split()[0]],
    ),
    Sentence(
        RESULTS,
        "`dual` measured twice differs by {}, and its energy by {}. Smaller",
        lambda: [
            ratio_cell(published.comparison(NEW, "dual-again").end_to_end),
            energy_of(NEW, "dual-again"),
        ],
    ),
    Sentence(
        RESULTS,
        "Intervals of time reach at most {} % to either side of their ratio, that of `dual` "
        "measured twice {} %",
        lambda: [
            f"{max(half_width(one.candidate) for one in summary(NEW).comparisons):.2f}",
            f"{half_width('dual-again'):.2f}",
        ],
    ),
    Sentence(
        RESULTS,
        "`dual-eager` took {} to {} ms in its processes",
        lambda: [f"{edge:.0f}" for edge in process_range_ms("claims-execution", "dual-eager")],
    ),
    Sentence(
        RESULTS,
        "at its limit of power in all blocks, and its clock was between {} and {} MHz",
        lambda: clocks_mhz(NEW),
    ),
    Sentence(
        RESULTS,
        "Without it, `clip-nf4` takes {} and `sam-nf4` {} the time of `dual`.",
        lambda: [time_of(NEW, name, "time.without_preprocess") for name in ("clip-nf4", "sam-nf4")],
    ),
    Sentence(
        RESULTS,
        "`dual` takes {} ms, `clip-nf4` {} and `sam-nf4` {} of that (`results/claims-described`)",
        lambda: [
            f"{case(EAGER, 'dual').time.end_to_end_ms:.0f}",
            *(time_of(EAGER, name) for name in ("clip-nf4", "sam-nf4")),
        ],
    ),
    Sentence(
        RESULTS,
        "saves there is preprocessing: {} of the {} ms between the medians. The GPU was at work "
        "for {} to {} % of a query",
        lambda: [
            saved_ms(EAGER, "dual", "clip-nf4", "preprocess"),
            saved_ms(EAGER, "dual", "clip-nf4"),
            *busy_range(),
        ],
    ),
    Sentence(
        RESULTS,
        "**Only the language model in NF4**: then `clip` takes {} and `sam` {}, eagerly",
        lambda: [time_of(EAGER, "clip-nf4-llm"), time_of(EAGER, "sam-nf4-llm")],
    ),
    Sentence(
        RESULTS,
        "`dual` with SAM ViT-B takes {} and {} the time, eagerly (`results/h200`)",
        lambda: [peak_gib("h200", "dual-vit_b"), time_of("h200", "dual-vit_b")],
    ),
    Sentence(
        MEASURING,
        "In `results/claims` five processes of `dual` agree to {} % (their standard deviation)",
        lambda: [f"{energy_spread('dual'):.1f}"],
    ),
    # results, 8 GB
    Sentence(
        RESULTS,
        "Teacher-forced, `clip-nf4` and `sam-nf4` answered {} of {} queries without a cap, and "
        "their peaks decide. With generated answers, they answered {} of {} queries under the cap.",
        lambda: [
            *answered_without_a_cap(NEW, ("clip-nf4", "sam-nf4")),
            *answered_under_the_cap(),
        ],
    ),
    Sentence(
        RESULTS,
        "`clip-13b-nf4` took {} of 8 GiB, and `dual` and `dual-16` {} of 16 GiB",
        lambda: [
            taken_on_card("clip-13b-nf4", "8GB"),
            *{taken_on_card(name, "16GB") for name in ("dual", "dual-16")},
        ],
    ),
    Sentence(
        RESULTS,
        "Their weights are {} and {} GiB. Without a cap they took {} and {} GiB. `dual-13b` was "
        "not tried under a cap: its peak of {} GiB decides.",
        lambda: [
            *(weights_gib(name) for name in ("dual-13b-nf4", "clip-13b")),
            *(taken_on_card(name) for name in ("dual-13b-nf4", "clip-13b", "dual-13b")),
        ],
    ),
    Sentence(
        RESULTS,
        "such as the CUDA context: {} to {} GiB",
        outside_allocator_range,
    ),
    Sentence(
        RESULTS,
        "each case answered {} of {} queries. The longest prompt had {} tokens.",
        lambda: [*answered_in_memory_pass(), longest_prompt()],
    ),
    Sentence(
        RESULTS,
        "under a cap of 8 GB `dual-nf4` takes {}, `clip-nf4` {} and `sam-nf4` {} by the driver "
        "(`results/fits-8gb`)",
        lambda: [driver_gib("fits-8gb", name) for name in IN_NF4],
    ),
    Sentence(
        LOG,
        "Measured: in bf16 {} to {} GiB, so that 16 GB are needed",
        lambda: taken_range(published_cases("7b", nf4=False)),
    ),
    Sentence(
        LOG,
        "under that cap; in NF4 {} to {} GiB.",
        lambda: taken_range(published_cases("7b", nf4=True)),
    ),
    Sentence(
        LOG,
        "Measured: {} and {} GiB in bf16, {} and {} GiB in NF4 (`dual-13b`, `clip-13b`).",
        lambda: [
            taken_on_card(name) for name in ("dual-13b", "clip-13b", "dual-13b-nf4", "clip-13b-nf4")
        ],
    ),
    # the gate on a GPU
    Sentence(GATE, "had a standard deviation of {} %", lambda: [f"{100 * gate_noise():.2f}"]),
    Sentence(GATE, "The {} % are of ten pairs", lambda: [f"{100 * gate_noise():.2f}"]),
    Sentence(GATE, "It was inconclusive: {}, after {} s in all", first_graphed_gate),
    Sentence(GATE, "Its pairs vary by {} %.", lambda: [f"{100 * graphed_gate_noise():.2f}"]),
    Sentence(
        GATE,
        "which is in NF4, took {} to {} ms in the twelve processes",
        lambda: [f"{edge:.1f}" for edge in graphed_gate_llm_ms()],
    ),
    Sentence(
        GATE,
        "NF4 language models of `results/claims` differed by at most {} % from process to process",
        lambda: [f"{max(llm_spread(name) for name in IN_NF4):.2f}"],
    ),
    Sentence(
        GATE,
        "Without CPU pinning, an unchanged tree had {}",
        lambda: [gate("unchanged", "any-core", decimals=2)],
    ),
    Sentence(GATE, "The sleep is 10 % of the {} ms", lambda: [first_gate_ms()]),
    # LOG, the claims of the document's model
    Sentence(
        LOG,
        "Measured: {} in bf16 and {} in NF4. So for the encoder",
        lambda: [time_of(EAGER, "sam"), time_of(EAGER, "sam-nf4")],
    ),
    Sentence(
        LOG,
        "are confirmed ({}, {}, {}); of the {} ms that `clip` in NF4 saves, {} are preprocessing "
        "on the host, and "
        "without preprocessing it takes {} the time",
        lambda: [
            *(
                claim_measured(of_encoder(words, "CLIP", EAGER))
                for words in ("inference is 20", "vision forward", "vision memory")
            ),
            saved_ms(EAGER, "dual", "clip-nf4"),
            saved_ms(EAGER, "dual", "clip-nf4", "preprocess"),
            time_of(EAGER, "clip-nf4", "time.without_preprocess"),
        ],
    ),
    Sentence(
        LOG,
        "NVML's counter: `clip` {}, `sam` {}, NF4 {}; `dual` twice {}.",
        lambda: [energy_of(EAGER, name) for name in ("clip", "sam", "dual-nf4", "dual-again")],
    ),
    Sentence(
        LOG,
        "agree to about 3 %. Measured: {}, where `claims-7b` had {}.",
        lambda: [time_of(EAGER, "dual-again"), time_of("claims-7b", "dual-again")],
    ),
    # LOG, stages as CUDA graphs
    Sentence(
        LOG,
        "`dual` measured twice is {} with an interval of +-{} %",
        lambda: [
            time_of(GRAPHS, "dual-again").split()[0],
            f"{100 * summary(GRAPHS).twins[0].half_widths['time.end_to_end']:.2f}",
        ],
    ),
    Sentence(
        LOG,
        "a further token takes {} ms in bf16 and {} in NF4, and {} the original's way; a query of "
        "`clip-nf4` takes {} the time",
        lambda: [
            *(further_token_ms(name) for name in ("clip", "clip-nf4", "dual-upstream")),
            time_of(ANSWERS, "clip-nf4"),
        ],
    ),
    Sentence(
        LOG,
        "`dual` answers {} and `clip` {} as many queries a second as the original's loop in "
        "batches of 16, the waits for images included. Four at once are nearly as fast: {} and {}.",
        lambda: [
            throughput_of(f"{name}-batch{batch}") for batch in (16, 4) for name in ("dual", "clip")
        ],
    ),
    # LOG, corrections
    Sentence(
        LOG,
        "the records show no gain: `clip-nf4` {}, NF4 alone {}.",
        lambda: [time_of("h200", "clip-nf4-cached"), time_of("h200", "dual-nf4-cached")],
    ),
    Sentence(
        LOG,
        "Of the {} ms between the medians of `dual` and `clip-nf4` in `claims-7b`, {} are "
        "preprocessing; without it "
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
        lambda: [
            change_ms("claims-7b", "clip-nf4", part)
            for part in ("vision", "quantization", "interaction")
        ],
    ),
    Sentence(
        LOG,
        "a standard deviation of {} % (pooled within the gates)",
        lambda: [f"{100 * gate_noise():.2f}"],
    ),
    Sentence(
        LOG,
        "All twenty pairs, with those of the planted gate, have {} %; the ten have {} % without "
        "the pair at 1.06.",
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
            next(character for character in last[::-1] if character.isdigit())
            if any(map(str.isdigit, last))
            else ""
        )
        if digit:
            other = last[::-1].replace(digit, str((int(digit) + 1) % 10), 1)[::-1]
            assert sentence.words.format(*figures, other) not in text_of(sentence.document), (
                sentence.words
            )


# The same figures by a few lines of numpy, without our own functions.


def end_to_end_ms(run: str, name: str, without: str = "none") -> dict[tuple[int, str], float]:
    """By process and query, less the time of the regions of one stage."""
    found = {}
    for line in published.raw_records(run).samples:
        if line["case"] == name and line["latency_ns"]:
            regions = line["regions"].items()
            left_out = sum(
                part["exclusive_ns"] for region, part in regions if region.split(".")[0] == without
            )
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
def test_ratios_that_no_twin_widens_come_out_by_numpy_alone(
    run, reference, candidate, without
) -> None:
    expected = independent_ratio(
        end_to_end_ms(run, reference, without), end_to_end_ms(run, candidate, without)
    )
    quantity = "time.end_to_end" if without == "none" else "time.without_preprocess"
    assert time_of(run, candidate, quantity) == expected


def further_tokens_ms(name: str) -> dict[tuple[int, str], float]:
    """Return a case's milliseconds of a further token in `h200`, from the lines of its journal."""
    times_ms = {}
    for line in published.raw_records("h200").samples:
        if line["case"] == name and line["latency_ns"]:
            # The published answers have 16 tokens: the prompt gives the first, and 15 follow.
            assert line["answer_tokens"] == 16
            regions = line["regions"]
            parts_ns = [regions[part]["exclusive_ns"] for part in ("llm", "llm.head", "llm.decode")]
            times_ms[line["process"], line["sample_id"]] = sum(parts_ns) / 15 / 1e6
    return times_ms


@pytest.mark.parametrize(("group", "of_dual"), [("cached", "23.1"), ("upstream", "31.4")])
def test_a_further_token_of_generated_answers_comes_out_by_numpy_alone(group, of_dual) -> None:
    reference = further_tokens_ms(f"dual-{group}")
    for model in ("dual", "clip", "sam", "dual-nf4", "clip-nf4", "sam-nf4"):
        name = f"{model}-{group}"
        times_ms = further_tokens_ms(name)
        found_ms = case("h200", name).time.further_token_ms
        expected_ms = np.median(list(times_ms.values()))
        assert found_ms == pytest.approx(expected_ms, rel=1e-6, abs=0)
        if model == "dual":
            assert f"{found_ms:.1f}" == of_dual
            continue
        ratio = published.comparison("h200", name).further_token
        expected = independent_ratio(reference, times_ms)
        assert formatting.ratio_with_interval(ratio) == expected


def test_the_interaction_in_milliseconds_comes_out_by_numpy_alone() -> None:
    sides = {
        name: end_to_end_ms("claims-7b", name) for name in ("dual", "clip", "dual-nf4", "clip-nf4")
    }
    left_over = []
    for process in range(5):
        medians = {
            name: np.median([ms for key, ms in side.items() if key[0] == process])
            for name, side in sides.items()
        }
        left_over.append(
            medians["clip-nf4"] - medians["clip"] - medians["dual-nf4"] + medians["dual"]
        )
    middle, low, high = interval(left_over)
    assert (
        change_ms("claims-7b", "clip-nf4", "interaction")
        == f"{middle:+.1f} [{low:+.1f}, {high:+.1f}]"
    )


def test_the_vision_stage_comes_out_by_numpy_alone_and_its_interval_is_the_twins() -> None:
    lines = [
        line for line in published.raw_records("claims-7b").passes if line["pass"] == "synchronised"
    ]
    spans = {
        (line["case"], line["process"], line["sample_id"]): line["stages_ns"]["vision"]
        for line in lines
    }

    def logs(candidate: str) -> list[float]:
        by_process: dict[int, list[float]] = {}
        for (name, process, query), ns in spans.items():
            if name == candidate:
                by_process.setdefault(process, []).append(
                    np.log(ns / spans["dual", process, query])
                )
        return [float(np.median(found)) for found in by_process.values()]

    middle, low, high = interval(logs("clip"))
    assert [f"{np.exp(end):.2f}" for end in (middle, low, high)] == ["0.26", "0.21", "0.33"]
    _, twin_low, twin_high = interval(logs("dual-again"))
    half = (twin_high - twin_low) / 2
    assert half > (high - low) / 2
    ends = np.exp([middle, middle - half, middle + half])
    assert (
        time_of("claims-7b", "clip", "time.vision")
        == f"{ends[0]:.2f}x [{ends[1]:.2f}, {ends[2]:.2f}]"
    )


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
    newer = json.loads(
        (published.GATES / "one-core" / "unchanged" / "head" / "run.json").read_text()
    )["cases"]
    assert [
        warmup
        for entry in newer
        for warmup in entry.get("warmups") or []
        if warmup.get("core") is not None
    ]


def test_of_the_twins_run_no_ratio_of_times_has_a_narrower_interval() -> None:
    (twin,) = published.summary("claims-7b").twins
    for found in published.summary("claims-7b").comparisons:
        ratios = {
            "time.end_to_end": found.end_to_end,
            "time.without_preprocess": found.without_preprocess,
        }
        ratios |= {f"time.{stage}": ratio for stage, ratio in found.stages.items()}
        for quantity, ratio in ratios.items():
            assert np.log(ratio.high / ratio.low) / 2 >= twin.half_widths[quantity] - 1e-9, (
                found.candidate,
                quantity,
            )
