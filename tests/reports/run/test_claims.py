"""Claims: what a suite may state, what a run says of it, and the pass that tries a case on a
smaller card.
"""

import json
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from run_factory import EMPTY_CLAIM, edit_lines, edit_run, failed, write_lines, write_run
from sessions import QUICK, content_of

from lisabench.benchmarks import suite_file
from lisabench.benchmarks.queries import Queries
from lisabench.benchmarks.run import case_worker
from lisabench.benchmarks.run import command as runs
from lisabench.benchmarks.run.session import Session
from lisabench.benchmarks.run.worker_messages import WorkerSettings
from lisabench.benchmarks.run.worker_pool import WorkerLost
from lisabench.harness.errors import UsageError
from lisabench.harness.memory import Reading
from lisabench.harness.records.journal import read_lines
from lisabench.harness.records.run import read_run
from lisabench.harness.statistics.estimate import Estimate
from lisabench.harness.statistics.verdicts import claim_verdict
from lisabench.models.adapters.fake import FakeCase
from lisabench.reports.page import terminal
from lisabench.reports.run.summary import summarise, write_summary
from lisabench.reports.run_report import write_report

pytestmark = pytest.mark.no_clock

PLAIN = {"queries": 8, "size": (24, 32), "gallery": 0, "controls": False}
GIB = 2**30
FASTER = {"claim": "faster", "quantity": "time.end_to_end", "candidate": "b", "at_most": 0.9}
FITS = {"claim": "it fits", "quantity": "fits", "candidate": "b", "card": "8GB"}


def judged(folder, **claim):
    """The result of one claim about a run that was made up; `dual` against `clip` unless it says
    otherwise.
    """
    edit_run(
        folder,
        claims=[EMPTY_CLAIM | {"claim": "c", "reference": "dual", "candidate": "clip"} | claim],
    )
    return summarise(read_run(folder)).claims[0]


def edit_entry(folder, name, **changes):
    cases = json.loads((folder / "run.json").read_text())["cases"]
    edit_run(folder, cases=[case | (changes if case["name"] == name else {}) for case in cases])


@pytest.mark.parametrize(
    ("interval", "bound", "expected"),
    [
        ((0.3, 0.5), {"at_most": 0.5}, "confirmed"),
        ((0.5, 0.5), {"at_most": 0.5}, "confirmed"),
        ((0.3, 0.501), {"at_most": 0.5}, "inconclusive"),
        ((0.5, 0.6), {"at_most": 0.5}, "inconclusive"),
        ((0.501, 0.6), {"at_most": 0.5}, "refuted"),
        ((-2.0, 3.0), {"at_least": -2.0}, "confirmed"),
        ((-2.1, 3.0), {"at_least": -2.0}, "inconclusive"),
        ((-4.0, -2.0), {"at_least": -2.0}, "inconclusive"),
        ((-4.0, -2.1), {"at_least": -2.0}, "refuted"),
        ((None, None), {"at_most": 0.5}, "inconclusive"),
    ],
)
def test_a_claim_holds_where_its_whole_interval_keeps_the_bound_and_the_bound_itself_is_kept(
    interval, bound, expected
):
    estimate = Estimate(0.0, *interval, n=3)
    verdict, reason = claim_verdict(estimate, bound.get("at_most"), bound.get("at_least"))
    assert verdict == expected
    assert (reason is not None) == (expected == "inconclusive")


def test_a_stage_is_claimed_about_by_its_own_time(tmp_path):
    write_run(tmp_path, **PLAIN)
    vision = judged(tmp_path, quantity="time.vision", at_most=0.5)  # drawn around 6.9 of 31 ms
    llm = judged(tmp_path, quantity="time.llm", at_most=0.5)  # drawn around 18.4 of 18.3 ms
    assert (vision.verdict, llm.verdict) == ("confirmed", "refuted")
    assert vision.interval[0] < vision.measured < vision.interval[1] < 0.3
    assert 0.9 < llm.measured < 1.1


def test_one_pair_of_processes_gives_a_figure_and_no_verdict(tmp_path):
    found = judged(write_run(tmp_path, processes=1, **PLAIN), quantity="time.vision", at_most=0.5)
    assert (found.verdict, found.interval) == ("inconclusive", None)
    assert found.measured < 0.3
    assert "no interval" in found.reason


