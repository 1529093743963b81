"""The report of a study, from folders whose truth is known."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command import lisabench
from places import RESULTS
from run_factory import edit_run, write_run
from study_factory import TRUTH, pixel_counts_of, write_one, write_study

from lisabench.benchmarks import suite_file
from lisabench.benchmarks.study.rendered import FAMILIES as RENDERED
from lisabench.benchmarks.study.variants import VARIANTS
from lisabench.harness.errors import DataError, UsageError
from lisabench.harness.records.pixel_counts import (
    CONTROLS,
    OWN,
    read_pixel_counts,
    write_pixel_counts,
)
from lisabench.harness.records.study import is_study, read_study
from lisabench.models.lisa.presets import PRESETS
from lisabench.models.training import recipes
from lisabench.reports.study import slices, tables
from lisabench.reports.study.page import write_study_report
from lisabench.reports.study.schema import StudySummary
from lisabench.reports.study.summary import summarise_study

pytestmark = pytest.mark.no_clock

PUBLISHED = RESULTS / "accuracy-tiny"
ABLATED = {"clip-no-bce": 0.42, "clip-no-dice": 0.5, "clip-with-ce": 0.51}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Three seeds of everything but one ablation."""
    folder = write_study(
        tmp_path_factory.mktemp("study"),
        truth=TRUTH | ABLATED,
        steps={"sam": 200, "clip": 900},
        images=300,
    )
    return folder, summarise_study(read_study(folder))


@pytest.fixture(scope="module")
def reported(whole, tmp_path_factory):
    """A copy of the same study, of which the command has written the report."""
    folder = shutil.copytree(whole[0], tmp_path_factory.mktemp("reported") / "s")
    return folder, lisabench("report", folder)


@pytest.fixture(scope="module")
def whole_page(reported):
    return (reported[0] / "report.md").read_text()


def summary_of(folder, **how) -> StudySummary:
    return summarise_study(read_study(write_study(folder, **how)))


def page_of(folder) -> str:
    return write_study_report(folder).read_text()


def test_scores_and_differences_are_those_that_were_made(whole):
    _, summary = whole
    for name, truth in TRUTH.items():
        recipe = summary.recipe(name)
        assert recipe.scores["mIoU"].score == pytest.approx(truth, abs=0.01)
        assert recipe.seeds == [0, 1, 2]
        if name != "dual":
            found = recipe.differences["mIoU"]
            assert found.difference == pytest.approx(100 * (truth - TRUTH["dual"]), abs=1.2)
            assert found.low < found.difference < found.high
            assert found.difference == pytest.approx(np.mean(found.by_seed), abs=1e-9)
            assert (
                found.detectable_at_80
                > found.smallest_detectable
                == pytest.approx(found.high - found.difference)
            )
    assert (summary.queries, summary.images, summary.seeds) == (900, 300, [0, 1, 2])
    assert summary.warnings == []


def test_a_recipe_is_within_two_points_refuted_or_open(whole, tmp_path):
    _, summary = whole
    assert summary.recipe("dual").within is None
    assert summary.recipe("sam").within.verdict == "reached"
    assert summary.recipe("clip").within.verdict == "not reached"
    wide = summary_of(tmp_path, truth={"dual": 0.8, "sam": 0.79}, spread=0.02)
    assert wide.recipe("sam").within.model_dump() == {
        "verdict": "inconclusive", "reason": "its interval reaches over the bound",
    }  # fmt: skip


def test_one_seed_gives_intervals_of_the_images_and_no_verdict(tmp_path):
    summary = summary_of(tmp_path, seeds=1)
    for recipe in summary.rivals:
        found = recipe.differences["mIoU"]
        assert found.low < found.difference < found.high
        assert recipe.within.verdict == "inconclusive" and "of one training" in recipe.within.reason
    page = page_of(tmp_path)
    assert (
        "every number is of one training a recipe, its interval is that of the images alone" in page
    )
    assert "one training seed" in page and "**inconclusive**" in page
    assert "reached**" not in page and "**yes**" not in page and "**no**" not in page


def test_pairs_are_of_the_same_seed(tmp_path):
    """Seed 3's dual is missing, and seed 0's sam: what is left is paired."""
    write_study(tmp_path, truth={"dual": 0.8, "sam": 0.79}, seeds=3)
    write_one(tmp_path, "sam", 3, 0.2)
    shutil.rmtree(tmp_path / "sam-0")
    found = summarise_study(read_study(tmp_path)).recipe("sam")
    assert found.seeds == [1, 2, 3]
    assert found.differences["mIoU"].seeds == [1, 2]
    assert found.differences["mIoU"].difference == pytest.approx(-1, abs=1.5)


