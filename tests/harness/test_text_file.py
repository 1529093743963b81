"""Text files as people write them."""

import pytest

from lisabench.harness.errors import DataError
from lisabench.harness.text_file import read_text

pytestmark = pytest.mark.no_clock


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
