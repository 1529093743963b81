"""The list of everything that is wrong in a folder."""

import json

import numpy as np
import pytest
from PIL import Image

from lisabench.datasets.reasonseg import ReasonSeg
from lisabench.datasets.scenes.generator import make
from lisabench.datasets.verify import verify
from lisabench.harness.errors import DataError

pytestmark = pytest.mark.no_clock

SQUARE = [[2, 2], [8, 2], [8, 8], [2, 8]]
WHOLE = [[-1, -1], [16, -1], [16, 12], [-1, 12]]


def polygon(points=SQUARE, label="target", **more):
    return {"label": label, "points": points, "shape_type": "polygon", "image_name": "a.jpg"} | more


def pair(folder, *shapes, name="a", content=None, suffix=".jpg", size=(12, 16)):
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)).save(
        folder / f"{name}{suffix}"
    )
    content = content or json.dumps({"text": ["it"], "is_sentence": False, "shapes": list(shapes)})
    (folder / f"{name}.json").write_text(content)


def reasons(root, split=None):
    return [str(problem).removeprefix(f"{root}/") for problem in verify(root, split)]


def test_a_generated_folder_is_sound(tmp_path):
    make(tmp_path, "val", 12, seed=0)
    assert verify(tmp_path) == []


def test_what_reasonseg_itself_holds_is_legal(tmp_path):
    """These are points just outside the image, flags of two points, ignored regions, no polygon."""
    flag = polygon([[1, 1], [2, 2]], "flag", shape_type="line", image_name="other.jpg")
    pair(tmp_path / "val", polygon([[-3.5, 2], [8, 2], [8, 14]]), polygon(label="ignore"), flag)
    pair(tmp_path / "val", name="b")
    assert reasons(tmp_path) == []


SHAPES = {
    "shapes[0] has shape_type 'circle'": [polygon(shape_type="circle")],
    "shapes[0] has 2 points": [polygon([[1, 1], [5, 5]])],
    "shapes[1] names the image 'b.jpg'": [polygon(), polygon(image_name="b.jpg")],
    "shapes[0] lies wholly outside": [polygon([[50, 2], [60, 2], [60, 9]]), polygon()],
    "every pixel is ignored": [polygon(WHOLE, "ignore")],
    "leave no pixel of it": [
        polygon(SQUARE),
        polygon(SQUARE[:3], "ignore"),
        polygon(SQUARE[2:] + SQUARE[:1], "ignore"),
    ],
}


@pytest.mark.parametrize("reason", SHAPES)
def test_each_fault_of_a_polygon_is_named(tmp_path, reason):
    pair(tmp_path / "val", *SHAPES[reason])
    (found,) = reasons(tmp_path)
    assert found.startswith("val/a.json: ")
    assert reason in found


def test_every_problem_of_a_folder_is_listed_with_its_file(tmp_path):
    pair(tmp_path / "val", name="a", suffix=".png")
    pair(tmp_path / "val", polygon(), name="a")
    pair(tmp_path / "val", name="broken", content="{")
    pair(tmp_path / "val", name="damaged", size=(120, 160))
    whole = (tmp_path / "val" / "damaged.jpg").read_bytes()
    (tmp_path / "val" / "damaged.jpg").write_bytes(whole[: len(whole) // 2])
    pair(tmp_path / "val", name="lonely")
    (tmp_path / "val" / "lonely.json").unlink()
    pair(tmp_path / "val", name="mute", content='{"text": [], "is_sentence": true, "shapes": []}')
    pair(tmp_path / "val", name="noise")
    (tmp_path / "val" / "noise.jpg").write_text("noise")
    (tmp_path / "val" / "orphan.json").write_text("[]")
    found = reasons(tmp_path)
    expected = [
        ("val/a.png", "same name"),
        ("val/broken.json", "is not JSON"),
        ("val/damaged.jpg", "is damaged"),
        ("val/lonely.jpg", "has no annotation"),
        ("val/mute.json", "text is empty"),
        ("val/noise.jpg", "cannot be decoded"),
        ("val/orphan.json", "has no image"),
        ("val/orphan.json", "not an object"),
    ]
    assert [name for name, _ in expected] == [line.split(":")[0] for line in found]
    assert all(reason in line for (_, reason), line in zip(expected, found, strict=True))


UNREADABLE = {
    "half a surrogate": {"text": ["\ud800"], "is_sentence": False, "shapes": []},
    "32-bit coordinates": {
        "text": ["it"],
        "is_sentence": False,
        "shapes": [polygon([[1, 1], [10**400, 1], [1, 5]])],
    },
}


@pytest.mark.parametrize("reason", UNREADABLE)
def test_what_a_run_would_refuse_is_a_problem_too(tmp_path, reason):
    pair(tmp_path / "val", content=json.dumps(UNREADABLE[reason]))
    (found,) = reasons(tmp_path)
    assert found.startswith("val/a.json: ") and reason in found


def test_images_too_narrow_for_the_models_are_listed_but_can_be_read(tmp_path):
    sizes = {
        "dot": (1, 1),
        "line": (1, 300),
        "ribbon": (2, 401),
        "tower": (603, 3),
        "legal": (2, 400),
        "least": (2, 2),
    }
    for name, size in sizes.items():
        pair(tmp_path / "val", name=name, size=size, suffix=".png")
    found = reasons(tmp_path)
    assert [line.split(": ")[0] for line in found] == [
        f"val/{n}.png" for n in ("dot", "line", "ribbon", "tower")
    ]
    assert "too narrow for the models: 3 x 603 pixels" in found[-1]
    assert [sample.image.shape[:2] for sample in ReasonSeg(tmp_path)] == [
        sizes[name] for name in sorted(sizes)
    ]


def test_all_splits_are_looked_at_unless_one_is_named(tmp_path):
    pair(tmp_path / "train", content="{")
    pair(tmp_path / "val", content="{")
    (tmp_path / "test").mkdir()
    (tmp_path / "notes").mkdir()
    assert [line.split(":")[0] for line in reasons(tmp_path)] == [
        "test",
        "train/a.json",
        "val/a.json",
    ]
    assert [line.split(":")[0] for line in reasons(tmp_path, "val")] == ["val/a.json"]


def test_a_missing_folder_or_split_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        verify(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no split"):
        verify(tmp_path)
    pair(tmp_path / "val")
    with pytest.raises(DataError, match="no split 'test'"):
        verify(tmp_path, "test")