def test_quality_is_a_difference_in_points(tmp_path):
    write_run(tmp_path, **PLAIN)
    found = judged(tmp_path, quantity="quality.mIoU", at_least=-2)
    mIoU = {case.name: case.quality.mIoU for case in summarise(read_run(tmp_path)).cases}
    before, after = mIoU["dual"], mIoU["clip"]
    assert found.measured == pytest.approx(100 * (after - before), rel=1e-9, abs=0)
    assert (found.unit, found.measured < -2) == ("points", True)


def test_a_query_that_ran_out_of_memory_counts_in_a_claim_on_quality_and_ends_one_on_time(tmp_path):
    folder = write_run(tmp_path, **PLAIN)
    edit_lines(
        folder / "samples.jsonl",
        lambda line: (
            failed(line) if (line["case"], line["sample_id"]) == ("clip", "scene-0003") else line
        ),
    )
    quality = judged(folder, quantity="quality.mIoU", at_least=-2)
    mIoU = {case.name: case.quality.mIoU for case in summarise(read_run(folder)).cases}
    assert quality.measured == pytest.approx(100 * (mIoU["clip"] - mIoU["dual"]), rel=1e-9, abs=0)
    time = judged(folder, quantity="time.end_to_end", at_most=0.5)
    assert time.reason == "clip does not fit the memory of this machine"


@pytest.mark.parametrize(
    ("entry", "claim", "expected"),
    [
        ({}, {"quantity": None, "candidate": None, "needs": "a training"}, "it needs a training"),
        (
            {},
            {"quantity": "time.vision", "candidate": "gone", "at_most": 1},
            "gone is not among the cases",
        ),
        (
            {"error": "build: broken"},
            {"quantity": "time.vision", "at_most": 1},
            "clip failed: build: broken",
        ),
        ({"clock": "cuda events"}, {"quantity": "time.vision", "at_most": 1}, "different clocks"),
        (
            {"memory_error": "killed"},
            {"quantity": "memory.peak", "at_most": 1},
            "clip failed: killed",
        ),
        ({}, {"quantity": "memory.vision", "at_most": 1}, "this run was on a CPU"),
        (
            {},
            {"quantity": "energy.query", "at_most": 1},
            "no process of both cases has read a GPU's energy counter",
        ),
        (
            {"has_quality": False},
            {"quantity": "quality.gIoU", "at_least": 1},
            "random weights have no quality",
        ),
        (
            {"has_quality": None},
            {"quantity": "quality.gIoU", "at_least": 1},
            "clip has not been built yet",
        ),
        (
            {},
            {"quantity": "fits", "reference": None, "card": "8GB"},
            "it takes an NVIDIA GPU, and the case ran on a CPU",
        ),
    ],
)
def test_what_was_not_measured_says_why(tmp_path, entry, claim, expected):
    edit_entry(write_run(tmp_path, **PLAIN), "clip", **entry)
    found = judged(tmp_path, **claim)
    assert (found.verdict, found.measured, found.interval) == ("not measured", None, None)
    assert expected in found.reason


def test_the_memory_of_vision_needs_the_weights_of_each_part(tmp_path):
    write_run(tmp_path, **PLAIN, clock="cuda events")
    found = judged(tmp_path, quantity="memory.vision", at_most=1)
    assert "weights of each part of dual were not measured" in found.reason


def test_cases_without_records_are_not_measured(tmp_path):
    write_run(tmp_path, **PLAIN)
    for name in ("samples.jsonl", "memory.jsonl"):
        write_lines(tmp_path / name, [])
    for quantity, bound in (
        ("time.vision", "at_most"),
        ("memory.peak", "at_most"),
        ("quality.mIoU", "at_least"),
    ):
        found = judged(tmp_path, quantity=quantity, **{bound: 1})
        assert found.verdict == "not measured" and found.reason


def memory_line(case, process, start_mib, peak_mib, instrument="cuda allocator", stage="vision"):
    return {
        "case": case, "process": process, "stage": stage, "instrument": instrument,
        "start_bytes": start_mib << 20, "peak_bytes": peak_mib << 20,
        "peak_reserved_bytes": None, "device_process_bytes": None, "queries": 2,
    }  # fmt: skip


