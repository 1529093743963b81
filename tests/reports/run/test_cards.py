"""Which card runs what: the rule, the records that it reads, and the table that shows it."""

import io
import json

import pytest
from markdown_rows import rows_of
from places import RESULTS
from run_factory import edit_lines, edit_run, write_lines, write_run
from training_factory import falling, write_training

from lisabench.harness.records.run import read_run
from lisabench.reports.cards import (
    CardVerdict,
    Unlimited,
    cell,
    fits_by_peak,
    narrow_cell,
    why_not_imitated,
)
from lisabench.reports.html.page import html
from lisabench.reports.page import terminal
from lisabench.reports.page.page import report_text
from lisabench.reports.peaks import OnCard, bytes_on_card
from lisabench.reports.run.summary import summarise
from lisabench.reports.run.verdicts import in_a_sentence

pytestmark = pytest.mark.no_clock

GIB = 2**30
CARDS = ["8GB", "12GB", "16GB", "24GB"]
# What each case of the run takes, in GiB: reserved by the allocator, and outside of it.
TAKEN_GIB = {"dual": (15.3, 0.7), "sam": (6.3, 0.7), "clip": (4.1, 0.6)}


def taken(size_bytes):
    return Unlimited(OnCard(size_bytes))


def test_a_peak_15_percent_below_or_above_the_card_decides_and_nearer_it_is_open():
    card_bytes = 8 * GIB
    below, above = int(0.85 * card_bytes), int(1.15 * card_bytes) + 1
    assert fits_by_peak(taken(below), "8GB") is True
    assert fits_by_peak(taken(below + 2), "8GB") is None
    assert fits_by_peak(taken(card_bytes), "8GB") is None
    assert fits_by_peak(taken(above - 2), "8GB") is None
    assert fits_by_peak(taken(above), "8GB") is False
    assert fits_by_peak(taken(None), "8GB") is None


def test_what_is_reserved_alone_can_only_say_that_a_card_is_too_small():
    in_part = Unlimited(bytes_on_card(6 * GIB, None))
    assert [fits_by_peak(in_part, card) for card in ("4GB", "8GB", "24GB")] == [False, None, None]


def test_out_of_memory_decides_for_the_cards_up_to_the_gpu_that_it_happened_on():
    """A card sold as 12GB says of itself that it has 11.6 GiB."""
    ran_out = Unlimited(OnCard(None), ran_out=True, gpu_bytes=int(11.6 * GIB))
    assert [fits_by_peak(ran_out, card) for card in CARDS] == [False, False, None, None]
    assert why_not_imitated(ran_out.gpu_bytes, "12GB") is None
    assert "a card of 16GB" in why_not_imitated(ran_out.gpu_bytes, "16GB")


def run_on_cards(folder, **keys):
    """A run of three models on a GPU: `dual` was tried on a card of 16 GB, `sam` on one of 8 GB."""
    write_run(folder, clock="cuda events", queries=8, size=(24, 32), gallery=0, controls=False)
    plan = json.loads((folder / "run.json").read_text())["plan"] | {"memory_queries": 4}
    edit_run(folder, cards=CARDS, plan=plan, **keys)

    def sized(line):
        reserved_gib, outside_gib = TAKEN_GIB[line["case"]]
        line |= {"peak_reserved_bytes": int(reserved_gib * GIB), "queries": 4}
        return line | ({"beside_bytes": int(outside_gib * GIB)} if line["stage"] == "build" else {})

    edit_lines(folder / "memory.jsonl", sized)
    tried = {"attempt": 0, "reason": None, "beside_bytes": int(0.7 * GIB), "asked": 4}
    tried |= {"device_process_bytes": None}
    out_of_memory = {"status": "oom", "reason": "no more", "answered": 1}
    write_lines(
        folder / "fits.jsonl",
        [
            tried
            | {"case": "dual", "card": "16GB", "peak_reserved_bytes": 15 * GIB}
            | out_of_memory,
            tried
            | {"case": "sam", "card": "8GB", "status": "ok", "answered": 4}
            | {"peak_reserved_bytes": 6 * GIB},
        ],
    )
    return folder


def test_the_limited_process_decides_where_there_was_one_and_the_peak_elsewhere(tmp_path):
    summary = summarise(read_run(run_on_cards(tmp_path)))
    cells = {row.name: [cell(verdict, row.kind) for verdict in row.cards] for row in summary.cards}
    assert cells == {
        "dual": ["no", "no", "no, capped: 1 of 4 answered", "yes 16.0 GiB"],
        "sam": ["yes 6.7 GiB, capped: 4 of 4 answered", *["yes 7.0 GiB"] * 3],
        "clip": ["yes 4.7 GiB"] * 4,
    }
    (sam,) = [row for row in summary.cards if row.name == "sam"]
    assert (sam.cards[1].done, sam.cards[1].of) == (4, 4)
    counted = "Of 3 cases, 2 run on 8GB, 2 on 12GB, 2 on 16GB and 3 on 24GB."
    assert in_a_sentence(summary).startswith(counted)


