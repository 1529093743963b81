"""Files that others made: only regular ones are read and never waited for; encodings of text."""

import os
import socket
from pathlib import Path

import numpy as np
import pytest

from lisabench.harness import input_file
from lisabench.harness.errors import DataError
from lisabench.harness.input_file import opened, read_at_most, read_text, read_whole
from lisabench.harness.json_file import read_object
from lisabench.harness.records.arrays import read_arrays
from lisabench.harness.records.journal import read_lines

pytestmark = pytest.mark.no_clock

SPECIAL = (
    "it is a pipe, a socket or a device; expected a regular file, so write its content into one"
)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to_an_endless_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def listening_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)


@pytest.fixture(params=[pipe, link_to_an_endless_device, listening_socket])
def special(request, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    request.param(tmp_path / "a")
    return tmp_path / "a"


@pytest.mark.parametrize("read", [opened, read_whole, read_text])
def test_what_is_no_regular_file_is_refused(special, read):
    with pytest.raises(OSError) as caught:
        read(special)
    assert caught.value.strerror == SPECIAL


@pytest.mark.parametrize("read", [read_object, read_lines, read_arrays])
def test_a_record_that_is_no_regular_file_is_one_line(special, read):
    with pytest.raises(DataError, match=SPECIAL) as caught:
        read(special)
    assert str(special) in str(caught.value)


def test_a_file_whose_size_is_only_claimed_is_not_read_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(input_file, "LARGEST", 1 << 20)
    path = tmp_path / "run.json"
    path.write_bytes(b"{}")
    os.truncate(path, 1 << 40)  # takes no space on the disk
    with pytest.raises(DataError, match=r"run\.json cannot be read: it has more than 1 MiB"):
        read_object(path)


def test_a_regular_file_and_a_link_to_one_are_read(tmp_path):
    (tmp_path / "a").write_bytes(b"text")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert read_whole(tmp_path / "b") == b"text"
    np.savez(tmp_path / "c.npz", x=np.arange(3))
    assert read_arrays(tmp_path / "c.npz")["x"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_with_a_byte_order_mark_is_read_as_one_without(tmp_path, encoding):
    path = tmp_path / "a.yaml"
    path.write_bytes("title: café 红\r\nb: 1\n".encode(encoding))
    assert read_text(path) == "title: café 红\nb: 1\n"


@pytest.mark.parametrize("encoding", ["latin-1", "gbk", "cp1252"])
def test_a_file_in_another_encoding_is_named_with_its_line_and_what_it_was_read_as(
    tmp_path, encoding
):
    path = tmp_path / "a.yaml"
    text = "红" if encoding == "gbk" else "é"
    path.write_bytes(f"a: 1\nb: {text}\n".encode(encoding))
    with pytest.raises(DataError, match=r"a\.yaml: was read as UTF-8, and line 2 is not .*save it"):
        read_text(path)


def test_half_a_character_in_utf_16_is_named(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfea")
    with pytest.raises(DataError, match="was read as UTF-16"):
        read_text(tmp_path / "a.yaml")


def test_a_file_of_data_has_a_limit_of_its_own(tmp_path):
    path = tmp_path / "instances.json"
    path.write_bytes(bytes(3 << 20))
    assert read_at_most(path, 3 << 20, "a file") == bytes(3 << 20)
    with pytest.raises(DataError) as caught:
        read_at_most(path, (3 << 20) - 1, "a COCO annotation file")
    expected = "instances.json: has 3 MiB; expected a COCO annotation file of at most 2 MiB"
    assert str(caught.value) == f"{tmp_path}/{expected}"
    with pytest.raises(DataError, match=r"none: cannot be read \(No such file"):
        read_at_most(tmp_path / "none", 1, "a file")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="it is a pipe"):
        read_at_most(tmp_path / "pipe", 1, "a file")
