"""Reading folders in ReasonSeg's format."""

import io
import json
import os
import pickle
import shutil
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from PIL import Image

from lisabench.datasets import samples
from lisabench.datasets.drawing import draw_mask
from lisabench.datasets.image import breaks_off, read_image
from lisabench.datasets.raster import draw_polygon
from lisabench.datasets.reasonseg import ReasonSeg
from lisabench.datasets.verify import verify
from lisabench.harness.errors import DataError, UsageError

pytestmark = pytest.mark.no_clock

SQUARE = [[2, 2], [8, 2], [8, 8], [2, 8]]
INNER = [[4, 4], [6, 4], [6, 6], [4, 6]]


def shape(points, label="target"):
    return {"label": label, "points": points}


def annotation(*shapes, text=("the thing",), **more):
    return {"text": list(text), "is_sentence": False, "shapes": list(shapes), **more}


def write(folder, name, content=None, size=(12, 16), suffix=".jpg"):
    """One pair; `content` is an annotation, bytes, or None for no JSON at all."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(name)).integers(0, 255, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / f"{name}{suffix}")
    if content is not None:
        encoded = content if isinstance(content, bytes) else json.dumps(content).encode()
        (folder / f"{name}.json").write_bytes(encoded)


def values(*shapes):
    return set(np.unique(draw_mask(annotation(*shapes), 12, 16)).tolist())


# Drawing


def test_flags_are_not_drawn_in_whatever_case():
    assert values(shape(SQUARE, "flag"), shape([[1, 1], [2, 2]], "FLAG"), shape([], "Flag")) == {0}
    assert values(shape(SQUARE, "flagpole")) == {0, 1}


def test_every_label_with_ignore_in_it_draws_255():
    for label in ("ignore", "Ignore-region", "to IGNORE"):
        assert values(shape(SQUARE, label)) == {0, 255}


def test_smaller_polygons_lie_on_top_whatever_their_order():
    for shapes in (
        [shape(SQUARE), shape(INNER, "ignore")],
        [shape(INNER, "ignore"), shape(SQUARE)],
    ):
        mask_HW = draw_mask(annotation(*shapes), 12, 16)
        assert (mask_HW[5, 5], mask_HW[3, 3]) == (255, 1)


def test_the_area_is_measured_on_the_raster_and_not_on_the_points():
    mostly_outside = shape([[-500, 4], [6, 4], [6, 7], [-500, 7]], "ignore")
    assert draw_mask(annotation(mostly_outside, shape(SQUARE)), 12, 16)[5, 5] == 255


def test_of_two_equally_large_polygons_the_first_lies_on_top():
    assert draw_mask(annotation(shape(SQUARE, "ignore"), shape(SQUARE)), 12, 16)[5, 5] == 255
    assert draw_mask(annotation(shape(SQUARE), shape(SQUARE, "ignore")), 12, 16)[5, 5] == 1


def test_points_are_cut_to_integers_towards_zero_and_the_border_belongs_to_the_mask():
    mask_HW = draw_mask(annotation(shape([[2.9, 2.9], [8.9, 2.1], [8, 8.99], [2, 8]])), 12, 16)
    ys, xs = np.nonzero(mask_HW)
    assert (xs.min(), ys.min(), xs.max(), ys.max()) == (2, 2, 8, 8)
    np.testing.assert_array_equal(
        draw_mask(annotation(shape([[-0.9, -0.9], [3, 0], [3, 3]])), 5, 5),
        draw_mask(annotation(shape([[0, 0], [3, 0], [3, 3]])), 5, 5),
    )


def test_one_or_two_points_draw_a_dot_or_a_line():
    assert draw_mask(annotation(shape([[3, 4]])), 12, 16).sum() == 1
    assert draw_mask(annotation(shape([[3, 4], [9, 4]])), 12, 16).sum() == 7


def test_slanting_edges_are_filled_as_by_the_opencv_of_the_original():
    """OpenCV 4.10 fills a pixel beside this polygon's right edge in two rows; 4.11 does not."""
    canvas_HW = np.zeros((40, 50), np.uint8)
    draw_polygon(canvas_HW, np.array([[44, 27], [7, 37], [7, 19], [38, 19]], np.int32), 1)
    assert [int(np.flatnonzero(canvas_HW[y])[-1]) for y in range(19, 28)] == [
        38,
        39,
        40,
        40,
        41,
        42,
        43,
        43,
        44,
    ]


def test_polygons_far_outside_are_drawn_too():
    canvas_HW = np.zeros((20, 30), np.uint8)
    draw_polygon(
        canvas_HW,
        np.array([[-3000, -3000], [3000, -3000], [3000, 3000], [-3000, 3000]], np.int32),
        1,
    )
    assert canvas_HW.all()


