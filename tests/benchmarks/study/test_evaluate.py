"""Models evaluated on rendered scenes: counts are the harness's, and each control is blind."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from study_factory import pixel_counts_of
from study_lisas import store_of, tiny

from lisabench.benchmarks.study import evaluate as module
from lisabench.benchmarks.study.evaluate import (
    evaluate,
    evaluate_trivial_baselines,
    kept_labels,
    labels,
    write_trivial_baselines,
)
from lisabench.benchmarks.study.rendered import FAMILIES, render
from lisabench.datasets.scenes.generator import chosen, scene
from lisabench.harness import measure, metrics
from lisabench.harness.clock import HostClock
from lisabench.harness.contract import Sample
from lisabench.harness.errors import DataError
from lisabench.harness.probe import NullProbe, TimingProbe
from lisabench.harness.records.pixel_counts import (
    CONTROLS,
    OWN,
    read_pixel_counts,
    same_queries,
    scores,
    write_pixel_counts,
)
from lisabench.harness.records.pixel_counts import (
    chosen as chosen_queries,
)
from lisabench.models.adapters.lisa_stages import Lisa
from lisabench.models.adapters.trivial import NoSettings, centre_box

pytestmark = [pytest.mark.no_clock, pytest.mark.usefixtures("shallow_module")]

SCENES = 7  # of every aspect
VISIONS = ["dual", "clip", "sam"]


@pytest.fixture(scope="module")
def lisas() -> dict[str, Lisa]:
    """One of each vision that tests share: they only read it."""
    return {vision: tiny(vision) for vision in VISIONS}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return render(tmp_path_factory.mktemp("scenes"), 0, {"test": SCENES}, 1)


@pytest.fixture(scope="module")
def labels_of():
    return labels(0, "test", SCENES, 1)


def asked() -> list[tuple[int, str, Sample]]:
    """Return scene, family and sample of the queries of a folder, in the order of the store."""
    wordings = [
        (made, q, text)
        for made in map(of_test, range(SCENES))
        for q in made.queries
        for text in q.texts
    ]
    folder = {
        (made.index, q.texts[0]) for made in map(of_test, range(SCENES)) for q in chosen(made)
    }
    return [
        (made.index, q.family, sample(made, q))
        for made, q, text in wordings
        if (made.index, text) in folder
    ]


def of_test(index: int):
    return scene(0, "test", index)


def sample(made, query, image=None, words=None) -> Sample:
    pixels, annotation = (
        made.image if image is None else image,
        made.target_HW(query).astype(np.uint8),
    )
    return Sample(
        "q",
        words or query.texts[0],
        query.is_sentence,
        Path(),
        lambda: pixels,
        lambda: annotation,
        str,
    )


def counts_of(counts, answer):
    return [
        (c.intersection_px, c.union_px, c.target_px, c.predicted_px) for c in counts.counts(answer)
    ]


@pytest.mark.parametrize("vision", VISIONS)
def test_a_scene_is_evaluated_as_the_harness_evaluates_the_adapter(vision, lisas, files, labels_of):
    lisa = lisas[vision]
    counts = evaluate(lisa.model, store_of(files, lisa), labels_of)
    probe, expected = TimingProbe(HostClock()), asked()
    assert list(counts.scene) == [index for index, _, _ in expected]
    assert [FAMILIES[place] for place in counts.family] == [family for _, family, _ in expected]
    assert list(counts.query) == sorted(counts.query)
    for mine, (_, _, each) in zip(counts.counts(), expected, strict=True):
        theirs = measure.measure(lisa, each, probe)
        assert (mine.target_px, mine.valid_px) == (theirs["target_px"], theirs["valid_px"])
        for count in ("intersection_px", "union_px", "predicted_px"):
            assert getattr(mine, count) == pytest.approx(
                theirs[count], abs=0.002 * theirs["valid_px"]
            )


@pytest.fixture(scope="module")
def at_once(lisas, files, labels_of):
    """What comes of all scenes at once, and the model that was asked."""
    lisa = lisas["dual"]
    return evaluate(lisa.model, store_of(files, lisa), labels_of), lisa


@pytest.mark.parametrize("scenes", [2, 3, 64])
def test_how_many_scenes_are_evaluated_at_once_changes_no_answer_of_the_model(
    scenes, at_once, files, labels_of
):
    one, lisa = at_once
    other = evaluate(lisa.model, store_of(files, lisa), labels_of, scenes)
    assert one.answers == other.answers == (OWN, *CONTROLS)
    np.testing.assert_allclose(
        other.union_px[0], one.union_px[0], rtol=0, atol=50
    )  # rounding at a mask's border


def spied(monkeypatch, lisa, files, labels_of):
    """Of every pass: the batch that was asked, and the features that were looked at."""
    passes = []
    logits = module.StudyLearner.logits

    def noted(self, batch, features=None):
        passes.append((batch, features))
        return logits(self, batch, features)

    monkeypatch.setattr(module.StudyLearner, "logits", noted)
    evaluate(lisa.model, store_of(files, lisa), labels_of)
    return passes


@pytest.mark.parametrize("vision", VISIONS)
def test_each_control_is_blind_in_what_it_says_and_in_nothing_else(
    vision, lisas, files, labels_of, monkeypatch
):
    (own, seen), (asked_else, seen_too), (same, elsewhere), (same_too, half) = spied(
        monkeypatch, lisas[vision], files, labels_of
    )
    assert seen_too is seen and same is own and same_too is own
    tokens_BNC, embedding_BChw = seen.image_tokens_BNC, seen.mask_embedding_BChw
    assert torch.equal(half.mask_embedding_BChw, embedding_BChw)
    assert torch.equal(half.image_tokens_BNC, elsewhere.image_tokens_BNC)
    donors = [
        [b for b in range(SCENES) if torch.equal(elsewhere.image_tokens_BNC[a], tokens_BNC[b])]
        for a in range(SCENES)
    ]
    assert sorted(b for found in donors for b in found) == list(range(SCENES))
    assert all(found != [a] for a, found in enumerate(donors))
    for a, (b,) in enumerate(donors):
        assert torch.equal(elsewhere.mask_embedding_BChw[a], embedding_BChw[b])
    assert torch.equal(asked_else.scene_N, own.scene_N)
    for n, words in enumerate(asked_else.ids_NL):
        assert not torch.equal(words, own.ids_NL[n])
        sources = (own.ids_NL == words).all(-1).nonzero().flatten()
        assert any(
            own.scene_N[m] != own.scene_N[n] and own.ends_N[m] == asked_else.ends_N[n]
            for m in sources
        )


def test_a_query_is_never_reworded_into_its_own_words(lisas, files):
    """Where every scene but one asks the same, that one's words are what is left."""
    lisa = lisas["dual"]
    store = store_of(files, lisa)
    (batch,) = store.walked(store.chosen_Q.nonzero().flatten(), SCENES)
    same = torch.zeros_like(batch.ids_NL)
    same[batch.scene_N == 2] = 1
    reworded = module._with_words_of_others(replace(batch, ids_NL=same), torch.arange(SCENES))
    assert torch.equal(reworded.ids_NL, 1 - same)


