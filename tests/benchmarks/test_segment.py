"""One image, one query: the files that `segment` writes, and what it refuses."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from command import lisabench
from lisas import lisa, noise, predict
from outside_adapter import CORNER
from PIL import Image

from lisabench.benchmarks import segment as module
from lisabench.benchmarks.segment import segment
from lisabench.harness.contract import Prediction, Probe, Sample
from lisabench.harness.errors import DataError, LisabenchError, RunFailed, UsageError
from lisabench.models.adapters import lisa as lisa_adapter
from lisabench.models.adapters import lisa_stages
from lisabench.models.adapters.lisa_stages import Lisa
from lisabench.models.lisa import packaged
from lisabench.models.lisa.config import LisaConfig
from lisabench.models.lisa.tokenizer import Tokens

pytestmark = pytest.mark.no_clock

ON_CPU = {"device": "cpu"}
FIVE_TOKENS = {"device": "cpu", "answer": "generated", "max_new_tokens": 5}


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(noise().image).save(path)
    return path


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def outline_of(mask_HW: np.ndarray) -> np.ndarray:
    """Return the pixels of a mask of which a neighbour is outside of it, or of the image."""
    padded = np.pad(mask_HW, 1)
    height, width = mask_HW.shape
    inner = np.ones_like(mask_HW)
    for down in range(3):
        for right in range(3):
            inner &= padded[down : down + height, right : right + width]
    return mask_HW & ~inner


def test_the_mask_and_an_overlay_are_written_at_the_images_size(
    picture: Path, tmp_path: Path
) -> None:
    written = segment(
        picture, "Where is it?", ON_CPU, tmp_path / "new" / "mask.png", allow_random=True
    )
    found = written.segmentation
    expected = predict(lisa(), noise("Where is it?"))[0]
    assert (written.mask, written.overlay) == (
        tmp_path / "new" / "mask.png",
        tmp_path / "new" / "mask-overlay.png",
    )
    assert written.separate == ()
    mask, overlay, image = read(written.mask), read(written.overlay), noise().image
    np.testing.assert_array_equal(found.mask, expected.mask_HW)
    np.testing.assert_array_equal(mask, expected.mask_HW * np.uint8(255))
    inside = expected.mask_HW
    assert 0 < inside.mean() < 1 and found.covered == pytest.approx(inside.mean(), rel=1e-6, abs=0)
    np.testing.assert_array_equal(overlay[~inside], image[~inside])
    outline = outline_of(inside)
    assert 0 < outline.sum() < inside.sum()
    assert (overlay[outline] == 255).all()
    filled = inside & ~outline
    np.testing.assert_allclose(
        overlay[filled], image[filled] / 2 + np.array([127.5, 0, 0]), rtol=0, atol=1
    )
    assert found.has_seg and found.text is None and found.answer_tokens == 0
    assert found.predicted_iou == pytest.approx(expected.predicted_iou, rel=1e-4, abs=1e-5)


def test_a_generated_answer_is_told(picture: Path, tmp_path: Path) -> None:
    written = segment(
        picture, "the red circle", FIVE_TOKENS, tmp_path / "mask.png", allow_random=True
    )
    found = written.segmentation
    assert found.text.replace(" ", "") == ",,[SEG]." and found.answer_tokens == 5


@pytest.mark.parametrize(
    ("settings", "weight", "what"),
    [
        (ON_CPU, "llm.model.norm.weight", "the logits of the mask"),
        (ON_CPU, "mask_decoder.iou_prediction_head.proj_out.weight", "the predicted IoU"),
        (FIVE_TOKENS, "llm.model.norm.weight", "the logits of the answer's tokens"),
    ],
)
def test_a_mask_made_of_nan_is_refused_and_not_written(
    picture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, object],
    weight: str,
    what: str,
) -> None:
    def build(case: LisaConfig, probe: Probe) -> Lisa:
        adapter = original_build(case, probe)
        adapter.model.get_parameter(weight).data.view(-1)[3] = float("nan")
        return adapter

    original_build = lisa_adapter.build
    monkeypatch.setattr(lisa_adapter, "build", build)
    with pytest.raises(RunFailed, match=f"picture.png: not finite .NaN or infinity.: {what}; "):
        segment(picture, "the red circle", settings, tmp_path / "mask.png", allow_random=True)
    assert list(tmp_path.iterdir()) == [picture]


@pytest.mark.parametrize(
    ("image", "out"),
    [
        ("picture.png", "picture.png"),
        ("picture.png", "folder/../picture.png"),
        ("picture.png", "link.png"),  # a symlink to the image
        ("picture-overlay.png", "picture.png"),  # the overlay's name is made of the mask's
    ],
)
def test_neither_mask_nor_overlay_is_written_over_the_image(
    picture: Path, tmp_path: Path, image: str, out: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.png").symlink_to(picture)
    picture.rename(tmp_path / image)
    before = (tmp_path / image).read_bytes()
    with pytest.raises(UsageError, match="is the image itself, and would be overwritten"):
        segment(tmp_path / image, "a", ON_CPU, tmp_path / out, allow_random=True)
    assert (tmp_path / image).read_bytes() == before


def test_an_answer_without_seg_is_said(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends_at_once(tokens: Tokens, length: int) -> list[int]:
        return [tokens.end_id] * length

    monkeypatch.setattr(lisa_stages, "scripted_answer", ends_at_once)
    done = lisabench(
        "segment", picture, "the red circle", "--allow-random", "--out", tmp_path / "mask.png",
        *("--set", "device=cpu", "--set", "answer=generated", "--set", "max_new_tokens=4"),
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stderr.splitlines() == ["warning: the answer has no [SEG], so the mask is empty"]
    assert "(0.0% of the image)" in done.stdout


def test_a_mask_in_which_nothing_is_found_is_said(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finds_nothing(_: Lisa, sample: Sample, __: object) -> Prediction:
        return Prediction(np.zeros(sample.image.shape[:2], bool))

    monkeypatch.setattr(module, "predict", finds_nothing)
    words = ("the red circle", "--allow-random", "--set", "device=cpu")
    done = lisabench("segment", picture, *words, "--out", tmp_path / "mask.png")
    assert done.returncode == 0
    assert done.stderr.splitlines() == ["warning: nothing was found: the mask is empty"]
    np.testing.assert_array_equal(read(tmp_path / "mask-overlay.png"), read(picture))


def test_a_thick_outline_is_drawn_on_a_large_image() -> None:
    image_HW3 = np.full((500, 1000, 3), 200, np.uint8)
    mask_HW = np.zeros((500, 1000), bool)
    mask_HW[100:300, :400] = True  # it touches the left edge, where the outline is closed, too
    overlay = module._overlay(image_HW3, mask_HW)
    is_white = (overlay == 255).all(2)
    expected = mask_HW.copy()
    expected[104:296, 4:396] = False
    np.testing.assert_array_equal(is_white, expected)


def test_an_image_that_lies_on_its_side_is_turned_upright(tmp_path: Path) -> None:
    path, exif = tmp_path / "turned.jpg", Image.Exif()
    exif[0x0112] = 6  # the top of the scene is at the right of the stored pixels
    Image.fromarray(noise(size_HW=(40, 70)).image).save(path, exif=exif)
    written = segment(path, "the red circle", ON_CPU, tmp_path / "mask.png", allow_random=True)
    assert read(written.mask).shape == (70, 40)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_any_kind_of_image_is_taken(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "bild ü.png"
    Image.fromarray(noise(size_HW=(30, 40)).image).convert(mode).save(path)
    written = segment(path, "the red circle", ON_CPU, tmp_path / "mäsk.png", allow_random=True)
    assert read(written.mask).shape == (30, 40) and read(written.overlay).shape == (30, 40, 3)


def built_none(case: LisaConfig, probe: Probe) -> Lisa:
    pytest.fail(f"a model was built: {case}, {probe}")


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"query": "  "}, UsageError, r"the query is empty; say what to segment"),
        (
            {"allow_random": False, "settings": {"weights": "random"}},
            UsageError,
            r"weights=random segments noise; name a checkpoint",
        ),
        ({"settings": {"weight": 1}}, UsageError, r"unknown setting of 'lisa' 'weight'"),
        (
            {"image": "none.jpg"},
            DataError,
            r"none\.jpg: cannot be read \(No such file or directory\)",
        ),
        ({"image": "."}, DataError, r"cannot be read \(Is a directory\)"),
        ({"image": "words.jpg"}, DataError, r"words\.jpg: cannot be decoded as an image"),
        ({"image": "empty.jpg"}, DataError, r"empty\.jpg: cannot be decoded as an image"),
        (
            {"image": "pipe.jpg"},
            DataError,
            r"pipe\.jpg: cannot be read \(it is a pipe",
        ),
        (
            {"image": "narrow.png"},
            DataError,
            r"narrow\.png: too narrow for the models: 5000 x 1 pixels; expected sides of 2 pixels",
        ),
        ({"out": "mask.jpg"}, UsageError, r"mask\.jpg: the mask is written as PNG"),
        ({"out": "words.jpg/mask.png"}, UsageError, r"no folder can be made there"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_before_a_model_is_built(
    tmp_path: Path,
    picture: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, object],
    kind: type[LisabenchError],
    message: str,
) -> None:
    (tmp_path / "words.jpg").write_text("no image")
    (tmp_path / "empty.jpg").touch()
    os.mkfifo(tmp_path / "pipe.jpg")
    Image.new("RGB", (5000, 1)).save(tmp_path / "narrow.png")
    monkeypatch.setattr(lisa_adapter, "build", built_none)
    given = {
        "image": picture,
        "query": "a",
        "settings": ON_CPU,
        "out": "mask.png",
        "allow_random": True,
        **changes,
    }
    given |= {"image": tmp_path / given["image"], "out": tmp_path / given["out"]}
    with pytest.raises(kind, match=message) as caught:
        segment(**given)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_written_is_one_line(picture: Path, tmp_path: Path) -> None:
    (tmp_path / "mask.png").mkdir()
    with pytest.raises(UsageError, match=r"mask\.png: cannot be written \(Is a directory\)"):
        segment(picture, "the red circle", ON_CPU, tmp_path / "mask.png", allow_random=True)


def test_a_noun_phrase_is_put_as_validation_puts_one_and_a_sentence_as_it_stands(
    picture: Path,
) -> None:
    said = {
        query: module.sample_of(picture, query).is_sentence
        for query in ("the red circle", "Segment it. ", "Where?")
    }
    assert said == {"the red circle": False, "Segment it. ": True, "Where?": True}


def test_where_no_weights_are_named_the_packaged_ones_are_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(packaged.folders()["sam"])
    monkeypatch.setattr(packaged, "FAMILY", tmp_path)
    with pytest.raises(
        UsageError,
        match="no packaged weights are of preset=tiny, vision=clip; this installation comes",
    ):
        module.case_of({"vision": "clip"})
    assert module.case_of({}, allow_random=True).weights == "random"
    named = module.case_of({"weights": folder})
    assert (named.weights, named.vision) == (folder, "sam")
    assert module.case_of({"preset": "lisa-7b"}).weights == "random", (
        "which is refused with a line that says what to do"
    )


@pytest.mark.parametrize("adapter", ["corner.py", "corner_to_segment:build", "whole-image"])
def test_the_model_of_another_adapter_segments(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapter: str
) -> None:
    for name in ("corner.py", "corner_to_segment.py"):
        (tmp_path / name).write_text(CORNER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "corner_to_segment", raising=False)
    monkeypatch.chdir(tmp_path)
    done = lisabench("segment", picture, "a", "--set", f"adapter={adapter}", "--out", "mask.png")
    assert done.returncode == 0, done.stderr
    expected = noise().image.size // 3 if adapter == "whole-image" else 16
    assert np.count_nonzero(read(tmp_path / "mask.png")) == expected


def test_the_settings_of_another_adapter_are_checked(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "corner.py").write_text(CORNER)
    monkeypatch.chdir(tmp_path)
    words = ("segment", picture, "a", "--out", "mask.png", "--set", "adapter=corner.py")
    assert lisabench(*words, "--set", "size_px=2").returncode == 0
    assert np.count_nonzero(read(tmp_path / "mask.png")) == 4
    refused = lisabench(*words, "--set", "weights=packaged")
    assert refused.returncode == 2 and "unknown setting of 'corner.py'" in refused.stderr


@pytest.mark.parametrize("vision", ["dual", "clip", "sam"])
def test_the_weights_that_ship_are_asked_without_leave_and_without_a_warning(
    picture: Path, tmp_path: Path, vision: str
) -> None:
    written = segment(
        picture, "the red circle", {"vision": vision, "device": "cpu"}, tmp_path / "m.png"
    )
    found = written.segmentation
    assert found.has_seg and found.warnings == ()
    assert read(written.mask).shape == noise().image.shape[:2]


def test_images_are_read_as_data_sets_read_them(picture: Path) -> None:
    np.testing.assert_array_equal(
        module.sample_of(picture, "a").image, cv2.imread(str(picture))[..., ::-1]
    )


@pytest.mark.parametrize("link", ["mask.png", "mask-overlay.png"])
def test_a_symbolic_link_is_replaced_and_what_it_leads_to_stays(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("precious").write_text("somebody's")
    Path(link).symlink_to("precious")
    done = lisabench("segment", picture, "a", "--out", "mask.png", "--set", "adapter=whole-image")
    assert done.returncode == 0, done.stderr
    assert Path("precious").read_text() == "somebody's"
    assert not Path(link).is_symlink() and Path(link).read_bytes().startswith(b"\x89PNG")


# What weights say of themselves


def test_weights_alone_are_enough_and_the_mask_is_named_after_the_image(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    weights = packaged.folders()["clip"]  # of a finer grid than the default
    for _ in range(2):
        done = lisabench("segment", picture, "the red circle", "--set", f"weights={weights}")
        assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("mask: picture-mask-2.png (")
    written = {path.name for path in Path().iterdir()}
    assert written == {
        "picture-mask.png",
        "picture-mask-overlay.png",
        "picture-mask-2.png",
        "picture-mask-2-overlay.png",
    }
    segment(picture, "the red circle", {"vision": "clip"}, Path("packaged.png"))
    np.testing.assert_array_equal(read(Path("picture-mask.png")), read(Path("packaged.png")))


def test_a_use_for_which_weights_were_not_trained_is_warned_of(
    picture: Path, tmp_path: Path
) -> None:
    words = ("segment", picture, "the red circle", "--out", tmp_path / "mask.png")
    done = lisabench(*words, "--set", "template=llava_llama_2")
    assert done.returncode == 0
    (warning,) = done.stderr.splitlines()
    assert warning.startswith("warning: these weights (trained on ")
    assert warning.endswith("trained with template=llava_v1 and are used with llava_llama_2")
    refused = lisabench(*words, "--set", "weights=packaged", "--set", "bridge=upsampling")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1


# The prompt as typed, and several [SEG]


def test_a_prompt_is_sent_as_typed_and_answered_in_words(picture: Path, tmp_path: Path) -> None:
    words = (picture, "--out", tmp_path / "mask.png", "--set", "max_new_tokens=3")
    done = lisabench("segment", "--prompt", " Explain the red circle", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("answer: ")
    forced = lisabench("segment", "--prompt", "the circle", *words, "--set", "answer=forced")
    assert forced.returncode == 0 and "answer: " not in forced.stdout


@pytest.mark.parametrize("words", [(), ("the circle", "--prompt", "the circle")])
def test_either_a_query_or_a_prompt_is_given(picture: Path, words: tuple[str, ...]) -> None:
    refused = lisabench("segment", picture, *words)
    assert refused.returncode == 2
    assert "give either a QUERY or --prompt WORDS" in refused.stderr


TWO = [40, "[SEG]", 50, "[SEG]", "</s>"]


def answering(*words: int | str) -> Callable[[Tokens, int], list[int]]:
    """Return what makes these tokens the answer of random weights."""

    def script(tokens: Tokens, length: int) -> list[int]:
        special = {"[SEG]": tokens.seg_id, "</s>": tokens.end_id}
        return [special.get(word, word) for word in words][:length]

    return script


@pytest.mark.parametrize(
    ("masks", "files"),
    [
        ("union", {"m.png"}),
        ("first", {"m.png"}),
        ("separate", {"m.png", "m-1.png", "m-2.png"}),
    ],
)
def test_a_mask_is_written_for_each_seg_if_they_are_to_be_separate(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, masks: str, files: set[str]
) -> None:
    monkeypatch.setattr(lisa_stages, "scripted_answer", answering(*TWO))
    out = tmp_path / "out" / "m.png"
    words = ("the red circle", "--allow-random", "--out", out, "--set", f"masks={masks}")
    settings = [word for name in FIVE_TOKENS for word in ("--set", f"{name}={FIVE_TOKENS[name]}")]
    done = lisabench("segment", picture, *words, *settings)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in out.parent.iterdir()} == files | {"m-overlay.png"}
    assert done.stdout.count("mask of one [SEG]: ") == len(files) - 1
    if masks == "separate":
        union = read(out.with_name("m-1.png")) | read(out.with_name("m-2.png"))
        np.testing.assert_array_equal(read(out), union)


def test_no_separate_mask_is_written_over_the_image(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lisa_stages, "scripted_answer", answering(*TWO))
    image = picture.rename(tmp_path / "m-2.png")
    before = image.read_bytes()
    settings = {**FIVE_TOKENS, "masks": "separate"}
    with pytest.raises(UsageError, match=r"m-2\.png is the image itself"):
        segment(image, "a", settings, tmp_path / "m.png", allow_random=True)
    assert image.read_bytes() == before and list(tmp_path.iterdir()) == [image]
