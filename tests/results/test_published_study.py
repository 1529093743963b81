"""What the documents and LOG say of the published study is what its records give, by number."""

import re
from statistics import median

import pytest
from places import ROOT

from lisabench.benchmarks.study.variants import VARIANTS
from lisabench.harness.records.pixel_counts import CONTROLS
from lisabench.harness.records.study import StudyRecords, read_study
from lisabench.models.lisa.config import LisaConfig
from lisabench.models.training.recipes import RECIPES
from lisabench.reports import formatting
from lisabench.reports.drawing import Drawn
from lisabench.reports.study import tables
from lisabench.reports.study.figures import CURVES, FOREST, TRADEOFF
from lisabench.reports.study.groups import differences, trainings_by_recipe
from lisabench.reports.study.page import study_page
from lisabench.reports.study.schema import Recipe, StudySummary
from lisabench.reports.study.summary import summarise_study

pytestmark = pytest.mark.no_clock

PUBLISHED = ROOT / "results" / "accuracy-tiny"
STUDY = ROOT / "docs" / "study.md"
WITH_A_FRACTION = re.compile(r"\d+\.\d+")


@pytest.fixture(scope="module")
def records() -> StudyRecords:
    return read_study(PUBLISHED)


@pytest.fixture(scope="module")
def summary(records) -> StudySummary:
    return summarise_study(records)


@pytest.fixture(scope="module")
def document() -> str:
    """The document on the study, on one line."""
    return on_one_line(STUDY.read_text())


@pytest.fixture(scope="module")
def log() -> str:
    """The corrections of the LOG, without the marks of their lines."""
    text = (ROOT / "results" / "LOG.md").read_text()
    lines = [line.removeprefix(">") for line in text.splitlines() if line.startswith(">")]
    corrections = on_one_line("\n".join(lines))
    assert "Corrected 2026-11-29" in corrections
    return corrections


def on_one_line(text: str) -> str:
    return " ".join(text.split())


def recipe(summary: StudySummary, name: str) -> Recipe:
    found = summary.recipe(name)
    assert found is not None, name
    return found


def table_rows(text: str) -> dict[str, list[str]]:
    """Return the cells of each row of a Markdown table, by the name in backticks in the first."""
    rows = re.findall(r"^\| `([\w-]+)` \|(.*)\|$", text, re.MULTILINE)
    return {name: [cell.strip() for cell in cells.split("|")] for name, cells in rows}


def tables_of_document() -> list[str]:
    return re.findall(r"(?:^\|.*\n)+", STUDY.read_text(), re.MULTILINE)


def test_the_table_of_variants_is_that_of_the_records(summary):
    rows = table_rows(tables_of_document()[0])
    dual, *variants = rows
    assert dual == "dual" and rows["dual"][1] == tables.level(
        recipe(summary, "dual").scores["mIoU"]
    )
    assert variants == [each.name for each in tables.nearest_first(summary)]
    for name in variants:
        variant = recipe(summary, name)
        _, score, difference, verdict, time = rows[name]
        assert score == tables.level(variant.scores["mIoU"])
        assert difference == tables.points(variant.differences["mIoU"])
        assert variant.within is not None and verdict == variant.within.verdict
        assert variant.cost is not None and variant.cost.time is not None
        assert time == formatting.ratio(variant.cost.time.ratio)


def test_the_table_by_aspect_ratio_is_that_of_the_records(summary):
    table = tables_of_document()[1]
    shapes = recipe(summary, "dual").slices["shape"]
    assert [cell.strip() for cell in table.splitlines()[0].strip("|").split("|")] == ["", *shapes]
    rows = table_rows(table)
    assert rows.pop("dual") == [tables.level(found.mIoU) for found in shapes.values()]
    assert set(rows) == {"sam", "clip-fine"}
    for name, cells in rows.items():
        found = recipe(summary, name).slices["shape"].values()
        assert cells == [tables.points(each.mIoU_difference) for each in found]


def budgets(summary: StudySummary) -> dict[str, str]:
    """Millions of queries that a training of each recipe learned from."""
    return {
        each.name: tables.queries(each.budget.queries) for each in summary.recipes if each.budget
    }


