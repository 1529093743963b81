"""Two runs in lockstep, and what becomes of a pair where one of them cannot, breaks, or is gone."""

import signal
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from raw_runs import raw_run
from run_factory import edit_lines, edit_run, write_run
from waiting import HANGS_AFTER_S, is_alive, until

from lisabench.benchmarks import subprocesses
from lisabench.benchmarks.gate.pairs import Call, Pairing
from lisabench.benchmarks.run import case_worker, lockstep, worker
from lisabench.benchmarks.run.case_worker import CaseWorker
from lisabench.benchmarks.run.lockstep import Lockstep
from lisabench.benchmarks.run.worker_messages import WorkerSettings
from lisabench.harness.errors import RunFailed

pytestmark = pytest.mark.no_clock

SLEEPS_S = 2 * HANGS_AFTER_S  # no test waits for its end
RUN = """
import os, signal, sys, time
from types import SimpleNamespace
from lisabench.benchmarks.run import lockstep

name, log, counts, dies_in = sys.argv[1], sys.argv[2], sys.argv[3].split(","), int(sys.argv[4])
suite = SimpleNamespace(trainings={}, plan=SimpleNamespace(gpu_memory=None), fits=[])
mine, blocks = lockstep.lockstep_of_environment(suite), 0
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
    """Return who measured, in order, and the exit codes.

    Each side measures so many blocks a round; one may die in one of its own.
    """
    log = folder / "log"
    pair = [("a", one, dies_in), ("b", other, -1)]
    lines = [
        [sys.executable, "-c", RUN, name, str(log), counts, str(dies)]
        for name, counts, dies in pair
    ]
    begun = [
        subprocesses.Command(line, Path.cwd(), invited.environment(), invited.inherited)
        for line, invited in zip(lines, lockstep.invitations(), strict=True)
    ]
    done = subprocesses.run(*begun)
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


def test_who_waits_sleeps_in_a_single_read_and_no_wait_is_for_ever(monkeypatch):
    monkeypatch.setattr(lockstep, "LIMIT_S", 0.3)
    read, reads = Lockstep._receive, []
    monkeypatch.setattr(
        Lockstep,
        "_receive",
        lambda self, peer: reads.append(peer.gettimeout()) or read(self, peer),
    )
    one, _other = lockstep.invitations()
    with pytest.raises(RunFailed, match="sent nothing for"), Lockstep(one).round():
        pass
    assert reads == [0.3]


def test_alone_nothing_is_waited_for():
    mine = Lockstep()
    for _ in range(2):
        with mine.round():
            for _ in range(2):
                with mine.turn():
                    assert mine.alone


def test_a_run_is_alone_once_the_other_has_gone():
    one, other = lockstep.invitations()
    mine = Lockstep(other)
    assert not mine.alone
    threading.Thread(target=one.end.close).start()
    with mine.round(), mine.turn():
        assert mine.alone


CAPPED = SimpleNamespace(trainings={}, plan=SimpleNamespace(gpu_memory="8GB"), fits=[])


def test_a_suite_that_needs_the_machine_for_itself_takes_no_turns_and_is_free_to_run_alone(
    monkeypatch,
):
    one, _other = lockstep.invitations()
    for name, value in one.environment().items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RunFailed, match="need the machine for themselves"):
        lockstep.lockstep_of_environment(CAPPED)
    assert lockstep.lockstep_of_environment(CAPPED).alone


OK, OOM, BROKEN = (
    ("ok", None),
    ("oom", "OutOfMemoryError: too large"),
    ("error", "RuntimeError: planted"),
)
TIMEOUT = ("timeout", "no answer in 600 s; the process was killed")
KILLED = ("error", "the process was ended by SIGKILL; the system may have run out of memory")
PROCESS = """
import os, pathlib, shutil, sys, time
folder, invited = pathlib.Path(sys.argv[-1]), {variable!r} in os.environ
if {sleeps} and invited:
    folder.mkdir()
    time.sleep({sleeps})