def test_the_headline_names_a_single_case_and_says_how_often_it_is_not_known(tmp_path):
    (run_on_cards(tmp_path) / "fits.jsonl").unlink()
    summary = summarise(read_run(tmp_path))
    unknown = "2 on 16GB and 3 on 24GB; on 2 more of these cards it is not known."
    assert unknown in in_a_sentence(summary)
    (sam,) = [row for row in summary.cards if row.name == "sam"]
    alone = summary.model_copy(update={"cards": [sam], "comparisons": []})
    assert in_a_sentence(alone) == (
        "sam runs on 12GB, 16GB and 24GB; on 1 more of these cards it is not known."
    )
    nowhere = [one.model_copy(update={"fits": "no"}) for one in sam.cards]
    alone = alone.model_copy(update={"cards": [sam.model_copy(update={"cards": nowhere})]})
    assert in_a_sentence(alone) == "sam runs on none of the cards."


def test_a_limited_process_that_took_more_than_the_card_cannot_tell(tmp_path):
    edit_lines(
        run_on_cards(tmp_path) / "fits.jsonl",
        lambda fit: fit | ({"peak_reserved_bytes": 8 * GIB} if fit["case"] == "sam" else {}),
    )
    summary = summarise(read_run(tmp_path))
    (sam,) = [row for row in summary.cards if row.name == "sam"]
    assert (sam.cards[0].fits, sam.cards[0].reason) == ("cannot tell", "the process took 8.70 GiB")


def test_a_card_near_the_peak_that_was_not_tried_yet_is_not_measured(tmp_path):
    (run_on_cards(tmp_path) / "fits.jsonl").unlink()
    summary = summarise(read_run(tmp_path))
    (sam,) = [row for row in summary.cards if row.name == "sam"]
    assert sam.cards[0].fits == "not measured"
    reason = "it has not been tried on a card of 8GB yet"
    assert sam.cards[0].reason == reason
    below = f"Not measured: it has not been tried on a card of 16GB yet; {reason}."
    assert below in report_text(read_run(tmp_path), summary)
    assert below in html(read_run(tmp_path), summary)
    assert below in " ".join(" ".join(printed(summary, 80)).split())


def test_the_page_of_a_run_without_times_begins_with_the_cards_and_has_no_empty_columns():
    run = read_run(RESULTS / "cards-7b")
    page = html(run, summarise(run))
    assert page.index("<h2>Which card runs what</h2>") < page.index("<h2>Memory</h2>")
    assert "<th>ms</th>" not in page and "Milliseconds:" not in page
    assert page.count("ime was not measured on both sides") == 1, "not once for each of 14 variants"
    assert page.count('<p class="note">Time was not measured on both sides.</p>') == 1
    run = read_run(RESULTS / "claims")
    page = html(run, summarise(run))
    assert "<th>ms</th>" in page and "Milliseconds:" in page


def test_a_claim_that_a_case_fits_is_decided_by_the_same_rule(tmp_path):
    def claim(name, card):
        size = int(card[:-2]) * GIB
        stated = {"claim": f"{name} {card}", "quantity": "fits", "candidate": name, "card": card}
        return stated | {"reference": None, "at_most": size}

    claims = [claim("clip", "8GB"), claim("dual", "8GB"), claim("sam", "8GB")]
    found = summarise(read_run(run_on_cards(tmp_path, claims=claims))).claims
    assert [one.verdict for one in found] == ["confirmed", "refuted", "confirmed"]
    assert found[0].measured == pytest.approx(4.7 * GIB, rel=1e-6, abs=0)
    assert "answered 4 of 4 queries without a cap" in found[0].reason
    assert "answered 4 of 4 queries under the cap" in found[2].reason