def by_pair(summary: StudySummary, name: str, subset: str) -> str:
    (difference,) = (
        pair.points for pair in summary.supersets if (pair.name, pair.subset) == (name, subset)
    )
    return tables.points(difference)


def sentences_of_document(records: StudyRecords, summary: StudySummary) -> list[str]:
    """Parts of the document's sentences, with the numbers that the records give."""
    dual, sam, clip, small = (
        recipe(summary, name) for name in ("dual", "sam", "clip", "dual-small")
    )
    assert dual.budget and sam.budget and small.budget
    queries = budgets(summary)
    recipes = trainings_by_recipe(records)
    finer = differences(recipes["clip-decoder"], recipes["clip-fine"])["mIoU"]
    sizes = {
        name: found.difference for name, found in clip.slices["size"].items() if found.difference
    }
    families = {
        name: found.difference for name, found in sam.slices["family"].items() if found.difference
    }
    relation = families.pop("relation").difference
    worst_other = min(found.difference for found in families.values())
    losses = {each.name: tables.points(each.points) for each in summary.ablations}
    blind = {
        name: formatting.score(level.score)
        for name in CONTROLS
        if (level := dual.controls[name]["all"])
    }
    floor = max(by["all"] for by in summary.floors.values())
    seconds = [median(each.train_s) for each in summary.recipes if each.role != "dual"]
    course = recipes["dual"].manifest.course
    copying = small.budget.steps - small.budget.steps_with_queries
    assert dual.scores["gIoU"]
    return [
        f"It scores them on {summary.queries:,} queries about {summary.images:,} scenes",
        f"{dual.budget.steps:,} steps of {dual.budget.scenes} scenes, {queries['dual']} queries "
        "each",
        f"{sam.budget.steps} steps of {sam.budget.scenes} scenes, {queries['sam']} queries "
        "(`clip-distilled` and "
        f"`dual-small` {queries['dual-small']}, after {copying} steps that copy SAM's features)",
        f"within {summary.within_points:g} points of the dual was not reached within "
        f"{sam.budget.steps} steps",
        f"`clip-fine` is {tables.points(finer)} points from `clip-decoder`",
        f"{sizes['under 0.75'].difference:.1f} points of gIoU where they cover less than 0.75 "
        "patches",
        f"{sizes['1.5 and more'].difference:.1f} from 1.5 patches on",
        f"`sam` loses {-relation:.1f} points of gIoU in queries about relations between objects, "
        "and at most "
        f"{-worst_other:.1f} in any other family",
        f"LoRA does not improve `clip-decoder` ({by_pair(summary, 'clip-lora', 'clip-decoder')}) "
        "or `clip-upsampling` "
        f"({by_pair(summary, 'clip-rich', 'clip-upsampling')})",
        f"does not improve `sam` ({by_pair(summary, 'sam-decoder', 'sam')}), but does improve "
        "`clip` "
        f"({by_pair(summary, 'clip-decoder', 'clip')})",
        "This changes its mIoU, in points: "
        f"without BCE {losses['clip-no-bce']}, without Dice {losses['clip-no-dice']}, "
        f"without IoU {losses['clip-no-iou']}.",
        f"The dual has a gIoU of {formatting.score(dual.scores['gIoU'].score)}. With the words of "
        "another query it has "
        f"{blind['query-blind']}, with another image {blind['image-blind']}, with another image "
        "for the language model "
        f"alone {blind['llm-blind']}. The best trivial baseline has {formatting.score(floor)}",
        f"For {course.encoder_steps:,} steps, only the encoders learn",
        f"For {course.guided_steps} steps, the mask decoder gets its prompts from an auxiliary",
        f"a dual took {median(dual.train_s):.0f} s, a variant {min(seconds):.0f} to "
        f"{max(seconds):.0f} s",
    ]


def test_every_number_of_the_document_comes_from_the_records(records, summary, document):
    rest = document
    for sentence in sentences_of_document(records, summary):
        assert sentence in rest, sentence
        rest = rest.replace(sentence, "")
    for table in tables_of_document():  # the tests above compare them
        rest = rest.replace(on_one_line(table), "")
    assert WITH_A_FRACTION.findall(rest) == []


