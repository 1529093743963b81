"""Two runs that pass a baton, and what becomes of a pair where one of them cannot, breaks, or is gone."""

import signal
import sys
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from lisabench.benchmarks import baton, children
from lisabench.benchmarks.baton import Baton
from lisabench.benchmarks.pairing import Call, Pairing
from lisabench.harness.errors import RunFailed

RUN = """
import os, signal, sys, time
from types import SimpleNamespace
from lisabench.benchmarks import baton

name, log, counts, dies_in = sys.argv[1], sys.argv[2], sys.argv[3].split(","), int(sys.argv[4])
suite = SimpleNamespace(trainings={}, plan=SimpleNamespace(gpu_memory=None), fits=lambda: [])
mine, blocks = baton.of_environment(suite), 0
for count in map(int, counts):
    with mine.round():
        for _ in range(count):
            with mine.turn():
                begun = time.monotonic_ns()
                if blocks == dies_in:
                    os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(0.02)
                with open(log, "a") as file:
                    file.write(f"{name} {begun} {time.monotonic_ns()}\\n")
                blocks += 1
    time.sleep(0.02)
"""


def blocks(folder: Path, one: str, other: str, dies_in: int = -1) -> tuple[str, list[int]]:
    """Who measured, in order, and the exit codes; blocks a round of each side, and in which of its own one dies."""
    log = folder / "log"
    pair = [("a", one, dies_in), ("b", other, -1)]
    lines = [[sys.executable, "-c", RUN, name, str(log), counts, str(dies)] for name, counts, dies in pair]
    begun = [
        children.Command(line, Path.cwd(), invited.environment(), invited.end)
        for line, invited in zip(lines, baton.invitations(), strict=True)
    ]
    done = children.run(*begun)
    spans = [line.split() for line in log.read_text().splitlines()]
    spans = sorted((int(start), int(end), name) for name, start, end in spans)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    return "".join(name for _, _, name in spans), [one.returncode for one in done]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("4", "4", "abababab"),
        ("2", "5", "ababbbb"),
        ("5", "2", "ababaaa"),
        ("2,2", "2,2", "abababab"),
        ("2,2", "2", "ababaa"),  # the first meets nobody in its second round
        ("1", "1,2", "abbb"),
        ("0", "2", "bb"),
    ],
)
def test_two_processes_never_measure_at_once_and_alternate_strictly(tmp_path, one, other, expected):
    assert blocks(tmp_path, one, other) == (expected, [0, 0])


def test_a_side_that_is_killed_in_its_turn_frees_the_other_at_once(tmp_path):
    assert blocks(tmp_path, "4", "4", dies_in=1) == ("abbbb", [-signal.SIGKILL, 0])


def test_who_waits_sleeps_and_no_wait_is_for_ever(monkeypatch):
    monkeypatch.setattr(baton, "LIMIT_S", 0.3)
    one, _other = baton.invitations()
    before = time.thread_time()
    with pytest.raises(RunFailed, match="said nothing for"), Baton(one).round():
        pass
    assert time.thread_time() - before < 0.05


@pytest.mark.no_clock
def test_alone_nothing_is_waited_for():
    mine = Baton()
    for _ in range(2):
        with mine.round():
            for _ in range(2):
                with mine.turn():
                    assert mine.alone


@pytest.mark.no_clock
def test_who_hears_that_the_other_has_gone_is_alone():
    one, other = baton.invitations()
    mine = Baton(other)
    assert not mine.alone
    threading.Thread(target=one.end.close).start()
    with mine.round(), mine.turn():
        assert mine.alone


CAPPED = SimpleNamespace(trainings={}, plan=SimpleNamespace(gpu_memory="8GB"), fits=list)


@pytest.mark.no_clock
def test_a_suite_that_wants_the_machine_for_itself_takes_no_turns_and_is_free_to_run_alone(monkeypatch):
    one, _other = baton.invitations()
    for name, value in one.environment().items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RunFailed, match="want the machine for themselves"):
        baton.of_environment(CAPPED)
    assert baton.of_environment(CAPPED).alone


