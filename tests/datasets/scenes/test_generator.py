"""Reasoning scenes: reproducible, in ReasonSeg's format, and with one right answer."""

import hashlib
import shutil
import subprocess
import sys
from collections import Counter

import cv2
import numpy as np
import pytest

from lisabench.datasets.raster import draw_polygon
from lisabench.datasets.reasonseg import ReasonSeg
from lisabench.datasets.scenes import cache as embedded_module
from lisabench.datasets.scenes.cache import embedded
from lisabench.datasets.scenes.facts import Facts
from lisabench.datasets.scenes.generator import PER_SCENE, chosen, make, scene, vocabulary
from lisabench.datasets.scenes.layout import Thing, _is_drawn, assemble, is_clear
from lisabench.datasets.scenes.queries import FAMILIES
from lisabench.datasets.scenes.words import RANKS, words
from lisabench.harness.environment import cache_folder
from lisabench.harness.errors import UsageError

pytestmark = pytest.mark.no_clock

COUNT = 96


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    make(root, "val", COUNT, seed=0)
    return root


@pytest.fixture(scope="module")
def samples(root):
    return list(ReasonSeg(root))


@pytest.fixture(scope="module")
def many():
    return [scene(1, "val", index) for index in range(120)]


def digests(root, split="val"):
    return {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted((root / split).iterdir())
    }


# Reproducible


def test_the_same_seed_makes_the_same_bytes_in_another_process(root, tmp_path):
    make_scenes = f"make({str(tmp_path)!r}, 'val', 9, 0)"
    code = f"from lisabench.datasets.scenes.generator import make; {make_scenes}"
    subprocess.run([sys.executable, "-c", code], check=True)
    first, second = digests(root), digests(tmp_path)
    assert len(second) == 18
    assert second == {name: first[name] for name in second}


def test_another_seed_or_split_makes_other_pictures():
    images = [scene(seed, split, 0).image for seed, split in ((0, "val"), (1, "val"), (0, "test"))]
    assert len({image.tobytes() for image in images}) == 3


def test_a_query_does_not_depend_on_how_many_are_made(root, tmp_path):
    make(tmp_path, "val", 4, seed=0)
    assert digests(tmp_path).items() <= digests(root).items()
    assert [s.id for s in ReasonSeg(tmp_path)] == ["000000", "000001", "000002", "000003"]


# In ReasonSeg's format