def test_the_memory_of_vision_is_its_weights_and_what_it_allocates(tmp_path):
    """(100 + 50) MiB of 400 + 200: a quarter, whatever the language model takes."""
    write_run(tmp_path, **PLAIN)
    edit_entry(
        tmp_path, "dual", weights={"clip": 90 << 20, "sam_encoder": 310 << 20, "llm": 5 << 30}
    )
    edit_entry(
        tmp_path, "clip", weights={"clip": 90 << 20, "bridge": 10 << 20, "llm": 1 << 30, "other": 7}
    )
    lines = [memory_line("dual", process, 5000, 5200) for process in (0, 1)]
    lines += [memory_line("clip", process, 1000, 1050) for process in (0, 1)]
    write_lines(tmp_path / "memory.jsonl", [*lines, memory_line("clip", 0, 0, 9000, stage="llm")])
    found = judged(tmp_path, quantity="memory.vision", at_most=0.5)
    assert found.verdict == "confirmed"
    assert found.measured == pytest.approx(0.25, rel=1e-9, abs=0)
    assert found.reason == (  # 1050 of 5200 MiB
        "by the weights of the vision parts and what the stage allocates; "
        "the peak of the vision stage is 0.20x"
    )


@pytest.mark.parametrize("quantity", ["memory.peak", "memory.vision"])
@pytest.mark.parametrize(
    ("instrument", "expected"),
    [("cuda allocator", ("confirmed", 0.5)), ("resident set", ("not measured", None))],
)
def test_claims_on_gpu_memory_are_not_measured_on_a_cpu(tmp_path, quantity, instrument, expected):
    write_run(tmp_path, **PLAIN)
    for case, mib in (("dual", 1000), ("clip", 500)):
        edit_entry(tmp_path, case, weights={"clip": mib << 20})
    sides = (("dual", 1000), ("clip", 500))
    lines = [
        memory_line(case, process, 0, peak, instrument)
        for case, peak in sides
        for process in (0, 1)
    ]
    write_lines(tmp_path / "memory.jsonl", lines)
    found = judged(tmp_path, quantity=quantity, at_most=0.6)
    assert (found.verdict, found.measured) == expected
    assert ("this run was on a CPU" in (found.reason or "")) == (instrument == "resident set")


@pytest.mark.parametrize(
    ("tried", "verdict", "measured_gib", "expected"),
    [
        (
            {"status": "ok"},
            "confirmed",
            6.5,
            "answered 4 of 4 queries under the cap",
        ),  # by the plan: an older record
        (
            {"status": "ok", "asked": 3, "answered": 3},
            "confirmed",
            6.5,
            "answered 3 of 3 queries under the cap",
        ),
        (
            {"status": "oom", "reason": "no", "asked": 3, "answered": 1},
            "refuted",
            6.5,
            "answered 1 of 3 queries",
        ),
        (
            {"status": "oom", "reason": "no"},
            "refuted",
            6.5,
            "how many queries were answered under the cap is not",
        ),
        (
            {"status": "oom", "reason": "OutOfMemoryError: 8"},
            "refuted",
            6.5,
            "ran out of memory: OutOfMemoryError: 8",
        ),
        (
            {"status": "ok", "device_process_bytes": 9 * GIB},
            "inconclusive",
            6.5,
            "driver counts 9.00 GiB",
        ),
        (
            {"status": "skipped", "reason": "it takes an NVIDIA GPU"},
            "not measured",
            None,
            "NVIDIA GPU",
        ),
        (
            {"status": "error", "reason": "RuntimeError: no"},
            "not measured",
            None,
            "RuntimeError: no",
        ),
    ],
)
def test_a_case_fits_a_card_where_a_capped_process_answered(
    tmp_path, tried, verdict, measured_gib, expected
):
    write_run(tmp_path, **PLAIN)
    known = {
        "reason": None,
        "peak_reserved_bytes": 6 * GIB,
        "beside_bytes": GIB // 2,
        "device_process_bytes": None,
    }
    other = {"case": "clip", "card": "4GB", "status": "oom", "reason": "not this one"}
    write_lines(
        tmp_path / "fits.jsonl", [other | known, {"case": "clip", "card": "8GB"} | known | tried]
    )
    found = judged(tmp_path, quantity="fits", reference=None, card="8GB", at_most=8 * GIB)
    assert found.verdict == verdict
    assert found.measured == (None if measured_gib is None else measured_gib * GIB)
    assert expected in found.reason


