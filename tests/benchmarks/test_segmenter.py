"""One image from Python: a model that is loaded once, and asked again and again."""

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lisas import lisa, noise, predict
from PIL import Image
from places import ROOT

import lisabench
from lisabench.benchmarks import segment as module
from lisabench.harness.errors import DataError, LisabenchError, UsageError
from lisabench.models.lisa import packaged
from lisabench.models.lisa.config import LisaConfig

pytestmark = pytest.mark.no_clock

IMAGE = noise().image
QUERY = "the red circle"


@pytest.fixture(scope="module")
def packaged_dual() -> Iterator[lisabench.Segmenter]:
    with lisabench.Segmenter(packaged.folders()["dual"], device="cpu") as segmenter:
        yield segmenter


def test_the_example_of_the_documents_works(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "segment.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    found = names["found"]
    assert found.mask.shape == names["other"].mask.shape == (240, 320)
    assert found.answer_tokens <= 16 and found.has_seg
    disc = names["disc"]
    assert (found.mask & disc).sum() / (found.mask | disc).sum() > 0.9
    assert capsys.readouterr().out == "[SEG]. 7% of the image\n"


def test_importing_the_package_imports_nothing_of_it() -> None:
    code = (
        "import sys, lisabench; assert 'torch' not in sys.modules; "
        "assert not hasattr(lisabench, 'Segmentor'); assert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert lisabench.Segmenter is module.Segmenter


@pytest.mark.parametrize("kind", ["path", "text", "pil", "array", "mirrored view"])
def test_an_image_of_any_kind_gives_the_mask_that_a_run_scores(
    packaged_dual: lisabench.Segmenter, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(IMAGE).save(path)
    bgr_HW3 = np.ascontiguousarray(IMAGE[..., ::-1])
    images = {
        "path": path,
        "text": str(path),
        "pil": Image.open(path),
        "array": IMAGE,
        "mirrored view": bgr_HW3[..., ::-1],
    }
    found = packaged_dual.segment(images[kind], QUERY)
    (expected,) = predict(packaged_dual._model, noise(QUERY, is_sentence=False))
    assert found.mask.dtype == np.bool_ and found.mask.shape == IMAGE.shape[:2]
    np.testing.assert_array_equal(found.mask, expected.mask_HW)
    (only,) = found.masks
    np.testing.assert_array_equal(only, expected.mask_HW)
    assert (found.has_seg, found.text, found.warnings) == (True, None, ())
    assert found.predicted_iou == pytest.approx(expected.predicted_iou, rel=1e-6, abs=0)
    assert found.covered == pytest.approx(found.mask.mean(), rel=1e-9, abs=0)


def test_a_pil_image_is_upright_and_has_three_colours(packaged_dual: lisabench.Segmenter) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the scene is at the right of the stored pixels
    turned = Image.fromarray(IMAGE[..., 0])
    turned.getexif().update(exif)
    expected = np.rot90(IMAGE[..., :1].repeat(3, axis=2), -1)
    np.testing.assert_array_equal(module.sample_of(turned, "a").image, expected)
    assert packaged_dual.segment(turned, QUERY).mask.shape == (90, 60)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (IMAGE / 255, r"an array of float64 \[60, 90, 3\]; expected a path, a PIL image of 8 bits"),
        (IMAGE[..., 0], r"an array of uint8 \[60, 90\]"),
        (np.zeros((0, 9, 3), np.uint8), r"an array of uint8 \[0, 9, 3\]"),
        (Image.new("I;16", (9, 9)), "PIL's mode I;16"),
        (b"bytes", "of type bytes"),
        (Path("none.jpg"), r"none\.jpg: cannot be read"),
        (np.zeros((1, 5000, 3), np.uint8), "the image: too narrow for the models"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(
    packaged_dual: lisabench.Segmenter, image: object, message: str
) -> None:
    with pytest.raises((UsageError, DataError), match=message) as caught:
        packaged_dual.segment(image, QUERY)
    assert "\n" not in str(caught.value)


def test_a_pil_image_of_a_broken_file_is_refused(
    packaged_dual: lisabench.Segmenter, tmp_path: Path
) -> None:
    Image.fromarray(IMAGE).save(tmp_path / "cut.png")
    content = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="the image cannot be decoded"):
        packaged_dual.segment(Image.open(tmp_path / "cut.png"), QUERY)


def test_an_array_that_is_changed_later_is_another_image() -> None:
    changing = IMAGE.copy()
    before = module.sample_of(changing, "a")
    changing[0, 0] += 1
    after = module.sample_of(changing, "a")
    np.testing.assert_array_equal(before.image, IMAGE)
    assert before.image_id != after.image_id == module.sample_of(changing.copy(), "b").image_id
    assert module.sample_of(changing.reshape(90, 60, 3), "a").image_id != after.image_id


def test_queries_about_one_image_may_share_its_encoding() -> None:
    with lisabench.Segmenter(reuse="on", device="cpu") as segmenter:
        for query in (QUERY, "the blue square", QUERY):
            segmenter.segment(IMAGE, query)
        assert segmenter.settings["reuse"] == "on"
        shared = segmenter.segment(IMAGE, QUERY).mask
        other = segmenter.segment(255 - IMAGE, QUERY).mask
    with lisabench.Segmenter(device="cpu") as segmenter:
        np.testing.assert_array_equal(shared, segmenter.segment(IMAGE, QUERY).mask)
        np.testing.assert_array_equal(other, segmenter.segment(255 - IMAGE, QUERY).mask)


def test_settings_are_those_of_the_weights_and_those_that_are_given() -> None:
    weights = packaged.folders()["clip"]
    with lisabench.Segmenter(weights, device="cpu", frame="crop") as segmenter:
        settings = segmenter.settings
        assert (settings["vision"], settings["clip_px"]) == ("clip", 224)
        assert settings["frame"] == "crop"
        (warning,) = segmenter.segment(IMAGE, QUERY).warnings
    assert "trained with frame=whole and are used with crop" in warning


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": "nowhere"}, "weights=nowhere is no folder"),
        ({"weights": "random"}, "weights=random segments noise"),
        ({"wieghts": "x"}, "unknown setting of 'lisa' 'wieghts'.*did you mean 'weights'"),
        ({"adapter": "nobody"}, "unknown adapter 'nobody'"),
    ],
)
def test_what_cannot_be_loaded_is_refused(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(LisabenchError, match=message):
        lisabench.Segmenter(**arguments)


def test_the_model_of_another_adapter_segments() -> None:
    with lisabench.Segmenter(adapter="whole-image") as segmenter:
        found = segmenter.segment(IMAGE, QUERY)
    assert found.mask.all() and len(found.masks) == 1 and found.warnings == ()


def test_a_closed_segmenter_says_so_and_may_be_closed_again() -> None:
    segmenter = lisabench.Segmenter(adapter="whole-image")
    segmenter.close()
    segmenter.close()
    with pytest.raises(UsageError, match="this Segmenter is closed: make another one"):
        segmenter.segment(IMAGE, QUERY)


def test_threads_take_turns_and_each_gets_the_answer_to_its_own_query(
    packaged_dual: lisabench.Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [np.roll(IMAGE, 9 * i, axis=1) for i in range(3)]
    expected = [packaged_dual.segment(image, QUERY).mask for image in images]
    found: dict[int, np.ndarray] = {}
    inside = []
    predicted = module.predict

    def watched(*arguments: object) -> object:
        inside.append(threading.get_ident())
        prediction = predicted(*arguments)
        # Nobody else came in while this thread was.
        assert inside == [threading.get_ident()]
        inside.clear()
        return prediction

    def answer(i: int) -> None:
        found[i] = packaged_dual.segment(images[i], QUERY).mask

    monkeypatch.setattr(module, "predict", watched)
    threads = [threading.Thread(target=answer, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(3):
        np.testing.assert_array_equal(found[i], expected[i])


def test_a_long_array_is_not_shown() -> None:
    with lisabench.Segmenter(adapter="whole-image") as segmenter:
        shown = repr(segmenter.segment(IMAGE, QUERY))
    assert "array" not in shown and "has_seg=True" in shown


def test_random_weights_are_for_who_allows_them() -> None:
    with lisabench.Segmenter(device="cpu", allow_random=True) as segmenter:
        found = segmenter.segment(IMAGE, "Where is it?").mask
    np.testing.assert_array_equal(found, predict(lisa(), noise("Where is it?"))[0].mask_HW)
    assert LisaConfig().weights == "random"