# Reading


def test_samples_come_sorted_by_name_with_their_first_text(tmp_path):
    for name in ("b", "a", "c"):
        write(
            tmp_path / "val", name, annotation(shape(SQUARE), text=[f"the {name}", "other words"])
        )
    data = ReasonSeg(tmp_path)
    assert [(s.id, s.query, s.is_sentence) for s in data] == [(n, f"the {n}", False) for n in "abc"]
    assert data[-1].id == "c"
    assert [s.id for s in data[1:]] == ["b", "c"]


def test_all_texts_are_queries_of_their_own_in_one_cluster(tmp_path):
    write(tmp_path / "val", "a", annotation(shape(SQUARE), text=["one", "two"]))
    write(tmp_path / "val", "bb", annotation(text=["three"]))
    data = ReasonSeg(tmp_path, texts="all")
    assert [(s.id, s.query) for s in data] == [("a#0", "one"), ("a#1", "two"), ("bb#0", "three")]
    assert data[0].image_id == data[1].image_id != data[2].image_id


def test_limit_counts_queries(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / "val", name, annotation(text=["one", "two"]))
    assert [s.id for s in ReasonSeg(tmp_path, texts="all", limit=3)] == ["a#0", "a#1", "b#0"]
    assert len(ReasonSeg(tmp_path, limit=1)) == 1
    assert len(ReasonSeg(tmp_path, limit=99)) == 2


def test_the_same_picture_under_two_names_is_one_cluster(tmp_path):
    write(tmp_path / "val", "a", annotation())
    (tmp_path / "val" / "b.jpg").write_bytes((tmp_path / "val" / "a.jpg").read_bytes())
    (tmp_path / "val" / "b.json").write_text(json.dumps(annotation()))
    first, second = ReasonSeg(tmp_path)
    assert first.image_id == second.image_id


def test_metadata_and_form_become_tags(tmp_path):
    write(tmp_path / "val", "a", annotation(meta={"family": "relation"}) | {"is_sentence": True})
    assert ReasonSeg(tmp_path)[0].tags == {"form": "sentence", "family": "relation"}


def test_images_of_every_usual_suffix_are_found_and_hidden_files_are_not(tmp_path):
    for name, suffix in (("a", ".JPG"), ("b", ".jpeg"), ("c", ".PNG"), (".d", ".jpg")):
        write(tmp_path / "val", name, annotation(), suffix=suffix)
    assert [s.id for s in ReasonSeg(tmp_path)] == ["a", "b", "c"]


def test_pixels_are_rgb(tmp_path):
    Image.new("RGB", (4, 3), (250, 120, 10)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0, 0].tolist() == [250, 120, 10]


def test_images_are_turned_upright_and_masks_follow(tmp_path):
    write(tmp_path / "val", "a", annotation(shape(SQUARE)))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / "val" / "a.jpg", exif=exif)
    sample = ReasonSeg(tmp_path)[0]
    assert sample.image.shape == (20, 10, 3)
    assert sample.target_HW.shape == (20, 10)
    np.testing.assert_array_equal(
        sample.image, cv2.imread(str(tmp_path / "val" / "a.jpg"))[..., ::-1]
    )


def test_a_tag_of_the_metadata_cannot_pass_for_the_form(tmp_path):
    write(tmp_path / "val", "a", annotation(meta={"form": "sentence"}))
    assert ReasonSeg(tmp_path)[0].tags == {"form": "phrase"}


def encoded_image(form, **options):
    pixels = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


def with_thumbnail(jpeg):
    """An application header that holds a whole little JPEG, as cameras write it."""
    thumbnail = io.BytesIO()
    Image.new("RGB", (8, 8)).save(thumbnail, "JPEG")
    return (
        jpeg[:2]
        + b"\xff\xe1"
        + (2 + len(thumbnail.getvalue())).to_bytes(2, "big")
        + thumbnail.getvalue()
        + jpeg[2:]
    )