class Scripted:
    """A version whose process ends with one code in turns, and with 0 alone."""

    def __init__(self, name: str, home: Path, code: int) -> None:
        self.name, self.label, self.tree, self.code = name, name, home / name, code
        self.file = self.tree / "benchmarks" / "baton.py"
        self.file.parent.mkdir(parents=True)
        self.file.write_text(Path(baton.__file__).read_text())

    def command(self, *arguments: str) -> children.Command:
        code = f"""
import os, pathlib, sys, time
invited = {baton.VARIABLE!r} in os.environ
pathlib.Path(sys.argv[-1]).mkdir()
pathlib.Path(sys.argv[-1], str(invited)).touch()
sys.stderr.write("lisabench: too large\\n")
sys.exit({self.code} if invited else 0)"""
        return children.Command([sys.executable, "-c", code, *map(str, arguments)], Path.cwd())


def versions(folder: Path, base: int = 0, head: int = 0) -> tuple[Scripted, Scripted]:
    return Scripted("base", folder, base), Scripted("head", folder, head)


def carried_out(folder: Path, pairing: Pairing, sides: tuple[Scripted, Scripted], pair: int) -> list[int]:
    one, other = (Call(version, [], folder / f"{pair}-{version.name}") for version in sides)  # pyright: ignore
    return [done.returncode for done in pairing.carry_out((one, other))]


@pytest.mark.parametrize("code", [5, -signal.SIGKILL + 256])
def test_a_pair_of_which_one_breaks_in_turns_is_measured_again_one_after_the_other(tmp_path, capsys, code):
    sides = versions(tmp_path, head=code)
    pairing = Pairing(sides)
    assert [carried_out(tmp_path, pairing, sides, pair) for pair in (1, 2)] == [[0, 0], [0, 0]]
    names = sorted(f"{file.parent.name} {file.name}" for file in tmp_path.glob("?-*/*"))
    in_turns = ["1-base-in-turns True", "1-head-in-turns True"]
    assert names == sorted([*in_turns, *(f"{pair}-{side} False" for pair in (1, 2) for side in ("base", "head"))])
    assert capsys.readouterr().err.count("warning: in turns, a process broke (lisabench: too large)") == 1


@pytest.mark.parametrize("code", [0, 1, 2, 4, 130])
def test_what_is_no_breakdown_is_not_tried_again(tmp_path, capsys, code):
    sides = versions(tmp_path, base=code)
    pairing = Pairing(sides)
    assert carried_out(tmp_path, pairing, sides, 1) == [code, 0]
    assert pairing.in_turns and capsys.readouterr().err == ""


@pytest.mark.parametrize("older", ["none", "another"])
def test_a_version_that_takes_no_such_turns_is_never_started_beside_another(tmp_path, capsys, older):
    sides = versions(tmp_path, base=5, head=5)
    text = sides[0].file.read_text().replace(baton.PROTOCOL, "lisabench.baton/0")
    sides[0].file.write_text(text) if older == "another" else sides[0].file.unlink()
    assert carried_out(tmp_path, Pairing(sides), sides, 1) == [0, 0]
    assert {file.name for file in tmp_path.glob("1-*/*")} == {"False"}
    assert "warning: base cannot take turns block by block" in capsys.readouterr().err


def test_an_interrupt_ends_all_that_were_begun(monkeypatch):
    begun = []
    popen = children.subprocess.Popen
    monkeypatch.setattr(children.subprocess, "Popen", lambda *a, **k: begun.append(popen(*a, **k)) or begun[-1])
    sleeping = children.Command([sys.executable, "-c", "import time; print('x' * 100_000); time.sleep(60)"], Path.cwd())
    threading.Timer(1.0, signal.raise_signal, [signal.SIGINT]).start()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            children.run(sleeping, replace(sleeping))
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(begun) == 2 and all(child.returncode is not None for child in begun)