def test_the_other_scene_has_the_nearest_shape(lisas, tmp_path):
    count = 28  # four of each ratio
    files, lisa = render(tmp_path, 0, {"test": count}, 1), lisas["dual"]
    store = store_of(files, lisa)
    ((batch, order_B),) = module._batches_by_shape(store, 64)
    height_B, width_B = store.sizes_N2.double().unbind(-1)
    ratios = (height_B / width_B)[order_B].tolist()
    assert ratios == sorted(ratios)
    assert len(batch.query_N) == 3 * count
    apart = [abs(b / a - 1) for a, b in pairwise(ratios)]
    assert (
        sum(each < 0.01 for each in apart) == count - 7
    )  # all but where one ratio ends and the next begins


def test_a_single_scene_has_no_controls(lisas, tmp_path):
    lisa = lisas["dual"]
    counts = evaluate(
        lisa.model, store_of(render(tmp_path, 0, {"test": 1}, 1), lisa), labels(0, "test", 1, 1)
    )
    assert (counts.answers, len(counts)) == ((OWN,), 3)


def test_trivial_baselines_are_those_of_every_run_on_the_same_queries(
    lisas, files, labels_of, tmp_path
):
    lisa = lisas["dual"]
    store = store_of(files, lisa)
    baselines = evaluate_trivial_baselines(store, labels_of)
    counts = evaluate(lisa.model, store, labels_of)
    assert same_queries(baselines, counts)
    made = centre_box(NoSettings(), NullProbe())
    for mine, (_, _, each) in zip(baselines.counts("centre-box"), asked(), strict=True):
        (mask_HW,) = made.decoder([each], None, None)
        theirs = metrics.count(mask_HW, each.target_HW)
        assert (mine.intersection_px, mine.union_px) == (theirs.intersection_px, theirs.union_px)
    assert all(c.predicted_px == c.valid_px for c in baselines.counts("whole-image"))
    assert all(c.predicted_px == 0 for c in baselines.counts("empty"))
    write_trivial_baselines(tmp_path / "floors.npz", store, labels_of)
    assert counts_of(read_pixel_counts(tmp_path / "floors.npz"), "centre-box") == counts_of(
        baselines, "centre-box"
    )


