"""The colours of figures: one for each encoder, seen on both pages and by every reader."""

from itertools import combinations, pairwise

import numpy as np
import pytest

from lisabench.reports import palette

pytestmark = pytest.mark.no_clock

BOTH_PAGES = (palette.WHITE_PAGE, palette.DARK_PAGE)
# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision
# Deficiency", 2009, at full severity: what readers without one kind of cone see, in linear RGB.
SEEN_BY = {
    "usual": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.072175],
        [0.0193339, 0.119192, 0.9503041],
    ]
)
D65 = np.array([0.95047, 1.0, 1.08883])


def as_lab(colour: str, seen_by: str) -> np.ndarray:
    """Return a colour as a reader sees it, in CIE L*a*b*."""
    values = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(SEEN_BY[seen_by]) @ linear, 0, 1)
    x, y, z = np.cbrt(np.maximum(XYZ @ seen / D65, 1e-6))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def distance(first: str, second: str, seen_by: str) -> float:
    return float(np.linalg.norm(as_lab(first, seen_by) - as_lab(second, seen_by)))


def test_the_contrast_is_that_of_the_standards_examples():
    assert palette.contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert palette.contrast("#777777", "#FFFFFF") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("page", BOTH_PAGES)
def test_marks_and_bars_are_seen_on_a_white_and_on_a_dark_page(page):
    colours = [*palette.ENCODERS.values(), *palette.OTHERS, *palette.STAGES.values()]
    colours += [palette.LESS, palette.MORE]
    for colour in colours:
        assert palette.contrast(colour, page) > 2.95, colour


@pytest.mark.parametrize("page", BOTH_PAGES)
def test_texts_are_read_on_a_white_and_on_a_dark_page(page):
    assert palette.contrast(palette.INK, page) > 4.2


def test_on_a_dark_page_names_of_encoders_have_the_contrast_of_texts():
    assert palette.ENCODERS_ON_DARK.keys() == palette.ENCODERS.keys()
    for colour in palette.ENCODERS_ON_DARK.values():
        assert palette.contrast(colour, palette.DARK_PAGE) > 4.5


@pytest.mark.parametrize("seen_by", SEEN_BY)
def test_every_reader_can_tell_the_encoders_apart(seen_by):
    for first, second in combinations(palette.ENCODERS.values(), 2):
        assert distance(first, second, seen_by) > 15


@pytest.mark.parametrize("seen_by", SEEN_BY)
def test_every_reader_can_tell_stages_apart_that_touch_each_other(seen_by):
    bar = ["preprocess", "vision", "llm", "decoder", "postprocess"]
    for first, second in pairwise(bar):
        assert distance(palette.STAGES[first], palette.STAGES[second], seen_by) > 15


def test_no_stage_and_no_error_of_a_mask_has_the_colour_of_an_encoder():
    others = {*palette.STAGES.values(), palette.TOO_MUCH, palette.MISSED}
    for encoder in palette.ENCODERS.values():
        for colour in others:
            assert distance(encoder, colour, "usual") > 25, (encoder, colour)


def test_the_colour_is_that_of_the_encoder_whatever_the_name_and_the_place():
    cases = [
        ("a", {"vision": "sam"}),
        ("b", {"vision": "dual"}),
        ("dual-again", {"vision": "clip"}),
        ("sam-nf4", None),
    ]
    encoders = ["sam", "dual", "clip", "sam"]
    looks = palette.looks(cases)
    assert [look.is_open for look in looks] == [False, False, False, True]
    assert [look.colour for look in looks] == [palette.ENCODERS[encoder] for encoder in encoders]


def test_models_without_such_an_encoder_have_colours_of_their_own():
    cases = [("mine", {}), ("yours", {"vision": "dino"}), ("theirs", None)]
    assert [look.colour for look in palette.looks(cases)] == list(palette.OTHERS)


def test_quantisation_and_execution_change_hatch_and_mark_and_no_colour():
    plain = {"vision": "clip", "quantization": "none", "execution": "graphed"}
    looks = palette.looks(
        [
            ("plain", plain),
            ("nf4", plain | {"quantization": "nf4"}),
            ("upstream", plain | {"execution": "upstream"}),
            ("both", plain | {"quantization": "nf4", "execution": "upstream"}),
        ]
    )
    assert {look.colour for look in looks} == {palette.ENCODERS["clip"]}
    assert len({look.hatch for look in looks}) == len(looks)
    assert len({(look.mark, look.is_open) for look in looks}) == len(looks)


def test_cases_that_look_alike_have_different_lines():
    case = {"vision": "dual", "execution": "eager"}
    alike = palette.looks([("dual", case), ("dual-again", case), ("clip", {"vision": "clip"})])
    assert [look.dash for look in palette.with_dashes(alike)] == ["-", "--", "-"]


def test_text_on_a_colour_is_black_or_white_by_its_contrast():
    for colour in palette.STAGES.values():
        assert palette.contrast(palette.text_on(colour), colour) > 4.3
    assert palette.text_on("#FFFFFF") == "#111111"