if {code} in (0, 1, 5) and not {said!r}:
    shutil.copytree({invited_records!r} if invited else {records!r}, folder, dirs_exist_ok=True)
folder.mkdir(exist_ok=True)
(folder / str(invited)).touch()
sys.stderr.write({said!r} if invited else "")
sys.exit({code} if invited else 0)
"""


def records_of(
    folder: Path, outcome: tuple[str, str | None], memory_error: str | None = None
) -> str:
    """A run of one query that ended so; returns its folder."""
    write_run(folder, cases=1, queries=1, processes=1, controls=False, gallery=0)
    status, reason = outcome
    edit_lines(folder / "samples.jsonl", lambda line: line | {"status": status, "reason": reason})
    (case,) = raw_run(folder).run["cases"]
    edit_run(folder, cases=[case | {"memory_error": memory_error}])
    return str(folder)


class Scripted:
    """A version whose process ends in lockstep with a code, a status of its only query, and a word.

    Alone, it ends well. With the variable of pairs that share the machine, it ends well in lockstep
    too, where there is no other pair.
    """

    def __init__(
        self,
        name: str,
        home: Path,
        code: int = 0,
        outcome=OK,
        said: str = "",
        sleeps: int = 0,
        variable: str = lockstep.VARIABLE,
        memory_error: str | None = None,
    ) -> None:
        self.name, self.label = name, name
        self.capabilities = {lockstep.PROTOCOL}
        self.script = PROCESS.format(
            variable=variable,
            code=code,
            said=said,
            sleeps=sleeps,
            records=records_of(home / "records" / name / "alone", OK),
            invited_records=records_of(home / "records" / name / "invited", outcome, memory_error),
        )

    def command(self, *arguments: str) -> subprocesses.Command:
        return subprocesses.Command(
            [sys.executable, "-c", self.script, *map(str, arguments)], Path.cwd()
        )


def carried_out(
    folder: Path, pairing: Pairing, sides: list[Scripted], pair: int = 1
) -> list[tuple[str, int]]:
    one, other = (Call(version, [], folder / f"{pair}-{version.name}") for version in sides)
    return [
        (call.version.name, done.returncode) for call, done in pairing.carry_out([(one, other)])
    ]


def a_pair(folder: Path, base: dict, head: dict) -> list[Scripted]:
    return [Scripted("base", folder, **base), Scripted("head", folder, **head)]


OUT_OF_MEMORY = "OutOfMemoryError: CUDA out of memory"
BOTH = ("base", "head")
NO_ROOM = {
    "out of memory": ({"code": 5, "outcome": OOM}, "side by side, head ran out of memory"),
    "killed": ({"code": 5, "outcome": KILLED}, "side by side, head ran out of memory"),
    "killed in the memory pass": (
        {"code": 0, "memory_error": KILLED[1]},
        "side by side, head ran out of memory",
    ),
    "out of memory before any query": (
        {"code": 5, "said": f"lisabench: measure roofline: {OUT_OF_MEMORY}"},
        "side by side, head ran out of memory",
    ),
    "apart": ({"code": 5, "said": f"lisabench: {lockstep.NEEDS_MACHINE}"}, lockstep.NEEDS_MACHINE),
}

TOO_SLOW = {
    "too slow": ({"code": 5, "outcome": TIMEOUT}, "side by side, head reached its time limit")
}


@pytest.mark.parametrize("what", NO_ROOM)
def test_a_pair_that_cannot_stand_side_by_side_is_measured_again_one_after_the_other(
    tmp_path, capsys, what
):
    head, why = NO_ROOM[what]
    sides = a_pair(tmp_path, {}, head)
    pairing = Pairing(sides)
    assert [carried_out(tmp_path, pairing, sides, pair) for pair in (1, 2)] == [
        [("base", 0), ("head", 0)]
    ] * 2
    names = sorted(f"{file.parent.name} {file.name}" for file in tmp_path.glob("?-*/*e"))
    in_lockstep = ["1-base-in-lockstep True", "1-head-in-lockstep True"]
    assert names == sorted(
        [*in_lockstep, *(f"{pair}-{side} False" for pair in (1, 2) for side in ("base", "head"))]
    )
    assert (
        capsys.readouterr().err.count(
            f"warning: {why}: the processes of a pair run one after the other"
        )
        == 1
    )


@pytest.mark.parametrize(
    "what",
    [
        "out of memory",
        "killed",
        "killed in the memory pass",
        "out of memory before any query",
        "too slow",
    ],
)
def test_pairs_that_cannot_be_built_at_the_same_time_are_measured_again_pair_by_pair(
    tmp_path, capsys, what
):
    head, why = (NO_ROOM | TOO_SLOW)[what]
    sides = a_pair(tmp_path, {}, {**head, "variable": lockstep.SHARED_VARIABLE})
    for side in sides:
        side.capabilities.add(lockstep.SHARED_MACHINE)
    pairing = Pairing(sides)
    ended = [
        (call.folder.name, done.returncode)
        for call, done in pairing.carry_out(two_pairs(tmp_path, sides))
    ]
    assert ended == [("1-base", 0), ("1-head", 0), ("2-base", 0), ("2-head", 0)]
    assert pairing.in_lockstep, "a pair alone has room"
    assert pairing.at_once({}, 5) == 1, "no further pairs are built together"
    assert capsys.readouterr().err == f"warning: {why}: pairs are built one after the other\n"


def two_pairs(folder: Path, sides: list[Scripted]) -> list[tuple[Call, Call]]:
    pairs = []
    for pair in (1, 2):
        one, other = (Call(side, [], folder / f"{pair}-{side.name}") for side in sides)
        pairs.append((one, other))
    return pairs


def test_a_pair_that_has_no_room_alone_either_is_measured_one_after_the_other(tmp_path, capsys):
    """Its folders are set aside twice: once with the other pairs, and once alone."""
    sides = a_pair(tmp_path, {}, {"code": 5, "outcome": OOM})
    pairing = Pairing(sides)
    ended = [
        (call.folder.name, done.returncode)
        for call, done in pairing.carry_out(two_pairs(tmp_path, sides))
    ]
    assert ended == [("1-base", 0), ("1-head", 0), ("2-base", 0), ("2-head", 0)]
    assert not pairing.in_lockstep
    set_aside = sorted(folder.name for folder in tmp_path.glob("?-*-*"))
    beside_others = [f"{pair}-{side}-beside-other-pairs" for pair in (1, 2) for side in BOTH]
    assert set_aside == sorted([*beside_others, *(f"1-{side}-in-lockstep" for side in BOTH)])
    assert capsys.readouterr().err.count("side by side, head ran out of memory") == 2


@pytest.mark.parametrize("code", [0, 1, 5])
def test_what_was_measured_is_not_tried_again_whatever_the_exit_code(tmp_path, capsys, code):
    sides = a_pair(tmp_path, {"code": code}, {})
    pairing = Pairing(sides)
    assert carried_out(tmp_path, pairing, sides) == [("base", code), ("head", 0)]
    assert pairing.in_lockstep and capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "base",
    [
        {"code": 2},
        {"code": 130},
        {"code": 1, "said": "OSError: disk full"},
        {"code": 5, "outcome": BROKEN},
        {"code": 5, "outcome": TIMEOUT},
    ],
)
def test_one_that_breaks_ends_the_other_and_is_not_tried_again(tmp_path, capsys, monkeypatch, base):
    monkeypatch.setattr(subprocesses, "FAILURE_REPORT_S", 0.1)
    sides = a_pair(tmp_path, base, {"sleeps": SLEEPS_S})
    pairing = Pairing(sides)
    assert carried_out(tmp_path, pairing, sides) == [("base", base["code"])]
    assert not (tmp_path / "1-head" / "run.json").exists(), "the other was waited for until its end"
    assert pairing.in_lockstep and capsys.readouterr().err == ""


def test_of_two_that_refuse_the_first_of_the_pair_is_heard_first(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocesses, "FAILURE_REPORT_S", SLEEPS_S)
    sides = a_pair(tmp_path, {"code": 2, "sleeps": 1}, {"code": 2})
    assert carried_out(tmp_path, Pairing(sides), sides) == [("base", 2), ("head", 2)]


def test_what_a_killed_process_has_left_behind_ends_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocesses, "FAILURE_REPORT_S", 0.1)
    sleep = ["sleep", str(SLEEPS_S)]
    leave = (
        f"import os, subprocess, sys; p = subprocess.Popen({sleep}); "
        "print(p.pid); sys.stdout.flush(); "
    )
    lines = [[sys.executable, "-c", f"{leave}os.kill(os.getpid(), 9)"], sleep]
    done = subprocesses.run(
        *(subprocesses.Command(line, tmp_path) for line in lines), broken=lambda _, code: code != 0
    )
    assert [(one.returncode, one.by_itself) for one in done] == [
        (-signal.SIGKILL, True),
        (-signal.SIGINT, False),
    ]
    until_gone(int(done[0].stdout))


def until_gone(pid: int) -> None:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        until(lambda: not is_alive(process))


class Clock:
    """Of a device that is behind its host until it is waited for."""

    def __init__(self, happened: list[str]) -> None:
        self.happened = happened

    def synchronize(self) -> None:
        self.happened.append("settled")


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(
    "function", ["measure_block", "measure_synchronised", "warm_up", "measure_memory"]
)
def test_a_worker_answers_only_when_its_device_has_done_all_that_it_was_given(
    monkeypatch, function, fails
):
    happened: list[str] = []

    def queue(*_: object) -> None:
        happened.append("queued")
        if fails:
            raise RuntimeError("planted")

    # This process ends with no session, and stays in its group.
    monkeypatch.setattr(worker, "end_with", lambda *_, **__: None)
    monkeypatch.setattr(worker.os, "setpgid", lambda *_: None)
    monkeypatch.setattr(case_worker, "clock_for", lambda _: Clock(happened))
    monkeypatch.setattr(case_worker, "open_samples", list)
    monkeypatch.setattr(CaseWorker, function, queue)
    pipe = SimpleNamespace(
        recv=iter([(getattr(CaseWorker, function), ([0],))]).__next__,
        send=lambda _: happened.append("handed over"),
    )
    with pytest.raises(StopIteration):
        worker.serve(pipe, None, CaseWorker, WorkerSettings("fake", None, {}), None)
    assert happened == ["queued", "settled", "handed over"]


@pytest.mark.parametrize("capabilities", [set(), {"lockstep/0"}])
def test_a_version_that_cannot_run_in_lockstep_is_never_started_beside_another(
    tmp_path, capsys, capabilities
):
    sides = a_pair(tmp_path, {"code": 5}, {"code": 5})
    sides[0].capabilities = capabilities
    assert carried_out(tmp_path, Pairing(sides), sides) == [("base", 0), ("head", 0)]
    assert {file.name for file in tmp_path.glob("1-*/*e")} == {"False"}
    assert "warning: base cannot run in lockstep" in capsys.readouterr().err


def test_an_interrupt_ends_all_that_were_begun(monkeypatch):
    begun = []
    popen = subprocesses.subprocess.Popen
    monkeypatch.setattr(
        subprocesses.subprocess, "Popen", lambda *a, **k: begun.append(popen(*a, **k)) or begun[-1]
    )
    sleeps = f"import time; print('x' * 100_000); time.sleep({SLEEPS_S})"
    sleeping = subprocesses.Command([sys.executable, "-c", sleeps], Path.cwd())
    waits = subprocesses._alive_after

    def interrupted(*arguments):
        assert len(begun) == 2
        threading.Timer(0.1, signal.raise_signal, [signal.SIGINT]).start()
        return waits(*arguments)

    monkeypatch.setattr(subprocesses, "_alive_after", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            subprocesses.run(sleeping, replace(sleeping))
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(begun) == 2 and all(child.returncode is not None for child in begun)