def test_a_training_is_decided_by_the_largest_of_its_seeds_or_by_the_limited_one(tmp_path):
    rows = [
        {"name": "full", "seed": 0, "folder": "trainings/full-0", "status": "complete"},
        {"name": "full", "seed": 1, "folder": "trainings/full-1", "status": "complete"},
        {"name": "full", "seed": 0, "folder": "trainings/full-0-8GB", "status": "oom"}
        | {"card": "8GB", "reason": "no more"},
    ]
    rows += [rows[-1] | {"card": card, "status": "by peak", "reason": None} for card in CARDS[1:]]
    run_on_cards(tmp_path, trainings=rows, definition={"trainings": {"full": {"optim": "adamw"}}})
    for seed, reserved in enumerate((6.0, 7.0)):
        folder = write_training(
            tmp_path / f"trainings/full-{seed}",
            seed=seed,
            losses=falling(4),
            mious=[0.1],
            memory={"beside_bytes": GIB // 2},
        )
        edit_lines(
            folder / "training.jsonl",
            lambda line, size=reserved: (
                line | ({"peak_reserved_bytes": int(size * GIB)} if line["kind"] == "epoch" else {})
            ),
        )
    summary = summarise(read_run(tmp_path))
    row = summary.cards[-1]
    assert (row.name, row.kind, row.regime) == ("full", "training", "adamw")
    assert [cell(verdict, row.kind) for verdict in row.cards] == [
        "no, capped: not counted",
        *["yes 7.5 GiB"] * 3,
    ]
    text = report_text(read_run(tmp_path), summary)
    assert "| full, 8GB | 0 | oom |" in text and "by peak" not in text


def test_a_training_near_the_size_of_a_card_has_not_been_tried_until_a_limited_one_ends(tmp_path):
    rows = [
        {"name": "full", "seed": 0, "folder": "trainings/full-0", "status": "complete"},
        {"name": "full", "seed": 0, "folder": "trainings/full-0-8GB", "card": "8GB"},
    ]
    run_on_cards(tmp_path, trainings=rows, definition={"trainings": {"full": {}}})
    folder = write_training(
        tmp_path / "trainings/full-0", losses=falling(4), mious=[0.1], memory={"beside_bytes": GIB}
    )
    edit_lines(
        folder / "training.jsonl",
        lambda line: line | ({"peak_reserved_bytes": 7 * GIB} if line["kind"] == "epoch" else {}),
    )
    verdict = summarise(read_run(tmp_path)).cards[-1].cards[0]
    assert (verdict.card, verdict.fits) == ("8GB", "not measured")
    assert verdict.reason == "it has not been tried on a card of 8GB yet"


def test_a_run_that_was_limited_to_a_card_as_a_whole_has_no_peak_that_decides(tmp_path):
    run_on_cards(tmp_path)
    plan = json.loads((tmp_path / "run.json").read_text())["plan"]
    edit_run(tmp_path, plan=plan | {"gpu_memory": "24GB"})
    rows = {row.name: row.cards for row in summarise(read_run(tmp_path)).cards}
    assert {verdict.fits for verdict in rows["clip"]} == {"not measured"}
    assert rows["sam"][0].fits == "yes"


def printed(summary, width):
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width, color_system=None)
    for part in terminal.parts(summary, width):
        console.print(part)
    return console.file.getvalue().splitlines()


def test_every_page_has_one_table_of_cards_which_fits_a_terminal_of_80_columns(tmp_path):
    run = read_run(run_on_cards(tmp_path))
    summary = summarise(run)
    _, section = report_text(run, summary).split("## Which card runs what")
    rows = rows_of(section.split("<details>")[0])
    assert rows["clip"] == ["", *["yes 4.7 GiB"] * 4]
    page = html(run, summary)
    assert page.count("<h2>Which card runs what</h2>") == 1
    assert "no, capped: 1 of 4 answered" in page
    lines = printed(summary, 80)
    assert max(map(len, lines)) <= 80
    (heading,) = [line for line in lines if line.split() == ["runs", "on", "regime", *CARDS]]
    row = lines[lines.index(heading) + 2]
    assert row.split() == ["dual", "no", "no", "no", "yes", "16.0", "GiB"]
    assert lines[lines.index(heading) + 3].split() == ["(1", "of", "4)"]


def test_every_page_says_how_many_queries_were_answered_and_how_long_the_longest_prompt_was(
    tmp_path,
):
    edit_lines(
        run_on_cards(tmp_path) / "memory.jsonl",
        lambda line: (
            line
            | ({"prompt_tokens": 1310} if line["stage"] == "llm" else {})
            | ({"queries": 3} if line["case"] == "sam" else {})
        ),
    )
    run = read_run(tmp_path)
    summary = summarise(run)
    sentence = (
        "Without a cap dual and clip answered 4 of 4 queries; sam answered 3 of 4 queries. "
        "The longest prompt had 1,310 tokens."
    )
    assert sentence in report_text(run, summary)
    assert sentence in html(run, summary)
    assert sentence in " ".join(" ".join(printed(summary, 80)).split())


def test_a_run_without_cards_has_no_table_of_them(tmp_path):
    write_run(tmp_path, queries=4, size=(24, 32), gallery=0, controls=False)
    run = read_run(tmp_path)
    summary = summarise(run)
    assert summary.cards == []
    assert "Which card" not in report_text(run, summary) + html(run, summary)


def test_a_cell_says_how_much_a_limited_process_has_done():
    verdict = CardVerdict(card="8GB", fits="yes", capped=True, taken_bytes=7 * GIB, done=8, of=8)
    assert cell(verdict, "training") == "yes 7.0 GiB, capped: 8 of 8 steps"
    assert narrow_cell(verdict) == "yes 7.0 GiB\n(8 of 8)"