def suite_of(data_root, claims, **changes):
    cases = {"a": QUICK, "b": QUICK | {"vision_ms": 2.0, "mask": "empty"}}
    return suite_file.validate(content_of(data_root, cases, {}, claims=claims) | changes)


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        (FASTER | {"quantity": "time.end_to_edn"}, "did you mean 'time.end_to_end'"),
        (FASTER | {"candidate": "c"}, "unknown case in a claim 'c'; known: a, b"),
        (FASTER | {"reference": "c"}, "unknown case in a claim 'c'; known: a, b"),
        (FASTER | {"at_least": 0.5}, "exactly one bound"),
        (FASTER | {"at_most": None}, "exactly one bound"),
        (FASTER | {"at_most": 0}, "those are above 0"),
        (FASTER | {"candidate": None}, "names no candidate"),
        (FASTER | {"candidate": "a"}, "compares a with itself"),
        (
            FASTER | {"card": "8GB"},
            "must have a card, such as 8GB, with the quantity fits and no other",
        ),
        (FASTER | {"needs": "time"}, "must have a quantity or, in needs"),
        (FASTER | {"at_mots": 0.5}, "at_mots"),
        (FITS | {"card": None}, "must have a card"),
        (FITS | {"card": "8"}, "8GB"),
        (FITS | {"at_most": 8}, "has a bound"),
        (FITS | {"reference": "a"}, "has a reference"),
        (FITS | {"published": 8}, "that is what was published"),
        ({"claim": "c"}, "must have a quantity or, in needs"),
        ({"claim": "c", "needs": "x", "candidate": "a"}, "has a candidate"),
        ({"claim": "c", "needs": "x", "at_most": 1}, "has a bound"),
    ],
)
def test_a_claim_that_cannot_be_put_to_the_test_is_refused_in_one_line(data_root, claim, expected):
    with pytest.raises(UsageError) as caught:
        suite_of(data_root, [claim])
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_times_are_compared_only_between_cases_that_take_turns(data_root):
    cases = {name: {"adapter": "fake"} for name in "abcd"}
    changes = {"cases": cases, "groups": {"one": ["a", "b"], "two": ["c", "d"]}}
    with pytest.raises(UsageError, match="of a and d, which are not measured in turn"):
        suite_of(data_root, [FASTER | {"candidate": "d", "reference": "a"}], **changes)
    suite = suite_of(data_root, [FASTER | {"candidate": "d"}], **changes)
    (claim,) = suite.claims
    assert claim.as_recorded(suite.references_for(claim))["reference"] == "c"


def session(suite, folder):
    return Session(suite, Queries.of(suite), folder, lambda *_: None)


def test_the_claims_of_a_run_come_out_as_what_its_models_do(data_root, tmp_path):
    """b takes 2 ms instead of 4 in vision, 8 instead of 10 in all, and answers nothing; it has one
    memory process.
    """
    stated = [
        FASTER | {"published": 0.75},
        FASTER | {"claim": "vision in a third", "quantity": "time.vision", "at_most": 0.34},
        {"claim": "as good", "quantity": "quality.mIoU", "candidate": "b", "at_least": -2},
        FITS,
        {"claim": "learns faster", "needs": "a training"},
    ]
    session(suite_of(data_root, stated), tmp_path / "out").start()
    summary = write_summary(read_run(tmp_path / "out"))
    assert summary.status == "complete"
    verdicts = ["confirmed", "refuted", "refuted", "not measured", "not measured"]
    assert [claim.verdict for claim in summary.claims] == verdicts
    measured = [claim.measured for claim in summary.claims]
    assert measured[:3] == pytest.approx([0.8, 0.5, -100], rel=1e-9, abs=0)
    written = json.loads((tmp_path / "out" / "summary.json").read_text())["claims"]
    assert all({"claim", "verdict", "measured", "interval"} <= set(claim) for claim in written)
    assert written[0]["interval"] == pytest.approx([0.8, 0.8], rel=1e-9, abs=0)
    assert (written[0]["published"], written[0]["reference"]) == (0.75, "a")
    assert "NVIDIA GPU" in written[3]["reason"]
    assert (written[3]["at_most"], written[3]["reference"]) == (8 * GIB, None)


