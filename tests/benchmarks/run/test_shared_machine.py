"""Pairs of runs that share a machine: they build at the same time, and one pair measures."""

import os
import signal
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from lisabench.benchmarks import subprocesses
from lisabench.benchmarks.gate import pairs as gate_pairs
from lisabench.benchmarks.gate.pairs import Call
from lisabench.benchmarks.run import lockstep
from lisabench.benchmarks.run.lockstep import SharedMachine

fcntl = lockstep.fcntl

pytestmark = [
    pytest.mark.no_clock,
    pytest.mark.skipif(not lockstep.CAN_SHARE, reason="this system has no locks of files"),
]

# A round without a turn comes first, as in a run whose memory is known.
RUN = """
import os, signal, sys, time
from types import SimpleNamespace
from lisabench.benchmarks.run import lockstep

pair, log, builds_s, dies = int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), sys.argv[4] == "dies"
builds_in_round_s, measures_s, lockstep.LIMIT_S = map(float, sys.argv[5:])

def note(what, begun):
    with open(log, "a") as file:
        file.write(f"{pair} {what} {begun} {time.monotonic_ns()}\\n")

suite = SimpleNamespace(trainings={}, plan=SimpleNamespace(gpu_memory=None), fits=[])
mine = lockstep.lockstep_of_environment(suite)
with mine.round():
    pass
for _ in range(2):
    begun = time.monotonic_ns()
    time.sleep(builds_s)
    note("builds", begun)
    with mine.round():
        if builds_in_round_s:  # as the memory pass on a GPU
            begun = time.monotonic_ns()
            time.sleep(builds_in_round_s)
            note("builds", begun)
        for _ in range(2):
            with mine.turn():
                begun = time.monotonic_ns()
                if dies:
                    os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(measures_s)
                note("measures", begun)
begun = time.monotonic_ns()
time.sleep(0.02)
note("ends", begun)
"""
SPANS = 2 * (1 + 2) + 1  # of each run: it builds and measures twice, and ends


def spans_of(
    folder: Path,
    pairs: int,
    dying: int | None = None,
    in_round_s: tuple[float, float] = (0, 0),
    measures_s: float = 0.02,
    limit_s: float = lockstep.LIMIT_S,
) -> list[tuple[int, str, int, int]]:
    """Run pairs that share a machine; return pair, what, begin and end of all that they did.

    Args:
        folder: an empty one.
        pairs: how many.
        dying: the pair whose first run is killed in its turn.
        in_round_s: how long each run of the first pair builds within a round, outside of its turn.
        measures_s: how long a turn is.
        limit_s: how long a run waits for the other one of its pair.
    """
    log = folder / "log"
    commands = []
    machines = [SharedMachine.opened(folder / "lock") for _ in range(pairs)]
    for pair, machine in enumerate(machines):
        for number, invited in enumerate(lockstep.invitations(machine=machine)):
            dies = "dies" if pair == dying and number == 0 else ""
            builds_s = str(0.05 * (1 + pair))
            seconds = [str(0 if pair else in_round_s[number]), str(measures_s), str(limit_s)]
            line = [sys.executable, "-c", RUN, str(pair), str(log), builds_s, dies, *seconds]
            commands.append(
                subprocesses.Command(line, Path.cwd(), invited.environment(), invited.inherited)
            )
    done = subprocesses.run(*commands)
    codes = [one.returncode for one in done]
    expected = [0] * (2 * pairs)
    if dying is not None:
        expected[2 * dying] = -signal.SIGKILL
    assert codes == expected, [one.stderr for one in done]
    spans = []
    for line in log.read_text().splitlines():
        pair, what, begun, ended = line.split()
        spans.append((int(pair), what, int(begun), int(ended)))
    return spans


def disturbed(spans: list[tuple[int, str, int, int]]) -> list[str]:
    """Return what other pairs did while one measured."""
    seen = []
    for pair, what, begun, ended in spans:
        for other, others_doing, other_begun, other_ended in spans:
            overlap = begun < other_ended and other_begun < ended
            if what == "measures" and other != pair and overlap:
                seen.append(f"pair {other} {others_doing} while pair {pair} measures")
    return seen


