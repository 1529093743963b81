"""Image files of every kind: what is read, what is refused, and that every message names the file.

The independent reader is Pillow.
"""

import io
import os
import socket
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from lisabench.datasets.annotation import read_annotation
from lisabench.datasets.image import (
    DEFAULT_MEGAPIXELS,
    LIMIT_VARIABLE,
    digest,
    printable,
    read_bytes,
    read_image,
)
from lisabench.harness.errors import DataError, LisabenchError, UsageError

pytestmark = pytest.mark.no_clock

SIZE = (60, 40)  # width and height


def four_colours() -> Image.Image:
    """Return a picture whose corners differ, so that turning it shows."""
    pixels = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    pixels[:20, :30], pixels[:20, 30:] = (200, 30, 10), (20, 40, 220)
    pixels[20:, :30], pixels[20:, 30:] = (10, 180, 40), (240, 240, 200)
    return Image.fromarray(pixels)


def with_alpha(mode: str) -> Image.Image:
    """Return the picture, transparent at its left."""
    picture = four_colours().convert(mode)
    picture.putalpha(Image.linear_gradient("L").rotate(90).resize(SIZE))
    return picture


def saved(path: Path, picture: Image.Image, **options: object) -> Path:
    picture.save(path, **options)
    return path


def upright(path: Path) -> np.ndarray:
    """Return the picture as Pillow reads it."""
    with Image.open(path) as picture:
        return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_an_image_is_turned_upright_by_its_exif_tag(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / f"a{suffix}", four_colours(), exif=exif, quality=95, subsampling=0)
    found = read_image(path)
    assert found.shape == ((60, 40, 3) if orientation > 4 else (40, 60, 3))
    np.testing.assert_allclose(found.astype(int), upright(path), atol=1)


@pytest.mark.parametrize(
    ("suffix", "picture", "options"),
    [
        (".png", four_colours().convert("P", palette=Image.Palette.ADAPTIVE), {}),
        (".png", four_colours().convert("P", palette=Image.Palette.ADAPTIVE), {"transparency": 0}),
        (".png", four_colours().convert("L"), {}),
        (".png", four_colours().convert("1"), {}),
        (".jpg", four_colours().convert("L"), {}),
        (".png", with_alpha("RGB"), {}),
        (".png", with_alpha("L"), {}),
        (".jpg", four_colours().convert("CMYK"), {"quality": 95, "subsampling": 0}),
    ],
    ids=["palette", "palette-transparent", "grey", "bits", "grey-jpeg", "RGBA", "LA", "CMYK"],
)
def test_every_kind_of_pixel_becomes_rgb_without_alpha(tmp_path, suffix, picture, options):
    path = saved(tmp_path / f"a{suffix}", picture, **options)
    found = read_image(path)
    assert found.dtype == np.uint8 and found.shape == (40, 60, 3)
    np.testing.assert_allclose(found.astype(int), upright(path), atol=1)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_of_16_bits_the_upper_8_are_taken(tmp_path, channels):
    values = np.random.default_rng(0).integers(0, 2**16, (40, 60, channels), np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), values)
    found = read_image(tmp_path / "a.png")
    upper = np.broadcast_to(values[..., :3] >> 8, (40, 60, 3))
    np.testing.assert_array_equal(found, upper[..., ::-1])


# What is no image, or too large


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def listening_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)


@pytest.mark.parametrize("make", [pipe, link_to_device, listening_socket])
@pytest.mark.parametrize("read", [read_image, read_bytes, digest])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path, monkeypatch, make, read):
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    make(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg: cannot be read \(it is a pipe, a socket"):
        read(tmp_path / "a.jpg")


def bomb(path: Path, width: int, height: int) -> Path:
    """Write a PNG of a few bytes whose header states these sizes."""
    encoded = io.BytesIO()
    Image.new("L", (1, 1)).save(encoded, "PNG")
    content = bytearray(encoded.getvalue())
    content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")  # of the header
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("width", "height"), [(50_000, 50_000), (2_000_000, 200), (250_000_001, 1)]
)
def test_a_huge_image_is_refused_by_its_header_without_a_warning(tmp_path, width, height):
    path = bomb(tmp_path / "bomb.png", width, height)
    with warnings.catch_warnings(action="error"), pytest.raises(DataError) as caught:
        read_image(path)
    assert str(caught.value) == (
        f"{path}: has {width} x {height} pixels, more than {DEFAULT_MEGAPIXELS} megapixels; "
        f"make it smaller, or set {LIMIT_VARIABLE}"
    )


def test_the_limit_is_a_setting_and_pillows_own_limit_stays_as_it_was(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", Image.new("L", (2000, 1500)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)  # Pillow raises from twice as many on
    with warnings.catch_warnings(action="error"):
        assert read_image(path).shape == (1500, 2000, 3)
    assert Image.MAX_IMAGE_PIXELS == 1_000_000
    monkeypatch.setenv(LIMIT_VARIABLE, "2.9")
    with pytest.raises(DataError, match=r"a\.png: has 2000 x 1500 pixels, more than 2\.9 megapix"):
        read_image(path)


@pytest.mark.parametrize("text", ["many", "-1", "0", "nan"])
def test_a_limit_that_is_no_number_is_refused(tmp_path, monkeypatch, text):
    monkeypatch.setenv(LIMIT_VARIABLE, text)
    with pytest.raises(UsageError, match=f"{LIMIT_VARIABLE} is '{text}'; expected a number above"):
        read_image(saved(tmp_path / "a.png", four_colours()))


@pytest.mark.parametrize(
    "content",
    [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40 + b"IEND", b"GIF89a", b"BM" * 99],
)
def test_what_cannot_be_decoded_is_named(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(LisabenchError, match=r"a\.png: cannot be decoded as an image"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n",
            "a pointer of Git LFS",
        ),
        (b"<!DOCTYPE html><html><body>log in</body></html>", "a web page"),
        (b"\n<html>", "a web page"),
    ],
)
@pytest.mark.parametrize(("name", "read"), [("a.jpg", read_image), ("a.json", read_annotation)])
def test_what_lies_in_the_place_of_a_file_is_said(tmp_path, content, what, name, read):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: is {what}"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "shown"),
    [(b"caf\xe9", "caf\\xe9"), ("café".encode(), "café"), (b"\xff\xfe", "\\xff\\xfe")],
)
def test_a_name_that_is_no_text_can_be_written(name, shown):
    assert printable(os.fsdecode(name)) == shown
    assert printable(Path(os.fsdecode(name))).encode()