def tries(session, monkeypatch, *answers):
    """Let the capped processes of a session answer so, one after the other.

    Return the settings that they were started with.
    """
    pool = session.run.pool
    start, orders, answers = pool.start_case, [], list(answers)

    def try_fit(_queries, _outside_bytes):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def instead(order, gpu=None):
        if order.gpu_memory is None:
            return start(order, gpu)
        orders.append(order)
        return nullcontext(SimpleNamespace(try_fit=try_fit))

    monkeypatch.setattr(pool, "start_case", instead)
    return orders


OUT_OF_MEMORY = {"status": "oom", "reason": "OutOfMemoryError: no more", "beside_bytes": GIB}
OUT_OF_MEMORY |= {"peak_reserved_bytes": 6 * GIB, "device_process_bytes": None}


def test_a_refuted_fit_is_a_result_and_no_failure_and_is_not_tried_again(
    data_root, tmp_path, monkeypatch, capsys
):
    suite = suite_of(data_root, [FITS, FITS | {"claim": "it still fits"}])
    first, again = session(suite, tmp_path / "out"), session(suite, tmp_path / "out")
    orders = tries(first, monkeypatch, OUT_OF_MEMORY)
    first.start()
    assert [(order.adapter, order.config, order.gpu_memory) for order in orders] == [
        ("fake", suite.case("b").config, "8GB")
    ]
    assert not tries(again, monkeypatch)
    again.resume()
    rows = read_lines(tmp_path / "out" / "fits.jsonl")
    assert [(row["case"], row["card"], row["status"], row["attempt"]) for row in rows] == [
        ("b", "8GB", "oom", 0)
    ]
    assert runs.conclude(tmp_path / "out") == 0
    assert "claims: 2 refuted\n" in capsys.readouterr().out
    summary = summarise(read_run(tmp_path / "out"))
    assert [(claim.verdict, claim.measured) for claim in summary.claims] == [
        ("refuted", 7 * GIB)
    ] * 2


@pytest.mark.parametrize(
    "broken",
    [
        WorkerLost("timeout", "no answer in 2 s"),
        UsageError("the driver does not tell how much is used"),
    ],
)
def test_a_fit_that_could_not_be_tried_stops_nothing_and_is_tried_again(
    data_root, tmp_path, monkeypatch, broken
):
    suite = suite_of(data_root, [FITS])
    first, again = session(suite, tmp_path / "out"), session(suite, tmp_path / "out")
    tries(first, monkeypatch, broken)
    first.start()
    run = read_run(tmp_path / "out")
    assert (run.manifest.status, summarise(run).claims[0].verdict) == ("complete", "not measured")
    assert str(broken) in summarise(run).claims[0].reason
    tries(again, monkeypatch, OUT_OF_MEMORY)
    again.resume()
    run = read_run(tmp_path / "out")
    fits = [fit for case in run.cases for fit in case.fits]
    assert [(fit.status, fit.attempt) for fit in fits] == [("oom", 1)]
    assert Counter(query.attempt for case in run.cases for query in case.queries) == {0: 24}


@dataclass(frozen=True)
class FakeOnGpu(FakeCase):
    device: str = "cuda"


class Meter:
    instrument = "cuda allocator"

    def __init__(self) -> None:
        self.readings = 0

    def reset(self) -> int:
        return 0

    def read(self, start_bytes):
        self.readings += 1
        return Reading(start_bytes, GIB, (4 + self.readings) << 20, None)