WHOLE = {
    "baseline": encoded_image("JPEG"),
    "progressive": encoded_image("JPEG", progressive=True),
    "with a thumbnail": with_thumbnail(encoded_image("JPEG")),
    "png": encoded_image("PNG"),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_an_image_that_breaks_off_is_refused_and_padding_is_not(tmp_path, kind):
    path, encoded = tmp_path / "a.jpg", WHOLE[kind]
    path.write_bytes(encoded + bytes(512) + b"\n")
    assert read_image(path).shape == (120, 160, 3)
    for share in (0.5, 0.9, 1):
        path.write_bytes(encoded[: int(len(encoded) * share) - 8] + bytes(512))
        with pytest.raises(DataError, match=r"a\.jpg: is damaged \(it breaks off"):
            read_image(path)


def test_the_end_of_a_large_image_is_found():
    pixels = np.random.default_rng(0).integers(0, 255, (1000, 1000, 3), dtype=np.uint8)
    assert not breaks_off(cv2.imencode(".jpg", pixels)[1].tobytes())


def test_texts_in_cp1252_are_read(tmp_path):
    write(
        tmp_path / "val",
        "a",
        json.dumps(annotation(text=["the café door"]), ensure_ascii=False).encode("cp1252"),
    )
    assert ReasonSeg(tmp_path)[0].query == "the café door"


@pytest.mark.parametrize("encoding", ["cp1252", "gbk", "latin-1"])
def test_an_annotation_that_is_not_utf_8_is_named_with_what_it_was_read_as(tmp_path, encoding):
    text = "红色的杯子" if encoding == "gbk" else "the café door"
    encoded = json.dumps(annotation(shape(SQUARE), text=[text]), ensure_ascii=False)
    write(tmp_path / "val", "a", encoded.encode(encoding))
    write(tmp_path / "val", "b", annotation(shape(SQUARE)))
    samples = ReasonSeg(tmp_path)
    samples.fingerprint()
    (warning,) = samples.warnings
    assert "1 annotations are not UTF-8 and were read as cp1252, such as a.json" in warning
    (note,) = [problem for problem in verify(tmp_path) if problem.path.name == "a.json"]
    assert note.is_note and "was read as cp1252" in str(note)
    assert samples[0].query in str(note).encode().decode() or encoding == "gbk"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_an_annotation_may_begin_with_a_byte_order_mark(tmp_path, encoding):
    encoded = json.dumps(annotation(shape(SQUARE), text=["the café door"]), ensure_ascii=False)
    write(tmp_path / "val", "a", encoded.encode(encoding))
    samples = ReasonSeg(tmp_path)
    samples.fingerprint()
    assert samples[0].query == "the café door" and samples.warnings == ()


def test_making_a_sample_reads_no_pixels(tmp_path):
    write(tmp_path / "val", "a", annotation(shape(SQUARE)))
    (tmp_path / "val" / "a.jpg").write_bytes(b"not an image")
    sample = ReasonSeg(tmp_path)[0]
    with pytest.raises(DataError, match=r"a\.jpg.*cannot be decoded"):
        _ = sample.image
    with pytest.raises(DataError, match=r"a\.jpg"):
        _ = sample.target_HW
    (tmp_path / "val" / "a.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be decoded"):
        _ = sample.image
    (tmp_path / "val" / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"a\.jpg: cannot be read \(No such file"):
        _ = sample.image


def test_samples_can_be_sent_to_another_process(tmp_path):
    write(tmp_path / "val", "a", annotation(shape(SQUARE)))
    sent = pickle.loads(pickle.dumps(ReasonSeg(tmp_path)[0]))
    assert sent.target_HW[5, 5] == 1


# The fingerprint


@pytest.fixture
def pair_of(tmp_path):
    write(tmp_path / "val", "a", annotation(shape(SQUARE), text=["one", "two"]))
    write(tmp_path / "val", "b", annotation(text=["three"]))
    return tmp_path


def test_the_fingerprint_is_the_same_for_the_same_files_wherever_they_lie(
    pair_of, tmp_path_factory
):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(pair_of / "val", elsewhere / "val")
    found = ReasonSeg(pair_of).fingerprint()
    assert len(found) == 16 and int(found, 16) >= 0
    assert found == ReasonSeg(elsewhere).fingerprint()


CHANGES = {
    "the image": lambda folder: write(folder, "b", annotation(text=["three"]), size=(13, 16)),
    "the polygons": lambda folder: write(folder, "b", annotation(shape(INNER), text=["three"])),
    "the words": lambda folder: write(folder, "b", annotation(text=["four"])),
    "the name": lambda folder: [path.rename(path.with_stem("c")) for path in folder.glob("b.*")],
    "one query more": lambda folder: write(folder, "c", annotation()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_fingerprint_changes_with(pair_of, change):
    before = ReasonSeg(pair_of).fingerprint()
    CHANGES[change](pair_of / "val")
    assert ReasonSeg(pair_of).fingerprint() != before


def test_the_fingerprint_is_of_the_queries_that_are_asked(pair_of):
    readers = [
        {},
        {"texts": "all"},
        {"limit": 1},
        {"texts": "all", "limit": 1},
        {"texts": "all", "limit": 2},
    ]
    assert len({ReasonSeg(pair_of, **reader).fingerprint() for reader in readers}) == len(readers)


def test_the_fingerprint_reads_each_file_once(pair_of, monkeypatch):
    data, opened = ReasonSeg(pair_of, texts="all"), []
    real_open = io.open

    def counting(path, *more, **options):
        opened.append(Path(path).name)
        return real_open(path, *more, **options)

    monkeypatch.setattr(io, "open", counting)
    data.fingerprint()
    assert sorted(opened) == ["a.jpg", "a.json", "b.jpg", "b.json"]


def test_the_fingerprint_names_a_file_that_is_broken_or_gone(pair_of):
    data = ReasonSeg(pair_of)
    (pair_of / "val" / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"a\.jpg: cannot be read"):
        data.fingerprint()
    (pair_of / "val" / "a.json").write_text("{")
    with pytest.raises(DataError, match=r"a\.json: is not JSON"):
        data.fingerprint()


# What is wrong, and how it is said

BROKEN = {
    "is not JSON": b"{",
    "is not an object": [],
    "lacks is_sentence": {"text": ["a"], "shapes": []},
    "is_sentence is 1": annotation() | {"is_sentence": 1},
    "text is empty": annotation(text=[]),
    "blank query": annotation(text=["a", "  "]),
    "text is not a list": annotation() | {"text": "a"},
    "meta is not": annotation(meta={"family": 3}),
    "shapes is not a list": annotation() | {"shapes": {}},
    r"shapes\[1\] has no label": annotation(shape(SQUARE), {"points": SQUARE}),
    r"shapes\[0\] has no points": annotation(shape([])),
    r"shapes\[0\] has a point that is not a pair": annotation(shape([[1, 2], [3]])),
    r"has a point that is not finite": annotation(shape([[1, 2], [3, float("nan")]])),
    r"or farther out": annotation(shape([[1, 2], [3, 1e300]])),
    r"farther out than 32-bit": annotation(shape([[1, 2], [3, -1e12]])),
    r"out than 32-bit": annotation(shape([[1, 2], [3, 10**400]])),
    r"shapes\[0\] has shape_type 'circle'; expected 'polygon'": annotation(
        shape(SQUARE) | {"shape_type": "circle"}
    ),
    r"text holds 'a \\ud800', which has half a surrogate": annotation(text=["good", "a \ud800"]),
    r"meta holds '\\udfff'": annotation(meta={"family": "\udfff"}),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_a_broken_annotation_names_file_and_reason(tmp_path, reason):
    write(tmp_path / "val", "good", annotation())
    write(tmp_path / "val", "worse", BROKEN[reason])
    with pytest.raises(DataError, match=rf"worse\.json: .*{reason}"):
        list(ReasonSeg(tmp_path))


def test_a_missing_folder_or_split_is_named_with_those_that_exist(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: there is no such folder"):
        ReasonSeg(tmp_path / "nowhere")
    write(tmp_path / "train", "a", annotation())
    with pytest.raises(DataError, match=r"no split 'val'; it has train: .*--split"):
        ReasonSeg(tmp_path)
    with pytest.raises(DataError, match="give the folder above"):
        ReasonSeg(tmp_path / "train")


def test_an_empty_split_and_an_image_without_annotation_are_refused(tmp_path):
    (tmp_path / "val").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        ReasonSeg(tmp_path)
    write(tmp_path / "val", "a")
    with pytest.raises(DataError, match=r"a\.jpg: has no annotation"):
        ReasonSeg(tmp_path)


def test_an_annotation_without_image_is_refused(tmp_path):
    write(tmp_path / "val", "a", annotation())
    (tmp_path / "val" / ".b.json").write_text("hidden")
    assert len(ReasonSeg(tmp_path)) == 1
    (tmp_path / "val" / "b.json").write_text(json.dumps(annotation()))
    with pytest.raises(DataError, match=r"b\.json: has no image beside it; .*data verify"):
        ReasonSeg(tmp_path)


@pytest.mark.parametrize(
    ("present", "named"),
    [
        ((), ""),
        (("b.webp",), ", but there is b.webp"),
        (("b.tiff", "b.jpg.part"), ", but there is b.jpg.part, b.tiff"),
    ],
)
def test_the_endings_of_images_are_listed_where_one_is_missing(tmp_path, present, named):
    write(tmp_path / "val", "a", annotation())
    (tmp_path / "val" / "b.json").write_text(json.dumps(annotation()))
    for name in present:
        (tmp_path / "val" / name).write_text("some image")
    reason = f"has no image beside it; expected one of b.jpg, b.jpeg, b.png{named}"
    with pytest.raises(DataError) as caught:
        ReasonSeg(tmp_path)
    assert f"b.json: {reason}; `lisabench data verify`" in str(caught.value)
    assert [problem.reason for problem in verify(tmp_path)] == [reason]


def test_a_name_that_is_no_text_gets_an_id_that_can_be_written(tmp_path):
    write(tmp_path / "val", "a", annotation(text=("one", "two")))
    for suffix in (".jpg", ".json"):
        file = tmp_path / "val" / f"a{suffix}"
        file.rename(tmp_path / "val" / os.fsdecode(b"caf\xe9" + suffix.encode()))
    (sample,) = ReasonSeg(tmp_path)
    assert sample.id == "caf\\xe9" and sample.image.shape == (12, 16, 3)
    assert [sample.id for sample in ReasonSeg(tmp_path, texts="all")] == [
        "caf\\xe9#0",
        "caf\\xe9#1",
    ]
    (tmp_path / "val" / os.fsdecode(b"caf\xe9.jpg")).unlink()
    (problem,) = verify(tmp_path, "val")[1:]
    assert "caf\\xe9.json: has no image" in str(problem) and str(problem).encode()


def test_whole_characters_beyond_16_bits_are_read(tmp_path):
    write(tmp_path / "val", "a", annotation(text=["the \U0001f600"]))
    assert b"\\ud83d\\ude00" in (tmp_path / "val" / "a.json").read_bytes()
    assert ReasonSeg(tmp_path)[0].query == "the \U0001f600"


def test_polygons_as_far_out_as_is_allowed_are_drawn():
    far = 2**31 - 1
    assert draw_mask(
        annotation(shape([[-far, -far], [far, -far], [far, far], [-far, far]])), 12, 16
    ).all()


def test_two_images_of_one_name_are_refused(tmp_path):
    write(tmp_path / "val", "a", annotation())
    write(tmp_path / "val", "a", annotation(), suffix=".png")
    with pytest.raises(DataError, match="same name"):
        ReasonSeg(tmp_path)


def test_options_out_of_range_are_refused(tmp_path):
    with pytest.raises(UsageError, match="all, first"):
        ReasonSeg(tmp_path, texts="some")
    with pytest.raises(UsageError, match="limit"):
        ReasonSeg(tmp_path, limit=0)


def test_loading_takes_constant_memory(tmp_path):
    """Never more than a few pictures are in memory."""
    star = [
        [320 + r * np.cos(a), 240 + r * np.sin(a)]
        for r, a in zip([150, 70] * 60, np.arange(120) * 0.0524, strict=True)
    ]
    write(
        tmp_path / "val", "000", annotation(shape(star), shape(SQUARE, "ignore")), size=(480, 640)
    )
    for number in range(1, 150):
        for suffix in (".jpg", ".json"):
            (tmp_path / "val" / f"{number:03d}{suffix}").hardlink_to(
                tmp_path / "val" / f"000{suffix}"
            )
    data = ReasonSeg(tmp_path)
    process = psutil.Process()
    sum(int(s.image[0, 0, 0]) + int(s.target_HW[0, 0]) for s in data[:20])
    before, most = process.memory_info().rss, 0
    for sample in data:
        assert sample.image.shape[:2] == sample.target_HW.shape
        most = max(most, process.memory_info().rss)
    assert most - before < 20 * 2**20  # all the pictures together have 130 MiB


def test_queries_are_read_ahead_as_far_as_they_fit_and_then_not_read_again(tmp_path, monkeypatch):
    for name in ("a", "b", "c"):
        write(tmp_path / "val", name, annotation(shape(SQUARE)))
    read, drawn = [], []
    monkeypatch.setattr(
        samples, "read_image", lambda path: read.append(path.stem) or read_image(path)
    )
    monkeypatch.setattr(samples, "draw_mask", lambda *of: drawn.append(of) or draw_mask(*of))
    data, picture_bytes = ReasonSeg(tmp_path), 12 * 16 * 4
    for _ in range(2):  # a second time changes nothing
        data.read_ahead(2 * picture_bytes + 1)
    read.clear()
    drawn.clear()
    for number, name in enumerate(("a", "b", "c")):
        for sample in (data[number], data[number - 3], *data[number : number + 1]):
            assert (sample.id, sample.image.shape, sample.target_HW.sum()) == (
                name,
                (12, 16, 3),
                49,
            )
    assert (read, len(drawn)) == (["c"] * 3, 3)
