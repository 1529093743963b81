"""A file in JSON is an object, or one line says what lies in its place."""

import pytest

from lisabench.harness.errors import DataError
from lisabench.harness.json_file import parse_object, read_object, stand_in

pytestmark = pytest.mark.no_clock

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
PAGE = b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html><title>Sign in</title></html>"


def test_an_object_is_read_with_and_without_a_byte_order_mark(tmp_path):
    for content in (b'{"a": 1.5}', b'\xef\xbb\xbf{"a": 1.5}'):
        (tmp_path / "x.json").write_bytes(content)
        assert read_object(tmp_path / "x.json") == {"a": 1.5}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is not JSON \\(it is empty\\)"),
        (b" \n", "it is empty"),
        (b'{\n"a": \n}', "is not JSON \\(line 3: "),
        (b"{'a': 1}", "is not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": "\xff"}', "byte 8 is not UTF-8"),
        (b'{"a": NaN}', "NaN is not a finite number"),
        (b'{"a": [1, -Infinity]}', "-Infinity is not a finite number"),
        (b'{"a": 1e999}', "1e999 is not a finite number"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b'{"a": ["\\ud800"]}', "is not JSON .*half a surrogate pair"),
        (b'{"\\uDFFF": 1}', "half a surrogate pair"),
        (b'{"a": "\xed\xa0\x80"}', "half a surrogate pair"),
        ('{"a": "\\ud800"}'.encode("utf-16"), "half a surrogate pair"),
        (b"[1]", "is not a JSON object"),
        (b"7", "is not a JSON object"),
        (LFS, "is a pointer of Git LFS .*git lfs pull"),
        (PAGE, r"is a web page \(HTML\)"),
    ],
)
def test_anything_else_is_one_line_that_names_the_file(tmp_path, content, expected):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DataError, match=expected) as error:
        read_object(tmp_path / "x.json")
    assert str(tmp_path / "x.json") in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_whole_characters_are_read_however_they_are_spelled(tmp_path):
    (tmp_path / "x.json").write_bytes(b'{"a": "\\ud83d\\ude00 \xc3\xa9 \\\\ud800"}')
    assert read_object(tmp_path / "x.json") == {"a": "\U0001f600 \xe9 \\ud800"}


def test_a_file_that_is_missing_or_a_folder_is_named(tmp_path):
    with pytest.raises(DataError, match=r"there is no .*x\.json"):
        read_object(tmp_path / "x.json")
    with pytest.raises(DataError, match="cannot be read"):
        read_object(tmp_path)
    assert stand_in(tmp_path) is None


def test_a_line_is_named_by_its_number(tmp_path):
    with pytest.raises(DataError, match=r"j\.jsonl, line 7: not JSON"):
        parse_object("{", tmp_path / "j.jsonl", 7)
    with pytest.raises(DataError, match=r"j\.jsonl, line 7: not a JSON object"):
        parse_object("[]", tmp_path / "j.jsonl", 7)