@pytest.mark.parametrize(
    ("fails", "status", "reserved_mib"),
    [
        ({}, "ok", 16),
        ({"fail": "oom", "fail_every": 2}, "oom", 13),
        ({"fail_every": 1}, "error", 12),  # three queries are tried, two stages of each
    ],
)
def test_a_capped_process_says_how_it_ended_and_what_it_had_taken(
    data_root, monkeypatch, fails, status, reserved_mib
):  # the meter reads 1 MiB more each time: the build, five stages a query, the end
    capped = []
    monkeypatch.setattr(case_worker.environment, "resolve_device", lambda device: device)
    monkeypatch.setattr(case_worker, "meter_for", lambda _: Meter())
    monkeypatch.setattr(case_worker, "cap_gpu", lambda card, _: capped.append(card) or card - GIB)
    data = {"root": data_root, "split": "val"}
    order = WorkerSettings("fake", FakeOnGpu(clock="virtual", **fails), data, gpu_memory="8GB")
    found = case_worker.CaseWorker(order).try_fit(2)
    assert capped == [8 * GIB]
    assert (found["status"], found["beside_bytes"]) == (status, GIB)
    assert found["peak_reserved_bytes"] == reserved_mib << 20
    assert (found["reason"] is None) == (status == "ok")


@pytest.mark.parametrize(("fails", "answered"), [({}, 4), ({"fail": "oom", "fail_every": 3}, 2)])
def test_a_capped_process_counts_the_queries_of_whole_batches(
    data_root, monkeypatch, fails, answered
):
    monkeypatch.setattr(case_worker.environment, "resolve_device", lambda device: device)
    monkeypatch.setattr(case_worker, "meter_for", lambda _: Meter())
    monkeypatch.setattr(case_worker, "cap_gpu", lambda card, _: card - GIB)
    data = {"root": data_root, "split": "val"}
    config = FakeOnGpu(clock="virtual", **fails)
    order = WorkerSettings("fake", config, data, gpu_memory="8GB", batch=2)
    fit = case_worker.CaseWorker(order).try_fit(4)
    assert (fit["asked"], fit["answered"]) == (4, answered)


def test_the_report_shows_what_was_published_beside_what_was_measured(tmp_path):
    write_run(tmp_path, **PLAIN)
    common = {"reference": "dual", "candidate": "clip", "claim": "a | b"}
    edit_run(tmp_path, claims=[
        EMPTY_CLAIM | common
        | {"quantity": "time.vision", "at_most": 0.5, "published": 0.5, "source": "The paper"},
        EMPTY_CLAIM | common | {"quantity": "quality.mIoU", "at_least": -2},
        EMPTY_CLAIM | {"claim": "learns faster", "needs": "a training"},
    ])  # fmt: skip
    text = write_report(tmp_path).read_text()
    section = text.split("| verdict |")[1]
    found = summarise(read_run(tmp_path)).claims[0]
    low, high = found.interval
    assert (
        f"| **confirmed** | a \\| b | {found.measured:.2f}x [{low:.2f}, {high:.2f}] "
        "| at most 0.50x | 0.50x |" in section
    )
    quality = summarise(read_run(tmp_path)).claims[1]
    assert quality.interval[0] < quality.measured < quality.interval[1] < -2
    assert "| **refuted** | a \\| b |" in section and "| at least -2.0 points | - |" in section
    assert "- a \\| b: `time.vision` of `clip` against `dual`. The paper." in section
    assert "- learns faster: not measured: it needs a training." in section


def test_a_run_without_claims_says_nothing_of_them(tmp_path, capsys):
    text = write_report(write_run(tmp_path, **PLAIN)).read_text()
    terminal.print_summary(tmp_path)
    assert "Claims" not in text
    assert "claims:" not in capsys.readouterr().out


def test_both_suites_state_the_same_nine_claims_for_both_encoders():
    full, tiny = suite_file.load("claims"), suite_file.load("claims-tiny")
    assert full.claims == tiny.claims
    encoders: dict[str, set[str]] = {}
    for claim in full.claims:
        before, names_one, _ = claim.claim.partition("'s encoder shared")
        what, _, encoder = before.rpartition(", ") if names_one else (claim.claim, "", "both")
        encoders.setdefault(what, set()).add(encoder)
    assert len(encoders) == 9
    shared = [sides for sides in encoders.values() if sides != {"both"}]
    assert len(shared) == 6 and all(sides == {"CLIP", "SAM"} for sides in shared)
    assert {case.config.preset for case in full.models} == {"lisa-7b-llava15"}
    assert {case.device for case in tiny.models} == {"cpu"}