def test_no_pair_does_anything_while_another_measures(tmp_path):
    spans = spans_of(tmp_path, pairs=3)
    assert len(spans) == 3 * 2 * SPANS
    assert disturbed(spans) == []


def test_all_pairs_build_before_the_first_one_measures(tmp_path):
    spans = spans_of(tmp_path, pairs=3)
    first_measured = min(begun for _, what, begun, _ in spans if what == "measures")
    built_before = [pair for pair, what, _, ended in spans if ended <= first_measured]
    assert sorted(set(built_before)) == [0, 1, 2]


def test_a_run_that_is_killed_while_its_pair_measures_leaves_the_machine_to_the_others(tmp_path):
    spans = spans_of(tmp_path, pairs=2, dying=0)
    assert len(spans) == 2 * SPANS + SPANS + 1, "the killed one has built once"
    assert disturbed(spans) == []


@pytest.mark.parametrize("in_round_s", [(0, 0.5), (0.5, 0)])
def test_a_pair_keeps_its_share_until_neither_of_its_runs_builds(tmp_path, in_round_s):
    spans = spans_of(tmp_path, pairs=2, in_round_s=in_round_s)
    assert len(spans) == 2 * 2 * SPANS + 2
    assert disturbed(spans) == []


def test_a_run_waits_for_as_long_as_the_other_pairs_measure(tmp_path):
    """Neither run takes the time of the other pairs for a silence of its own one."""
    measures_s, limit_s = 0.25, 1.5
    assert 2 * (2 * 2 * measures_s) > limit_s, "two other pairs measure for longer"
    spans = spans_of(tmp_path, pairs=3, measures_s=measures_s, limit_s=limit_s)
    assert len(spans) == 3 * 2 * SPANS


def test_the_planted_error_is_seen_without_the_lock(tmp_path, monkeypatch):
    """The check itself: pairs that know nothing of each other disturb each other."""
    monkeypatch.setattr(lockstep, "SHARED_VARIABLE", "LISABENCH_NOBODY_READS_THIS")
    assert disturbed(spans_of(tmp_path, pairs=3))


def test_the_lock_is_taken_from_the_environment_once_and_no_worker_inherits_it(
    tmp_path, monkeypatch
):
    machine = SharedMachine.opened(tmp_path / "lock")
    with machine.copy_to_inherit() as copy:
        number = os.dup(copy.fileno())
    os.set_inheritable(number, True)
    monkeypatch.setenv(lockstep.SHARED_VARIABLE, str(number))
    taken = SharedMachine.of_environment()
    assert not os.get_inheritable(number)
    assert SharedMachine.of_environment() is None
    taken.close()


def test_a_run_that_shares_the_machine_with_no_pair_has_no_lock(monkeypatch):
    monkeypatch.delenv(lockstep.SHARED_VARIABLE, raising=False)
    assert SharedMachine.of_environment() is None


def test_the_file_of_the_lock_is_gone_before_any_run_begins(tmp_path, monkeypatch):
    """So that it does not stay when the gate is killed. The pairs have it open all the same."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen = []

    def run(*commands: subprocesses.Command, **_: object) -> list[subprocesses.Done]:
        first, last = commands[0].inherited[1], commands[-1].inherited[1]
        with pytest.raises(BlockingIOError):
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(last, fcntl.LOCK_UN)
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # NFS locks a file only for what it was opened for: shared to read, exclusive to write.
        seen.append(fcntl.fcntl(first, fcntl.F_GETFL) & os.O_ACCMODE)
        seen.extend(tmp_path.iterdir())
        return [subprocesses.Done(0, "", "") for _ in commands]

    monkeypatch.setattr(subprocesses, "run", run)
    version = SimpleNamespace(
        label="a version", command=lambda *_: subprocesses.Command([], tmp_path)
    )
    calls = []
    for number in range(4):
        calls.append(Call(version, [], tmp_path / "out" / str(number)))
    gate_pairs._run_in_lockstep([(calls[0], calls[1]), (calls[2], calls[3])], [None, None])
    assert seen == [os.O_RDWR]