def test_convergence_is_when_a_target_was_first_reached(whole):
    """sam ends its rise after 200 steps, dual-small after 500, clip after 900; validations are 50
    steps apart.
    """
    _, summary = whole
    sam, clip = summary.recipe("sam").convergence, summary.recipe("clip").convergence
    assert clip.common_steps == [900, 900, 900] and max(sam.common_steps) <= 150
    assert sam.common_s == [step / 10 for step in sam.common_steps]
    assert sam.near_dual_steps == [200, 200, 200]
    assert clip.near_dual_steps == [None, None, None]
    assert summary.recipe("dual").convergence is None


def test_no_verdict_is_given_on_convergence(whole_page):
    section = whole_page.split("## Convergence")[1].split("## The losses")[0]
    assert 'This does not test the claim "faster convergence"' in " ".join(section.split())
    assert "confirmed" not in section and "sooner" not in section


def test_the_budget_of_a_training_is_the_queries_that_it_reads(tmp_path):
    """1,500 steps of 100 scenes with 4 queries; steps in which encoders learn alone or copy SAM's
    read none.
    """
    write_study(tmp_path, truth={"dual": 0.8, "clip": 0.5, "sam": 0.79})
    edit_trainings(tmp_path, "dual", course={"alone": 500, "first": 200, "masks": 2})
    edit_trainings(tmp_path, "clip", course={"first": 300}, variant={"distils": True})
    summary = summarise_study(read_study(tmp_path))
    queries = {recipe.name: recipe.budget.queries for recipe in summary.recipes}
    assert queries == {"dual": 1000 * 400, "clip": 1200 * 400, "sam": 1500 * 400}
    assert [recipe.budget.masks_per_scene for recipe in summary.recipes] == [2, 4, 4]
    page = page_of(tmp_path)
    assert "Budget of a dual: 1,500 steps from random weights, 0.40 M queries." in page
    assert (
        "100 scenes with 4 queries each, 2 of them with a mask; the first 500 steps read no queries"
        in page
    )


def test_a_record_without_a_full_budget_has_none(tmp_path):
    write_study(tmp_path, truth={"dual": 0.8, "sam": 0.79})
    edit_trainings(tmp_path, "sam", course={"scenes": None})
    assert summarise_study(read_study(tmp_path)).recipe("sam").budget is None
    assert "Budget of a variant" not in page_of(tmp_path)


def edit_trainings(folder: Path, name: str, **changes: dict) -> None:
    """Change what the records of a recipe's trainings say, a dictionary of each by its key."""
    for path in folder.glob(f"{name}-[0-9]/training.json"):
        page = json.loads(path.read_text())
        for key, values in changes.items():
            page[key] |= values
        path.write_text(json.dumps(page))


def test_a_verdict_on_two_points_has_its_budget_beside_it(whole_page):
    first = whole_page.split("## Quality and cost")[0]
    bound = (
        "mIoU within 2 points of the dual, within 1,500 steps: reached: sam; "
        "not reached: dual-small and clip."
    )
    assert "1,500 steps from the trained dual of its seed, 0.60 M queries." in first
    assert bound in first and "refuted" not in first


@pytest.mark.parametrize(("more", "better", "words"), [(0.6, True, "yes"), (0.5, False, "**no**")])
def test_a_recipe_that_trains_more_parts_is_compared_with_its_subset(more, better, words, tmp_path):
    write_study(tmp_path, truth={"dual": 0.8, "clip": 0.5, "clip-decoder": more}, spread=0.0005)
    (pair,) = summarise_study(read_study(tmp_path)).supersets
    assert (pair.name, pair.subset, pair.extra) == ("clip-decoder", "clip", ["mask_decoder"])
    assert pair.points.difference == pytest.approx(100 * (more - 0.5), abs=1)
    assert pair.better is better
    page = page_of(tmp_path)
    assert (
        f"| clip-decoder | clip | mask decoder | {words} | {pair.points.difference:+z.1f} " in page
    )
    assert ("Either these trainings end too early to tell" in page) is not better


def test_recipes_of_other_settings_or_losses_are_no_supersets(tmp_path):
    write_study(tmp_path, truth={"dual": 0.8, "clip": 0.5, "clip-decoder": 0.6, "clip-no-bce": 0.4})
    edit_trainings(
        tmp_path, "clip-decoder", variant={"axes": {"vision": "clip", "bridge": "upsampling"}}
    )
    assert summarise_study(read_study(tmp_path)).supersets == []
    edit_trainings(
        tmp_path, "clip-decoder", variant={"axes": {"vision": "clip"}, "losses": "with-ce"}
    )
    assert summarise_study(read_study(tmp_path)).supersets == []