def test_the_suites_of_claims_hold_the_documents_model_in_every_setting():
    for name in ("claims", "claims-tiny"):
        suite = suite_file.load(name)
        cases = {case.name: case.config for case in suite.models}
        for vision in ("clip", "sam"):
            for case in (cases[vision], cases[f"{vision}-nf4"]):
                assert (case.vision, case.conditioning, case.seg_head) == (
                    vision,
                    "described",
                    "seg_token_to_sam",
                )
            whole = {"clip": "clip", "sam": "sam_encoder"}[vision]
            assert cases[f"{vision}-nf4"].quantized_parts == {"llm", whole}, (
                "the document loads all models in NF4"
            )
    full = suite_file.load("claims")
    assert full.case("sam").config.sizes.llama.vocabulary == 32001
    assert {case.config.execution for case in full.models} == {"graphed"}
    assert {case.config.answer for case in full.models} == {"forced"}


def test_what_generates_answers_is_conditioned_like_the_original():
    suite = suite_file.load("claims-generated")
    for case in suite.models:
        as_used = case.name.endswith("as-used")
        expected = ("forced", "described") if as_used else ("generated", "original")
        assert (case.config.answer, case.config.conditioning) == expected
        if case.name.endswith("-nf4"):
            whole = {"clip": "clip", "sam": "sam_encoder"}
            assert {"llm", *[whole[v] for v in whole if v in case.name]} <= (
                case.config.quantized_parts
            )


@pytest.mark.parametrize(
    ("answers", "regime"),
    [
        (("forced", "forced"), "teacher-forced"),
        (("generated", "generated"), "generated, 16 tokens"),
        (("generated", "forced"), "teacher-forced against generated, 16 tokens"),
        ((None, "forced"), None),  # not a LISA, or a run from before there was the setting
    ],
)
def test_a_claim_says_how_the_answers_of_its_cases_came_about(tmp_path, answers, regime):
    folder = write_run(tmp_path / "r", **PLAIN)
    for name, answer in zip(("dual", "clip"), answers, strict=True):
        settings = {"answer": answer, "max_new_tokens": 16}
        edit_entry(folder, name, settings={key: value for key, value in settings.items() if value})
    result = judged(folder, quantity="time.end_to_end", at_most=0.8)
    assert result.regime == regime


def test_the_regime_of_the_candidate_is_named_first_whatever_the_order_of_the_cases(tmp_path):
    folder = write_run(tmp_path / "r", **PLAIN)
    edit_entry(folder, "dual", settings={"answer": "forced"})
    edit_entry(folder, "clip", settings={"answer": "generated", "max_new_tokens": 16})
    claim = {"quantity": "time.end_to_end", "at_most": 0.8}
    result = judged(folder, **claim, candidate="dual", reference="clip")
    assert result.regime == "teacher-forced against generated, 16 tokens"


def test_the_suite_says_what_each_verdict_means(tmp_path):
    folder = write_run(tmp_path / "r", **PLAIN)
    means = {"confirmed": "Take it.", "refuted": "Leave it."}
    for bound, meaning in [(100, "Take it."), (0.001, "Leave it.")]:
        claim = judged(folder, quantity="time.end_to_end", at_most=bound, means=means)
        assert claim.meaning == meaning
    silent = judged(folder, quantity="time.end_to_end", at_most=100)
    assert silent.meaning is None


def test_reserved_memory_is_what_the_allocator_held_at_most_in_a_query(tmp_path):
    folder = write_run(tmp_path / "r", **PLAIN)
    lines = []
    for case, sizes in {"dual": (9, 12, 10), "clip": (9, 3, 6)}.items():
        for process in (0, 1):
            for stage, size in zip(("build", "vision", "llm"), sizes, strict=True):
                peaks = {"peak_bytes": 1, "peak_reserved_bytes": size * GIB, "start_bytes": 0}
                place = {"case": case, "process": process, "attempt": 0, "stage": stage}
                lines.append(place | peaks | {"instrument": "cuda allocator", "queries": 2})
    write_lines(folder / "memory.jsonl", lines)
    claim = judged(folder, quantity="memory.reserved", at_most=0.6)
    assert (claim.measured, claim.verdict) == (pytest.approx(6 / 12), "confirmed")
