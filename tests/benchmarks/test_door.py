"""The door of the command line: whatever a command raises, and wherever its output goes."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from unittest import mock

import pytest
from command import lisabench

from lisabench import cli
from lisabench.benchmarks import catalogue, doctor, door
from lisabench.benchmarks.run import journal
from lisabench.harness.errors import NothingToCompare
from lisabench.harness.text import LONGEST_REASON

pytestmark = pytest.mark.no_clock

BROKEN_PIPE = BrokenPipeError(errno.EPIPE, "Broken pipe")
FULL = OSError(errno.ENOSPC, "No space left on device")


class SilentError(Exception):
    def __str__(self):
        raise ValueError("it has no text")


FOREIGN = {
    "a line break and an escape code": KeyError("one\ntwo\x1b[31m\u202ethree"),
    "a long message": ValueError("x" * 5000),
    "no message": SilentError(),
    "the end of an input": EOFError(),
    "a closed pipe inside": BROKEN_PIPE,
    "a full disk": FULL,
    "a library that exits": SystemExit(1),
    "too deep": RecursionError("maximum recursion depth exceeded"),
    "no memory": MemoryError(),
}


def raises(error):
    def catalogue(_):
        raise error

    return catalogue


@pytest.mark.parametrize("what", FOREIGN)
def test_an_exception_that_is_not_ours_is_one_line_and_exit_code_5(monkeypatch, what):
    monkeypatch.setattr(catalogue, "catalogue", raises(FOREIGN[what]))
    done = lisabench("list")
    assert done.returncode == 5
    (line,) = done.stderr.splitlines()
    assert line.startswith("lisabench: ") and line.endswith("; --traceback shows where")
    assert type(FOREIGN[what]).__name__ in line
    assert line.isprintable() and len(line) <= LONGEST_REASON


def test_its_traceback_is_shown_when_asked_for_and_the_exit_code_is_the_same(monkeypatch):
    monkeypatch.setattr(catalogue, "catalogue", raises(FULL))
    done = lisabench("--traceback", "list")
    assert done.returncode == 5
    assert "Traceback" in done.stderr and "in catalogue" in done.stderr


def test_an_error_of_ours_is_one_line_without_control_characters(monkeypatch):
    error = NothingToCompare("the case a\x1b[2J\nb has no pair")
    monkeypatch.setattr(catalogue, "catalogue", raises(error))
    done = lisabench("list")
    assert (done.returncode, done.stderr) == (4, "lisabench: the case a\\x1b[2J b has no pair\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--{}"],
        ["{}"],
        ["run", "tiny", "{}"],
        ["run", "--limit", "{}"],
        ["run", "--stop-after", "{}"],
        ["data", "make", "d", "--{}"],
        ["train", "--vision", "sam", "{}"],
    ],
)
def test_arguments_that_are_not_understood_are_one_line_in_which_nothing_acts(arguments):
    hostile = "x\n::error title=a::##[error]b\x1b[2J\u202ec"
    done = lisabench(*[argument.format(hostile) for argument in arguments])
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("lisabench: ") and line.isprintable() and "##[" not in line
    command_path = "lisabench " if len(arguments) == 1 else f"lisabench {arguments[0]} "
    assert f"see `{command_path}" in line and line.endswith(" --help`")


@pytest.mark.parametrize("arguments", [[], ["data"]])
def test_without_arguments_a_group_of_commands_shows_its_help(arguments):
    done = lisabench(*arguments)
    assert (done.returncode, done.stderr) == (2, "")
    assert "Usage: lisabench" in done.stdout and "Commands" in done.stdout


def test_an_interrupt_is_one_line_and_exit_code_130(monkeypatch):
    monkeypatch.setattr(catalogue, "catalogue", raises(KeyboardInterrupt()))
    done = lisabench("list")
    assert done.returncode == 130
    assert done.stderr == "lisabench: interrupted; what was measured is kept\n"


class Destructor:
    """Gets a signal while it is destroyed, where Python drops what the signal's handler raises."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        signal.raise_signal(self.number)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_that_python_drops_ends_a_command_all_the_same(monkeypatch, name):
    number = signal.Signals[name]
    went_on = []

    def drop_and_go_on(_):
        Destructor(number)
        went_on.append(True)
        time.sleep(300)  # only guards against hanging: the signal comes again

    monkeypatch.setattr(catalogue, "catalogue", drop_and_go_on)
    done = lisabench("list")
    assert went_on
    assert done.returncode == 128 + number
    (line,) = done.stderr.splitlines()
    assert line.endswith("; what was measured is kept")


def test_other_exceptions_that_python_drops_are_printed_as_before(monkeypatch):
    printed = []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)

    class Broken:
        def __del__(self):
            raise ValueError("of a destructor")

    monkeypatch.setattr(catalogue, "catalogue", lambda _: Broken() and {})
    assert lisabench("list").returncode == 0
    assert [str(dropped.exc_value) for dropped in printed] == ["of a destructor"]


ENDINGS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "ended by SIGTERM",
    signal.SIGHUP: "ended by SIGHUP",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_signal_while_the_command_line_is_parsed_ends_it_as_later_on(monkeypatch, ending):
    parse = mock.Mock(side_effect=lambda *_, **__: os.kill(os.getpid(), ending))
    monkeypatch.setattr(cli.Commands, "make_context", parse)
    done = lisabench("list")
    assert done.returncode == 128 + ending
    assert done.stderr == f"lisabench: {ENDINGS[ending]}; what was measured is kept\n"