def test_the_page_names_parts_and_not_the_document_where_with_projector_was_trained(tmp_path):
    write_study(tmp_path, truth={"dual": 0.8, "clip": 0.5})
    assert "with-projector" not in page_of(tmp_path)
    edit_trainings(
        tmp_path, "clip", variant={"trains": list(recipes.RECIPES["with-projector"].trains)}
    )
    page = page_of(tmp_path)
    assert "| clip | bridge, projector, projection of [SEG], embeddings and head | 0.60 M |" in page
    assert (
        "The document's model was not trained in this study." in page and "as described" not in page
    )


def test_without_validations_there_is_no_convergence(tmp_path):
    write_study(tmp_path)
    for path in tmp_path.glob("*/curve.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text(
            "".join(
                json.dumps({k: v for k, v in row.items() if k != "val_gIoU"}) + "\n" for row in rows
            )
        )
    assert all(each.convergence is None for each in summarise_study(read_study(tmp_path)).recipes)
    assert "no training was validated" in page_of(tmp_path)
    assert not (tmp_path / "validation.png").exists() and (tmp_path / "differences.png").exists()


def test_a_loss_is_essential_where_it_is_worth_a_point(whole):
    _, summary = whole
    found = {each.name: each for each in summary.ablations}
    assert found["clip-no-bce"].essential.verdict == "confirmed"
    assert found["clip-no-bce"].points.difference == pytest.approx(-8, abs=1.5)
    assert found["clip-no-dice"].essential.verdict in ("refuted", "inconclusive")
    assert (
        found["clip-no-iou"].points is None
        and found["clip-no-iou"].essential.verdict == "not measured"
    )
    assert found["clip-with-ce"].essential is None and found["clip-with-ce"].points is not None
    assert [each.name for each in summary.rivals] == ["clip", "dual-small", "sam"]


def test_a_loss_that_is_worth_half_a_point_is_not_essential(tmp_path):
    summary = summary_of(
        tmp_path, truth={"dual": 0.8, "clip": 0.5, "clip-no-iou": 0.495}, spread=0.0005, images=300
    )
    found = {each.name: each for each in summary.ablations}["clip-no-iou"]
    assert -1 < found.points.low < found.points.high < 0
    assert found.essential.verdict == "refuted"


def test_slices_are_of_their_queries_alone(whole):
    folder, summary = whole
    judged = read_pixel_counts(folder / "sam-0" / "counts.npz")
    family = summary.recipe("sam").slices["family"]
    assert sum(each.n for each in family.values()) == len(judged)
    expected = judged.iou()[judged.family == 2].mean()
    assert family["superlative"].gIoU.by_seed[0] == pytest.approx(expected, abs=1e-12)
    sizes = summary.recipe("sam").slices["size"]
    assert sizes["no target"].n == (judged.target_px == 0).sum()
    assert sum(each.n for each in sizes.values()) == len(judged)
    shapes = summary.recipe("sam").slices["shape"]
    long = (
        np.maximum(judged.height, judged.width) > 1.6 * np.minimum(judged.height, judged.width)
    ) & (judged.target_px > 0)
    reference = read_pixel_counts(folder / "dual-0" / "counts.npz")
    difference = 100 * (judged.iou()[long].mean() - reference.iou()[long].mean())
    assert shapes["over 1.6"].mIoU_difference.by_seed[0] == pytest.approx(difference, abs=1e-9)
    assert sizes["no target"].mIoU is None and sizes["no target"].mIoU_difference is None
    assert {name: each.n for name, each in shapes.items()} == {
        "up to 1.2": 180,
        "1.2 to 1.6": 360,
        "over 1.6": 360,
    }
    assert summary.recipe("dual").slices["family"]["odd"].difference is None
    found = family["odd"].difference
    assert found.low < found.difference < found.high


def test_a_patch_is_of_the_frame_that_the_tiny_encoders_see():
    preset = PRESETS["tiny"]
    assert (preset.clip.grid, preset.sam.grid) == (slices.CLIP_GRID, slices.SAM_GRID)
    judged = pixel_counts_of(0.5, 100)
    sides = np.array(
        [max(sizes) / preset.clip.grid for sizes in zip(judged.height, judged.width, strict=True)]
    )
    small = (judged.target_px > 0) & (judged.target_px < 0.75 * sides**2)
    assert 0 < small.sum() < len(small)
    np.testing.assert_array_equal(slices.by_size(judged)["under 0.75"], small)