def broken_logits(monkeypatch, broken_at):
    """Let the logits of some masks be broken: by the pass, the place of the mask and the value."""
    logits, passes = module.StudyLearner.logits, []

    def broken(self, batch, features=None):
        logits_Nhw = logits(self, batch, features).clone()
        for number, place, value in broken_at:
            if number == len(passes):
                logits_Nhw[place, 3, 5] = value
        passes.append(batch)
        return logits_Nhw

    monkeypatch.setattr(module.StudyLearner, "logits", broken)


def test_masks_from_nan_or_infinity_are_counted_and_have_iou_0(
    at_once, files, labels_of, monkeypatch, tmp_path
):
    sound, lisa = at_once
    (without_target, *_) = np.flatnonzero(sound.target_px == 0)
    nan, inf = float("nan"), float("inf")
    broken_logits(monkeypatch, [(0, int(without_target), nan), (0, 4, inf), (2, 5, -inf)])
    write_pixel_counts(tmp_path / "c.npz", evaluate(lisa.model, store_of(files, lisa), labels_of))
    counts = read_pixel_counts(tmp_path / "c.npz")
    failed = {answer: list(np.flatnonzero(counts.failed(answer))) for answer in counts.answers}
    expected = {OWN: sorted([without_target, 4]), "image-blind": [5]}
    assert failed == {"query-blind": [], "llm-blind": []} | expected
    assert not sound.failed().any()
    assert list(counts.iou()[failed[OWN]]) == [0, 0]
    others = ~counts.failed()
    assert np.array_equal(counts.iou()[others], sound.iou()[others])
    assert scores(counts)["gIoU"] == pytest.approx(
        metrics.METRICS["gIoU"].compute(counts.counts()), rel=1e-12
    )
    part = chosen_queries(counts, np.arange(len(counts)) == without_target)
    assert part.failed().tolist() == [True] and scores(part)["gIoU"] == 0


def test_a_validation_gives_such_masks_iou_0(lisas, files, monkeypatch):
    lisa = lisas["dual"]
    store = store_of(files, lisa)
    validation = module.Validation(lisa.model, store, 3, "cpu")
    broken_logits(monkeypatch, [(0, place, float("nan")) for place in range(3)])
    assert validation() == 0


def test_labels_are_made_once(tmp_path, monkeypatch, labels_of):
    kept_labels(tmp_path, 0, "test", SCENES)
    monkeypatch.setattr(module, "labels", lambda *_: pytest.fail("made again"))
    for found, expected in zip(kept_labels(tmp_path, 0, "test", SCENES), labels_of, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert [path.name for path in tmp_path.iterdir()] == ["labels-test-0-000007.npz"]


@pytest.mark.parametrize("kept_share", [0, 0.5, 0.99])
def test_labels_whose_file_was_cut_short_are_made_again(tmp_path, labels_of, kept_share):
    kept_labels(tmp_path, 0, "test", SCENES)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept_share * len(whole))])
    for found, expected in zip(kept_labels(tmp_path, 0, "test", SCENES), labels_of, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert len(file.read_bytes()) == len(whole)


def test_counts_are_read_back_as_written_and_scored_as_everywhere(tmp_path):
    counts = pixel_counts_of(0.6, 20, answers=(OWN, *CONTROLS))
    write_pixel_counts(tmp_path / "counts.npz", counts)
    again = read_pixel_counts(tmp_path / "counts.npz")
    for answer in counts.answers:
        assert counts_of(again, answer) == counts_of(counts, answer)
        for name, value in scores(again, answer).items():
            assert value == pytest.approx(
                metrics.METRICS[name].compute(again.counts(answer)), rel=1e-12
            )
    first = (tmp_path / "counts.npz").read_bytes()
    write_pixel_counts(tmp_path / "counts.npz", again)
    assert (tmp_path / "counts.npz").read_bytes() == first


def test_five_thousand_queries_take_less_than_150_kb(tmp_path):
    write_pixel_counts(
        tmp_path / "counts.npz", pixel_counts_of(gIoU=0.6, images=1667, answers=(OWN, *CONTROLS))
    )
    assert (tmp_path / "counts.npz").stat().st_size < 150_000


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"not a zip"])
def test_a_damaged_file_is_one_clear_line(content, tmp_path):
    (tmp_path / "counts.npz").write_bytes(content)
    with pytest.raises(
        DataError, match=r"counts.npz is damaged \(.*\): copy it again, or evaluate again"
    ):
        read_pixel_counts(tmp_path / "counts.npz")


def test_counts_without_axes_are_damaged(tmp_path):
    write_pixel_counts(tmp_path / "counts.npz", pixel_counts_of(0.6, 2))
    with np.load(tmp_path / "counts.npz") as arrays:
        columns = dict(arrays)
    np.savez(tmp_path / "counts.npz", **columns | {"query": np.array(3)})
    with pytest.raises(DataError, match=r"counts.npz is damaged \(query has 0 axes, expected 1\)"):
        read_pixel_counts(tmp_path / "counts.npz")