INTERRUPTED_WHILE_IMPORTING = """
import os, signal
os.kill(os.getpid(), signal.SIGINT)
"""
AS_A_MODULE = ("-m", "lisabench")
AS_INSTALLED = ("-c", "from lisabench.__main__ import main; main()")


@pytest.mark.parametrize("words", [AS_A_MODULE, AS_INSTALLED], ids=["module", "installed"])
def test_an_interrupt_while_modules_are_imported_prints_nothing(tmp_path, words):
    (tmp_path / "typer.py").write_text(INTERRUPTED_WHILE_IMPORTING)
    command = [sys.executable, *words, "list"]
    variables = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("becomes", [RuntimeError("in a callback"), SystemExit(3)])
def test_a_signal_that_a_library_makes_an_error_of_is_a_signal(monkeypatch, ending, becomes):
    def library(_):
        try:
            os.kill(os.getpid(), ending)
        except KeyboardInterrupt as error:
            raise becomes from error

    monkeypatch.setattr(catalogue, "catalogue", library)
    done = lisabench("list")
    assert done.returncode == 128 + ending
    assert done.stderr == f"lisabench: {ENDINGS[ending]}; what was measured is kept\n"


def test_a_disk_that_fills_up_in_a_run_is_one_line_and_keeps_what_was_measured(
    monkeypatch, data_root, tmp_path
):
    append = journal.append

    def append_or_fail(path, rows):
        if path.name == "samples.jsonl":
            raise FULL
        append(path, rows)

    monkeypatch.setattr(journal, "append", append_or_fail)
    suite = tmp_path / "s.yaml"
    case = {"adapter": "fake", "clock": "virtual"}
    suite.write_text(json.dumps({"title": "t", "reference": "a", "cases": {"a": case}}))
    done = lisabench("run", suite, "--data", data_root, "--out", tmp_path / "run")
    assert done.returncode == 5
    assert done.stderr.splitlines()[-1].startswith("lisabench: OSError: [Errno 28] No space left")
    assert (tmp_path / "run" / "memory.jsonl").stat().st_size > 0
    monkeypatch.setattr(journal, "append", append)
    assert lisabench("run", "--resume", "--out", tmp_path / "run").returncode == 0


# Where the output of a process of its own goes


def command(redirection, **variables):
    line = f"{sys.executable} -m lisabench.cli list suites {redirection}"
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("redirection", "code", "message"),
    [
        ("| true", 0, ""),
        ("| head -1", 0, ""),
        (">&-", 0, ""),
        (">&- 2>&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        ("2> /dev/full", 0, ""),
        ("> /dev/full", 5, "lisabench: standard output cannot be written to: No space left on d"),
        ("--nonsense 2> /dev/full", 2, ""),
    ],
)
def test_only_an_output_that_cannot_be_written_is_an_error(redirection, code, message):
    done = command(redirection)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(message) and done.stderr.count("\n") == bool(message)


@pytest.mark.parametrize(
    "variables",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"MPLBACKEND": "module://matplotlib_inline.backend_inline"},
        {"HOME": "/nonexistent"},
    ],
)
def test_a_command_ends_alike_in_any_environment(variables):
    usual, here = command(""), command("", **variables)
    assert (here.returncode, here.stderr) == (0, "")
    assert here.stdout == usual.stdout.encode("ascii", "replace").decode()


# A user of whom the system knows neither a name nor a home folder


def test_a_user_without_a_home_gets_one_that_is_the_users_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(door.Path, "home", raises_runtime_error)
    for _ in range(2):
        door._settle_user()
        (home,) = tmp_path.iterdir()
        assert os.environ["HOME"] == str(home)
        assert home.stat().st_mode & 0o777 == 0o700


def test_a_home_that_somebody_else_has_prepared_is_not_taken(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(door.Path, "home", raises_runtime_error)
    (tmp_path / "prepared").mkdir()
    link = tmp_path / f"lisabench-home-{os.getuid()}"
    link.symlink_to(tmp_path / "prepared")
    door._settle_user()
    assert os.environ["HOME"] not in (str(link), str(tmp_path / "prepared"))


def test_a_user_without_a_name_gets_one(monkeypatch):
    monkeypatch.setattr(door.getpass, "getuser", raises_key_error)
    door._settle_user()
    assert os.environ["LOGNAME"] == str(os.getuid())


def raises_runtime_error():
    raise RuntimeError("Could not determine home directory.")


def raises_key_error():
    raise KeyError("getpwuid(): uid not found: 12345")


@pytest.fixture(autouse=True)
def _environment_as_before():
    with mock.patch.dict(os.environ):
        yield


@pytest.mark.parametrize(
    ("umask", "status"), [(0o022, "ok"), (0o077, "ok"), (0o777, "problem"), (0o200, "problem")]
)
def test_doctor_finds_a_umask_that_takes_the_users_own_rights(umask, status):
    before = os.umask(umask)
    try:
        assert doctor._check_umask().status == status
        assert os.umask(umask) == umask
    finally:
        os.umask(before)


def test_doctor_finds_a_folder_for_temporary_files_that_is_too_long(monkeypatch, tmp_path):
    assert doctor._check_temporary().status == "ok"
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    assert doctor._check_temporary().status == "problem"


def test_doctor_finds_a_limit_of_open_files_that_is_too_low(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (16, 32))
    check = doctor._check_open_files()
    assert check.status == "problem" and "a process may have 32 files open here" in check.detail


def test_doctor_finds_a_home_that_cannot_be_written_to(monkeypatch):
    assert doctor._check_home().status == "ok"
    monkeypatch.setenv("HOME", "/proc/none")
    assert doctor._check_home().status == "note"