def test_controls_stand_beside_the_model_and_the_floors(whole):
    _, summary = whole
    controls = summary.recipe("dual").controls
    assert list(controls) == [OWN, *CONTROLS]
    assert set(controls["llm-blind"]) == {"all", *RENDERED}
    assert controls["llm-blind"]["odd"].score == pytest.approx(0.4, abs=0.05)
    assert set(summary.floors) == {"whole-image", "centre-box", "empty"}


def test_scenes_that_give_the_answer_away_are_a_warning(tmp_path):
    write_study(tmp_path, truth={"dual": 0.8})
    for seed in range(3):
        near = pixel_counts_of(
            0.8,
            40,
            seed,
            (OWN, *CONTROLS),
            {"query-blind": 0.1, "image-blind": 0.6, "llm-blind": 0.5},
        )
        write_pixel_counts(tmp_path / f"dual-{seed}" / "counts.npz", near)
    (doubt,) = summarise_study(read_study(tmp_path)).warnings
    assert (
        doubt.startswith("image-blind is 0.1")
        and "less than 0.3: the scenes can be solved without that input." in doubt
    )


def test_answers_that_are_not_finite_are_named_and_have_iou_0(tmp_path):
    write_study(tmp_path, truth={"dual": 0.8})
    sound = read_pixel_counts(tmp_path / "dual-1" / "counts.npz")
    nonfinite = np.zeros((len(sound.answers), len(sound)), dtype=bool)
    nonfinite[0, [7, 8]] = nonfinite[2, 3] = True
    broken = replace(sound, nonfinite=nonfinite)
    write_pixel_counts(tmp_path / "dual-1" / "counts.npz", broken)
    assert summarise_study(read_study(tmp_path)).warnings == [
        "dual-1: the logits of 2 of 120 masks are NaN or infinite; these answers have IoU 0.",
        "dual-1, image-blind: the logits of 1 of 120 masks are NaN or infinite; these answers "
        "have IoU 0.",
    ]


def test_a_training_no_better_than_the_floors_is_a_warning(tmp_path):
    summary = summary_of(tmp_path, truth={"dual": 0.8, "clip": 0.03})
    (doubt,) = summary.warnings
    assert doubt.startswith("clip (gIoU 0.") and "no better than the best trivial baseline" in doubt


def test_as_good_as_a_dual_that_learned_nothing_is_no_verdict(tmp_path):
    summary = summary_of(tmp_path, truth={"dual": 0.03, "sam": 0.03})
    assert summary.recipe("sam").within.verdict == "inconclusive"
    assert summary.recipe("sam").within.reason == "the dual is no better than the trivial baselines"
    assert [text.split(" (")[0] for text in summary.warnings] == ["dual", "sam"]


def test_missing_pieces_are_named(tmp_path):
    write_study(tmp_path)
    (tmp_path / "sam-1" / "training.json").unlink()
    (tmp_path / "floors.npz").unlink()
    for seed in range(3):
        write_pixel_counts(tmp_path / f"dual-{seed}" / "counts.npz", pixel_counts_of(0.8, 40, seed))
    summary = summarise_study(read_study(tmp_path))
    assert summary.recipe("sam").seeds == [0, 2]
    assert summary.warnings == [
        "Not finished, and left out: sam-1.",
        "The trivial baselines were not counted.",
        "The dual was evaluated without its controls query-blind, image-blind, llm-blind.",
    ]
    assert "not measured" in page_of(tmp_path)


def test_without_a_dual_there_is_nothing_to_compare_with(tmp_path):
    summary = summary_of(tmp_path, truth={"sam": 0.79, "dual-small": 0.7})
    assert "No dual is finished" in summary.warnings[0]
    assert summary.recipe("sam").differences == {} and summary.recipe("sam").within is None
    page_of(tmp_path)


def test_costs_are_joined_by_name_or_by_settings(tmp_path):
    write_study(
        tmp_path,
        truth={"dual": 0.8, "sam": 0.79, "clip": 0.5, "clip-decoder": 0.6, "dual-small": 0.7},
    )
    write_run(tmp_path / "costs")
    edit_run(tmp_path / "costs", reference="dual")
    summary = summarise_study(read_study(tmp_path))
    clip = summary.recipe("clip").cost
    assert clip.case == "clip" and clip.end_to_end_ms > 0 and clip.peak_bytes > 0
    assert clip.time.ratio < 1
    assert summary.recipe("clip-decoder").cost == clip
    assert summary.recipe("dual").cost.time is None
    assert summary.recipe("dual-small").cost is None
    page = page_of(tmp_path)
    assert "clip-decoder as clip" in page
    assert "measured on" in page and "memory by" in page
    (row,) = [line for line in page.splitlines() if line.startswith("| dual-small | bridge")]
    assert row.count("not measured") == 2