def test_the_drawn_masks_are_the_visible_pixels(samples):
    for number, sample in enumerate(samples):
        made = scene(0, "val", number // PER_SCENE)
        query = chosen(made)[number % PER_SCENE]
        assert sample.query == query.texts[0]
        np.testing.assert_array_equal(sample.target_HW == 1, made.target_HW(query))


def test_queries_of_one_scene_share_the_picture(samples):
    assert [len({s.image_id for s in samples[i : i + PER_SCENE]}) for i in (0, PER_SCENE)] == [1, 1]
    assert len({s.image_id for s in samples}) == COUNT // PER_SCENE


def test_pictures_come_in_many_sizes_wide_and_tall_among_them(samples):
    shapes = {s.image.shape[:2] for s in samples}
    assert all(239 <= side <= 641 for shape in shapes for side in shape)
    assert {s.tags["aspect"] for s in samples[:16]} == {"wide", "tall", "square"}
    assert max(width / height for height, width in shapes) == pytest.approx(2, rel=0, abs=0.01)


@pytest.mark.parametrize("image_px", [(1280, 960), (240, 480), (300, 240)])
def test_pictures_can_have_one_size_and_stay_in_the_format(tmp_path, image_px):
    make(tmp_path, "val", 6, 0, image_px)
    width, height = image_px
    for number, sample in enumerate(ReasonSeg(tmp_path)):
        made = scene(0, "val", number // PER_SCENE, image_px)
        assert sample.image.shape == (height, width, 3)
        target_HW = made.target_HW(chosen(made)[number % PER_SCENE])
        np.testing.assert_array_equal(sample.target_HW == 1, target_HW)


@pytest.mark.parametrize("image_px", [(239, 300), (1000, 499), (4097, 3000)])
def test_a_size_that_scenes_cannot_have_is_refused(tmp_path, image_px):
    with pytest.raises(UsageError, match="width and height from 240 to 4096") as caught:
        make(tmp_path, "val", 1, 0, image_px)
    assert f"{image_px[0]} x {image_px[1]}" in str(caught.value)


def test_the_picture_that_is_read_is_the_one_that_was_painted(samples):
    difference = samples[0].image.astype(float) - scene(0, "val", 0).image
    assert np.abs(difference).mean() < 6  # JPEG's


# What is asked


def test_sixteen_queries_have_every_family_a_missing_target_and_an_ignored_region(samples):
    few = samples[:16]
    assert {s.tags["family"] for s in few} == set(FAMILIES)
    assert any(not (s.target_HW == 1).any() for s in few)
    assert any((s.target_HW == 255).any() for s in few)
    assert {s.tags["form"] for s in few} == {"phrase", "sentence"}


def test_two_thirds_of_the_queries_need_reasoning(samples):
    families = Counter(s.tags["family"] for s in samples)
    assert sum(families[f] for f in ("ordinal", "superlative", "odd", "relation")) >= 2 / 3 * COUNT


def test_five_to_eight_per_cent_have_no_target_and_the_tags_say_so(samples):
    empty = [s for s in samples if not (s.target_HW == 1).any()]
    assert 0.05 * COUNT <= len(empty) <= 0.08 * COUNT
    assert {s.id for s in empty} == {s.id for s in samples if s.tags["has_target"] == "no"}
    assert {s.tags["size"] for s in empty} == {"none"}


def test_sizes_follow_the_targets_share_of_the_picture(samples):
    shares = {
        size: [(s.target_HW == 1).mean() for s in samples if s.tags["size"] == size]
        for size in SIZES
    }
    assert all(shares.values())
    assert max(shares["small"]) <= 0.015 < min(shares["medium"])
    assert max(shares["medium"]) <= 0.035 < min(shares["large"])


SIZES = ("none", "small", "medium", "large")


def test_texts_are_paraphrases_of_one_form(many):
    for made in many:
        for query in made.queries:
            assert len(set(query.texts)) == len(query.texts) >= 1
            assert all(text.endswith(("?", ".")) == query.is_sentence for text in query.texts)
            assert all(text[0].isupper() == query.is_sentence for text in query.texts)


def test_the_vocabulary_is_every_word_that_is_used_and_no_other(many):
    used = {
        word
        for made in many
        for query in made.queries
        for text in query.texts
        for word in words(text)
    }
    assert sum(len(made.queries) for made in many) > 500
    assert used <= set(vocabulary())
    assert vocabulary() == sorted(set(vocabulary()))
    assert len(set(vocabulary()) - used) <= 0.1 * len(vocabulary())


def test_every_scene_offers_many_queries_with_and_without_target(many):
    assert np.mean([len(made.queries) for made in many]) > 15
    families = Counter(query.family for made in many for query in made.queries if query.targets)
    assert min(families[family] for family in FAMILIES) > 100


def test_every_object_is_at_least_half_visible_and_some_are_partly_hidden(many):
    shares = [
        v / f
        for made in many
        for v, f in zip(made.layout.visible_px, made.layout.full_px, strict=True)
    ]
    assert min(shares) >= 0.5
    assert 0.05 < np.mean(np.array(shares) < 0.97) < 0.5
    assert {len(made.layout.things) for made in many} == {3, 4, 5, 6, 7, 8}


def at(shape, x, radius):
    return Thing(shape, "red", "plain", x, 100.0, radius, 0.0)


@pytest.mark.parametrize(
    ("things", "clear"),
    [
        ([at("circle", 80, 40), at("circle", 200, 30)], True),
        ([at("circle", 80, 40), at("circle", 120, 30)], True),
        (
            [at("circle", 80, 40), at("square", 95, 45)],
            False,
        ),  # too little of the circle is visible
        (
            [at("square", 80, 60), at("circle", 80, 20)],
            False,
        ),  # the square has a hole, which polygons cannot say
    ],
)
def test_layouts_that_polygons_cannot_say_or_that_hide_too_much_are_rejected(things, clear):
    assert is_clear(assemble(200, 300, tuple(things))) == clear


def test_polygons_can_say_whatever_has_no_hole():
    """Blobs that touch themselves at corners, with threads one pixel wide.

    What is judged is what would be drawn.
    """
    rng, said = np.random.default_rng(0), Counter()
    for blot in (3, 5, 9) * 200:
        noise_hw = cv2.blur(rng.random((24, 32)), (blot, blot)) + rng.normal(0, 0.02, (24, 32))
        visible_hw = (noise_hw > np.quantile(noise_hw, rng.uniform(0.2, 0.9))).astype(np.uint8)
        drawn_hw = np.zeros_like(visible_hw)
        for outline in cv2.findContours(visible_hw, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]:
            draw_polygon(drawn_hw, outline.reshape(-1, 2), 1)
        expected = np.array_equal(drawn_hw, visible_hw)
        assert _is_drawn(visible_hw, 0) == expected
        said[expected] += 1
    assert min(said.values()) > 50


@pytest.mark.parametrize("place", [(0.0, 60.0), (299.0, 60.0), (150.0, 0.0), (150.0, 199.0)])
def test_objects_that_would_not_lie_within_the_picture_are_laid_out_anew(place):
    inside, outside = (
        Thing("circle", "red", "plain", *centre, 20.0, 0.0) for centre in ((150.0, 100.0), place)
    )
    assert assemble(200, 300, (inside,)) is not None
    assert assemble(200, 300, (inside, outside)) is None


# One right answer: the words are read again by code that shares nothing with the code that wrote
# them


def test_named_objects_are_the_ones_with_these_attributes(many):
    for made, query, phrase in phrased(many, "attribute"):
        noun = phrase.removeprefix("all ").removeprefix("the ")
        assert set(query.targets) == matching(made, noun), phrase


def test_extremes_are_extreme_with_a_margin(many):
    keys = {"leftmost": (0, 1), "rightmost": (0, -1), "topmost": (1, 1), "lowest": (1, -1)}
    seen = Counter()
    for made, query, phrase in phrased(many, "superlative"):
        _, most, noun = phrase.split(" ", 2)
        if most not in ("largest", "smallest", *keys) or not query.targets:
            continue
        seen[most] += 1
        (target,), others = query.targets, matching(made, noun) - set(query.targets)
        if most in keys:
            axis, sense = keys[most]
            ours, best = (
                centroid(made, target)[axis],
                min(sense * centroid(made, o)[axis] for o in others),
            )
            assert best - sense * ours > 0, phrase
        elif most == "largest":
            assert area(made, target) > 1.3 * max(area(made, other) for other in others), phrase
        else:
            assert 1.3 * area(made, target) < min(
                made.layout.full_px[other - 1] for other in others
            ), phrase
    assert len(seen) == 6


def test_ranks_count_from_the_side_that_is_named(many):
    ranks = {rank: number for number, rank in enumerate(RANKS)}
    axes = {"left": (0, 1), "right": (0, -1), "top": (1, 1), "bottom": (1, -1)}
    seen = 0
    for made, query, phrase in phrased(many, "ordinal"):
        parts = phrase.split(" ")
        if parts[1] in ranks and parts[-3:-1] == ["from", "the"]:
            axis, sense = axes[parts[-1]]
            members = matching(made, " ".join(parts[2:-3]))
            order = sorted(members, key=lambda label: sense * centroid(made, label)[axis])
            assert query.targets == tuple(order[ranks[parts[1]] : ranks[parts[1]] + 1]), phrase
            seen += 1
    assert seen > 20


def test_the_odd_one_differs_from_all_others_which_are_alike(many):
    fields, seen = {"shape": "shape", "colour": "colour", "pattern": "texture"}, 0
    for made, query, phrase in phrased(many, "odd"):
        if phrase.startswith("the odd one out among the "):
            nouns, word = phrase.removeprefix("the odd one out among the ").split(" by ")
            found = {
                label: getattr(thing(made, label), fields[word]) for label in matching(made, nouns)
            }
            (target,) = query.targets
            assert len({found.pop(target), *found.values()}) == 2, phrase
            assert len(found) >= 2 and len(set(found.values())) == 1, phrase
            seen += 1
    assert seen > 20


def test_negations_leave_exactly_the_targets(many):
    seen = 0
    for made, query, phrase in phrased(many, "negation"):
        noun, _, value = (
            phrase.removeprefix("all ")
            .removeprefix("the ")
            .removeprefix("only ")
            .partition(" that ")
        )
        value = value.split(" not ", 1)[-1].removeprefix("a ")
        if "neither" not in value and " and " not in value:
            rest = {label for label in matching(made, noun) if value not in described(made, label)}
            assert set(query.targets) == rest, phrase
            seen += 1
    assert seen > 50


def test_relations_hold_for_the_target_and_for_no_other(many):
    seen = Counter()
    for made, query, phrase in phrased(many, "relation"):
        for words_, axis, sense in (
            (" to the left of the ", 0, 1),
            (" to the right of the ", 0, -1),
            (" above the ", 1, 1),
        ):
            if words_ in phrase:
                noun, ref = phrase.removeprefix("the ").split(words_)
                (ref,) = matching(made, ref)
                assert query.mentioned == (ref,)
                here = sense * centroid(made, ref)[axis]
                others = matching(made, noun) - {ref}
                assert set(query.targets) == {
                    o for o in others if sense * centroid(made, o)[axis] < here
                }, phrase
                seen[words_] += 1
        if " nearest to the " in phrase:
            noun, ref = phrase.removeprefix("the ").split(" nearest to the ")
            (ref,) = matching(made, ref)
            far = {
                o: np.hypot(*(centroid(made, o) - centroid(made, ref)))
                for o in matching(made, noun) - {ref}
            }
            assert query.targets == (min(far, key=far.__getitem__),), phrase
            seen["nearest"] += 1
    assert len(seen) == 4


def test_what_hides_something_hides_enough_of_it_and_nothing_else_touches_it(many):
    seen = Counter()
    for made, query, phrase in phrased(many, "relation"):
        for words_, behind in ((" in front of the ", False), (" behind the ", True)):
            if words_ in phrase:
                noun, ref = phrase.removeprefix("the ").split(words_)
                (ref,), (target,) = matching(made, ref), query.targets
                hidden = made.layout.hidden_px if not behind else made.layout.hidden_px.T
                others = matching(made, noun) - {ref}
                assert {o for o in others if hidden[o - 1, ref - 1]} == {target}, phrase
                below = target if behind else ref
                assert hidden[target - 1, ref - 1] >= 0.08 * made.layout.full_px[below - 1], phrase
                seen[words_] += 1
    assert len(seen) == 2


def test_margins_leave_no_rank_to_chance():
    facts = Facts(
        next(
            made for made in (scene(0, "x", i) for i in range(20)) if len(made.layout.things) > 6
        ).layout
    )
    everything = tuple(facts.everything)
    for side in ("left", "right", "top", "bottom"):
        certain = [i for i in facts.ranked(everything, side) if i is not None]
        axis, length = (
            (0, facts.layout.width) if side in ("left", "right") else (1, facts.layout.height)
        )
        for i in certain:
            gaps = [
                abs(facts.centres[i][axis] - facts.centres[j][axis]) for j in everything if j != i
            ]
            assert min(gaps) > 0.05 * length


def phrased(many, family):
    for made in many:
        for query in made.queries:
            if query.family == family and not query.is_sentence:
                yield from ((made, query, text) for text in query.texts)


def thing(made, label):
    return made.layout.things[label - 1]


def described(made, label):
    return {
        thing(made, label).shape,
        thing(made, label).colour,
        thing(made, label).texture,
        "object",
    }


def matching(made, noun):
    """Labels of the objects that all words of a noun, in singular or plural, fit."""
    needed = {
        {"objects": "object", "crosses": "cross"}.get(w, w.removesuffix("s") if w != "cross" else w)
        for w in noun.split()
    }
    return {
        label for label in range(1, len(made.layout.things) + 1) if needed <= described(made, label)
    }


def area(made, label):
    return int((made.labels_HW == label).sum())


def centroid(made, label):
    """Centre of the visible bounding box, (x, y)."""
    ys, xs = np.nonzero(made.labels_HW == label)
    return np.array([xs.min() + xs.max(), ys.min() + ys.max()]) / 2


# Making folders


def test_nothing_is_written_over(tmp_path):
    make(tmp_path, "val", 1, seed=0)
    before = digests(tmp_path)
    with pytest.raises(UsageError, match="is not empty"):
        make(tmp_path, "val", 1, seed=1)
    assert digests(tmp_path) == before
    make(tmp_path, "train", 1, seed=0)


@pytest.mark.parametrize(("count", "seed", "reason"), [(0, 0, "count is 0"), (1, -1, "seed is -1")])
def test_numbers_out_of_range_are_refused(tmp_path, count, seed, reason):
    with pytest.raises(UsageError, match=reason):
        make(tmp_path, "val", count, seed)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"file.*cannot be written"):
        make(tmp_path / "file", "val", 1, 0)


# The embedded split


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LISABENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_embedded_split_is_made_once_and_found_again(cache, monkeypatch):
    root = embedded("val", 4, 0)
    assert root.parent == cache
    assert len(ReasonSeg(root)) == 4
    monkeypatch.setattr(embedded_module, "make", None)
    assert embedded("val", 4, 0) == root
    assert [p.name for p in cache.iterdir()] == [root.name]


def test_other_arguments_make_another_split(cache):
    roots = {
        embedded("val", 2, 0),
        embedded("val", 3, 0),
        embedded("val", 2, 1),
        embedded("test", 2, 0),
        embedded("val", 2, 0, (320, 240)),
        embedded("val", 2, 0, (240, 320)),
    }
    assert len(roots) == len(list(cache.iterdir())) == 6


def test_an_interrupted_making_leaves_nothing_half_made(cache, monkeypatch):
    def interrupted(root, split, count, seed, image_px):
        make(root, split, count - 1, seed, image_px)
        raise KeyboardInterrupt

    monkeypatch.setattr(embedded_module, "make", interrupted)
    with pytest.raises(KeyboardInterrupt):
        embedded("val", 3, 0)
    assert list(cache.iterdir()) == []
    monkeypatch.setattr(embedded_module, "make", make)
    assert len(ReasonSeg(embedded("val", 3, 0))) == 3


def test_who_comes_second_uses_what_the_first_one_made(cache, monkeypatch):
    def overtaken(root, split, count, seed, image_px):
        make(root, split, count, seed, image_px)
        monkeypatch.setattr(embedded_module, "make", make)
        (embedded(split, count, seed) / "first").touch()

    monkeypatch.setattr(embedded_module, "make", overtaken)
    root = embedded("val", 3, 0)
    assert len(ReasonSeg(root)) == 3
    assert (root / "first").exists()
    assert not [p for p in cache.iterdir() if p.name.startswith(".")]


DAMAGES = {
    "a pair is missing": lambda root: [path.unlink() for path in (root / "val").glob("000001.*")],
    "an image is cut": lambda root: (root / "val" / "000002.jpg").write_bytes(b""),
    "a file too many": lambda root: (root / "val" / "notes.txt").touch(),
    "no seal, as of a making that was copied by hand": lambda root: (
        root / embedded_module.SEAL
    ).unlink(),
    "no split": lambda root: shutil.rmtree(root / "val"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_made_anew(cache, damage):
    root = embedded("val", 4, 0)
    whole = digests(root)
    DAMAGES[damage](root)
    assert embedded("val", 4, 0) == root
    assert digests(root) == whole
    assert [path.name for path in cache.iterdir()] == [root.name]


def test_a_sound_seal_over_too_few_pairs_is_not_believed(cache):
    fewer = embedded("val", 2, 0)
    fewer.rename(cache / fewer.name.replace("-2-0", "-3-0"))
    assert len(ReasonSeg(embedded("val", 3, 0))) == 3


def test_a_cache_that_cannot_be_written_is_named_with_a_cure(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LISABENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(UsageError, match=r"file: cannot be written .*LISABENCH_CACHE"):
        embedded("val", 1, 0)


def test_the_cache_lies_where_the_platform_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.delenv("LISABENCH_CACHE", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "lisabench"
