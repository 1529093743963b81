"""A file or a folder that is written whole or not at all."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from lisabench.harness.errors import UsageError
from lisabench.harness.records.whole_file import temporary_folder, whole_file, whole_folder

pytestmark = pytest.mark.no_clock


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "report.md"
    path.write_text("old")
    with whole_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "report.md"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), whole_file(path) as temporary:
        temporary.write_text("half")
        _ = 1 / 0
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_file_have_temporary_files_of_their_own(tmp_path):
    path = tmp_path / "samples.jsonl"
    with whole_file(path) as first, whole_file(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # its block ends last
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_of_that_name_is_replaced_and_not_followed(tmp_path):
    other, path = tmp_path / "other", tmp_path / "report.md"
    other.write_text("somebody's")
    path.symlink_to(other)
    with whole_file(path) as temporary:
        temporary.write_text("new")
    assert (other.read_text(), path.read_text()) == ("somebody's", "new")
    assert not path.is_symlink()


def a_pipe(path):
    os.mkfifo(path)


def a_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)


def a_link_to_a_device(path):
    path.symlink_to("/dev/full")


@pytest.mark.parametrize("make", [a_pipe, a_socket, a_link_to_a_device])
def test_what_other_programs_use_is_not_replaced_by_a_file(tmp_path, monkeypatch, make):
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    path = tmp_path / "baseline.json"
    make(path)
    before = path.lstat().st_mode
    with pytest.raises(OSError) as caught, whole_file(path) as temporary:
        temporary.write_text("new")
    assert "a pipe, a socket or a device" in str(caught.value.strerror)
    assert path.lstat().st_mode == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_there_only_when_it_is_whole(tmp_path):
    folder = tmp_path / "new" / "weights"
    with whole_folder(folder) as temporary:
        (temporary / "config.json").write_text("{}")
        assert not folder.exists()
    assert (folder / "config.json").read_text() == "{}"
    assert list(folder.parent.iterdir()) == [folder]


def test_an_empty_folder_is_filled_and_one_with_files_is_not(tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    with whole_folder(folder) as temporary:
        (temporary / "config.json").write_text("old")
    with pytest.raises(OSError), whole_folder(folder) as temporary:
        (temporary / "config.json").write_text("new")
    assert (folder / "config.json").read_text() == "old"
    assert list(tmp_path.iterdir()) == [folder]


def test_an_error_leaves_no_folder_and_nothing_beside_it(tmp_path):
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "weights"):
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_written_by_one_process_at_a_time(tmp_path):
    folder = tmp_path / "weights"
    with whole_folder(folder) as temporary:
        (temporary / "shard-1").write_text("the first's")
        with pytest.raises(UsageError, match="another lisabench is writing"), whole_folder(folder):
            pytest.fail("two write at once")
        with whole_folder(tmp_path / "other") as other:
            (other / "shard-1").write_text("the other's")
    assert (folder / "shard-1").read_text() == "the first's"
    assert set(tmp_path.iterdir()) == {folder, tmp_path / "other"}


def test_one_that_another_process_has_just_finished_is_refused_before_anything_is_written(tmp_path):
    folder = tmp_path / "weights"
    with whole_folder(folder) as temporary:
        (temporary / "config.json").write_text("{}")
    with pytest.raises(OSError, match="not empty"), whole_folder(folder):
        pytest.fail("it is written for nothing")
    assert list(tmp_path.iterdir()) == [folder]


def test_a_killed_process_keeps_nobody_from_writing(tmp_path):
    killed = """
import os, pathlib, signal, sys
from lisabench.harness.records.whole_file import whole_folder
with whole_folder(pathlib.Path(sys.argv[1])) as temporary:
    (temporary / "shard-1").write_text("left over")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    folder = tmp_path / "weights"
    ended = subprocess.run([sys.executable, "-c", killed, str(folder)])
    assert ended.returncode == -signal.SIGKILL
    assert (temporary_folder(folder) / "shard-1").exists()
    with whole_folder(folder) as temporary:
        (temporary / "config.json").write_text("{}")
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    assert list(tmp_path.iterdir()) == [folder]


def test_what_a_killed_process_left_of_a_folder_is_removed(tmp_path):
    folder = tmp_path / "weights"
    temporary_folder(folder).mkdir()
    (temporary_folder(folder) / "shard-1").write_text("left over")
    with whole_folder(folder) as temporary:
        (temporary / "config.json").write_text("{}")
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    assert list(tmp_path.iterdir()) == [folder]