def test_the_suite_of_costs_has_a_case_for_every_variant():
    """Of its name, or with the settings in which it differs from the dual."""
    loaded = suite_file.load("study-costs", {})
    known = {case.name: case.given for case in loaded.models}
    for name, variant in VARIANTS.items():
        same = [
            case
            for case, other in VARIANTS.items()
            if dict(other.settings) == dict(variant.settings) and case in known
        ]
        assert same, name
        assert {**known[same[0]], **variant.settings} == known[same[0]], name


def test_the_page_says_what_it_is_and_what_is_open(whole, reported, whole_page):
    folder, _ = reported
    page = whole_page
    assert "Tested in miniature, on synthetic scenes" in page and "at full size it is open" in page
    assert "To settle it at full size" in page
    for name in ("differences.png", "validation.png"):
        assert f"]({name})" in page
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    again = json.loads((folder / "summary.json").read_text())
    assert StudySummary.model_validate(again) == whole[1]
    assert [path.name for path in folder.glob(".*")] == []


def test_losses_in_words_are_those_that_are_minimised():
    assert tables.LOSSES.keys() == recipes.LOSSES.keys()
    for name, words in tables.LOSSES.items():
        weights = vars(recipes.LOSSES[name])
        assert {word.lower() for word in words.split(", ")} == {
            loss for loss, weight in weights.items() if weight
        }


def test_every_field_of_the_schema_is_described():
    schema = StudySummary.model_json_schema()
    parts = schema["$defs"] | {"StudySummary": schema}
    described = {
        f"{n}.{key}": f.get("description")
        for n, p in parts.items()
        for key, f in p.get("properties", {}).items()
    }
    assert [name for name, text in described.items() if not text] == []


def test_the_command_reports_a_study_without_torch(reported):
    folder, done = reported
    assert (done.returncode, done.stdout.strip()) == (0, str(folder / "report.md"))
    code = "import lisabench.reports.study.page, sys; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


DAMAGES = {
    "counts cut short": (
        lambda f: (f / "sam-0" / "counts.npz").write_bytes(b"PK\x03\x04"),
        "counts.npz is damaged",
    ),
    "counts gone": (lambda f: (f / "sam-0" / "counts.npz").unlink(), "counts.npz is missing"),
    "no JSON": (
        lambda f: (f / "sam-0" / "training.json").write_text("{"),
        "training.json is not JSON",
    ),
    "no seed": (
        lambda f: (f / "sam-0" / "training.json").write_text('{"name": "sam"}'),
        "has no seed, variant",
    ),
    "no JSON in the study": (
        lambda f: (f / "study.json").write_text("{"),
        "study.json is not JSON",
    ),
    "other queries": (
        lambda f: write_pixel_counts(f / "sam-0" / "counts.npz", pixel_counts_of(0.5, 41)),
        "sam-0 was evaluated on other queries than clip-0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_gives_one_clear_line(damage, tmp_path):
    spoil, words = DAMAGES[damage]
    spoil(write_study(tmp_path))
    with pytest.raises(DataError, match=words) as raised:
        read_study(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_folder_that_is_no_study_or_an_empty_one_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"has no study\.json"):
        read_study(tmp_path)
    assert not is_study(tmp_path)
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(UsageError, match="no finished training"):
        read_study(tmp_path)
    done = lisabench("report", tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


@pytest.fixture(scope="module")
def published() -> StudySummary:
    """Of the published study, from its records."""
    return summarise_study(read_study(PUBLISHED))


def test_the_published_summary_is_what_the_published_records_give(published):
    written = json.loads((PUBLISHED / "summary.json").read_text())
    assert dict(leaves(written)) == pytest.approx(
        dict(leaves(published.model_dump(mode="json", by_alias=True)))
    )
    assert len(dict(leaves(written))) > 1000


def leaves(value, path=""):
    """Every number, word and nothing in it, by where it is."""
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(each, f"{path}/{key}")
    else:
        yield path, value


def test_the_published_dual_is_good_and_its_scenes_do_not_give_the_answer_away(published):
    dual = published.recipe("dual")
    own, llm_blind = dual.scores["gIoU"].score, dual.controls["llm-blind"]["all"].score
    floors = [by["all"] for by in published.floors.values()]
    without_look = [dual.controls[name]["all"].score for name in ("query-blind", "image-blind")]
    assert own >= 0.75
    assert own - max(*floors, *without_look) >= 0.3
    assert own - llm_blind >= 0.25
    assert (published.queries, len(dual.seeds)) == (5001, 5)