def test_what_was_trained_is_with_projector_and_not_the_documents_list(records):
    """Every variant has LLaVA's projector and text_hidden_fcs among its trained parts."""
    for training in records.trainings:
        assert training.manifest.variant.trains == VARIANTS[training.name].trains
        assert {"projector", "seg_projection"} <= training.manifest.trained_parameters.keys()
        assert "seg_head" not in training.manifest.variant.settings
    assert LisaConfig().seg_head == "text_hidden_fcs"
    assert VARIANTS["clip"].trains == VARIANTS["sam"].trains == RECIPES["with-projector"].trains


def test_the_rows_of_costs_and_claims_say_what_the_study_shows(summary):
    costs = on_one_line((ROOT / "README.md").read_text())
    claims = on_one_line((ROOT / "docs" / "results.md").read_text())
    assert all(one.within is None or one.within.verdict == "not reached" for one in summary.rivals)
    assert "In miniature, no variant was within 2 points in 600 steps" in claims
    for name in ("clip", "sam"):
        difference = formatting.points_with_interval(
            recipe(summary, name).differences["mIoU"]
        ).replace(" points", "")
        assert f"| {difference} |" in costs, "the row of costs and quality"


def test_all_variants_but_one_have_five_seeds(summary, document):
    seeds = {each.name: len(each.seeds) for each in summary.recipes if each.role == "recipe"}
    assert {name for name, count in seeds.items() if count != 5} == {"clip-crop"} and seeds[
        "clip-crop"
    ] == 2
    assert "All variants have five seeds, `clip-crop` two." in document


def test_what_does_not_help_is_what_is_not_shown_to_be_better(summary):
    pairs = {(pair.name, pair.subset): pair.better for pair in summary.supersets}
    assert {pair for pair, better in pairs.items() if better is False} == {
        ("clip-lora", "clip-decoder"), ("clip-rich", "clip-upsampling"), ("sam-decoder", "sam"),
    }  # fmt: skip
    assert pairs["clip-decoder", "clip"] is True
    assert "confirmed" not in {
        each.essential.verdict for each in summary.ablations if each.essential
    }


def test_every_number_of_the_logs_corrections_comes_from_the_records(summary, log):
    queries = budgets(summary)
    sam, dual = recipe(summary, "sam"), recipe(summary, "dual")
    assert sam.budget and dual.budget
    shapes = [tables.points(found.mIoU_difference) for found in sam.slices["shape"].values()]
    sentences = [
        f"not reached within {sam.budget.steps} steps by these recipes",
        f"A variant learned from {queries['sam']} queries (`clip-distilled` and `dual-small` from "
        f"{queries['dual-small']}), its dual from {queries['dual']}.",
        f"A step of a dual has {dual.budget.scenes} scenes with {dual.budget.queries_per_scene} "
        "queries each, "
        f"a step of a variant {sam.budget.scenes} scenes with {sam.budget.queries_per_scene}.",
        f"`sam` is {shapes[0]} points from the dual up to 1.2, {shapes[1]} up to 1.6, and "
        f"{shapes[2]} above",
        f"LoRA does not improve `clip-decoder` ({by_pair(summary, 'clip-lora', 'clip-decoder')}) "
        "or `clip-upsampling` "
        f"({by_pair(summary, 'clip-rich', 'clip-upsampling')}), nor the mask decoder `sam` "
        f"({by_pair(summary, 'sam-decoder', 'sam')})",
    ]
    for sentence in sentences:
        assert sentence in log, sentence


@pytest.mark.parametrize("page", [STUDY, PUBLISHED / "report.md"], ids=lambda page: page.stem)
def test_no_page_calls_the_claim_refuted_or_the_model_described(page):
    text = page.read_text()
    assert "refuted" not in text and "as described" not in text and "sooner" not in text


def test_the_published_report_is_the_page_of_the_records(summary):
    assert (PUBLISHED / "report.md").read_text() == study_page(
        summary, Drawn(frozenset({FOREST, CURVES, TRADEOFF}))
    )
