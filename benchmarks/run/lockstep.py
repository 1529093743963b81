"""Two runs in lockstep: they measure block by block in turn, so that drift meets both alike.

Whoever starts the two gives each of them one end of a pair of sockets, through the environment.
They wait for each other at the start of a round. In the round one run measures at a time; the other
sleeps in a read. After each turn a run passes the turn to the other. A run that has no turns left
in the round leaves the rest of it to the other, and both wait for each other at its end. Between
rounds both build their models at the same time. Several pairs may build together, too; see
`SharedMachine`.

If one run ends, for whatever reason, the system closes its socket, and the other goes on alone: the
one that ended may have had less to do. Whoever started the two ends the other run if one broke.

Messages are single bytes:

    ready    sent and awaited at the start of a round
    here     sent and awaited before the first turn of a round, if other pairs share the machine
    turn     it is your turn
    done     sent and awaited at the end of a round; the sender needs no turn any more
"""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ...harness.errors import RunFailed
from ..resolved_suite import ResolvedSuite
from .cpu_pinning import CoreRotation

try:
    import fcntl
except ModuleNotFoundError:  # on Windows
    fcntl = None

# `lisabench doctor --json` lists it. The number changes with the messages, their order, or the
# variable.
PROTOCOL = "lockstep/3"
VARIABLE = "LISABENCH_LOCKSTEP"
# The gate looks for this sentence in the errors of a version that it has started.
NEEDS_MACHINE = (
    "trainings, and processes that are limited to a card, need the machine for themselves"
)
# `lisabench doctor --json` lists it where several pairs can share a machine. The number changes
# with the meaning of the lock, and with that of `HERE`.
SHARED_MACHINE = "shared-machine/2"
SHARED_VARIABLE = "LISABENCH_SHARED_MACHINE"
CAN_SHARE = fcntl is not None
READY, HERE, TURN, DONE, GONE = b"r", b"h", b"t", b"d", b""
LIMIT_S = 3600.0  # of one wait: the other run may build a large model for minutes


class SharedMachine:
    """A machine that several pairs of runs share: all build at the same time, one pair measures.

    Building takes most of the time of a pair, and nothing of it is measured. So the pairs build
    together, and then measure one after the other. Each pair has opened the same file, whose lock
    says what the pair does:

        shared       it builds, measures memory on a GPU, or ends: others may do the same, but
                     nobody measures time
        exclusive    it measures time: nobody else does anything
        none         it waits to measure

    The two runs of a pair inherit one opening of the file, and so have one lock together. The
    system releases it when both have ended, in whatever way.

    Args:
        file: an opening of the file that belongs to this pair alone.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    @classmethod
    def opened(cls, path: Path) -> "SharedMachine":
        """Return the lock of a new pair, shared, on a file that is made if it is not there."""
        # NFS grants a shared lock only on a file that is open to read, and an exclusive one only on
        # a file that is open to write.
        machine = cls(path.open("a+b"))
        machine.share()
        return machine

    @classmethod
    def of_environment(cls) -> "SharedMachine | None":
        """Return the lock that this process inherited; None if no other pair shares the machine.

        It is removed from the environment, so that it is taken once.
        """
        number = os.environ.pop(SHARED_VARIABLE, None)
        if number is None:
            return None
        # Worker processes must not inherit it: they would keep the lock when this one has ended.
        os.set_inheritable(int(number), False)
        return cls(os.fdopen(int(number), "ab"))

    def copy_to_inherit(self) -> IO[bytes]:
        """Return the opened file once more, for a process that inherits it."""
        return os.fdopen(os.dup(self._file.fileno()), "ab")

    def close(self) -> None:
        """Give this process's part of the lock back; the runs of the pair keep theirs."""
        self._file.close()

    def share(self) -> None:
        """Let the other pairs work too; wait while one of them measures."""
        assert fcntl is not None  # only versions with `SHARED_MACHINE` share a machine
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def have_alone(self) -> None:
        """Wait until every other pair waits to measure, or has ended; nothing if it has it alone.

        The pair gives back its own share first. Otherwise two that wait would wait for each other.
        """
        assert fcntl is not None
        fcntl.flock(self._file, fcntl.LOCK_EX)


@dataclass(frozen=True)
class Invitation:
    """What one of the two runs is started with.

    Attributes:
        end: its end of the pair of sockets.
        is_first: whether it has the first turn of every round.
        core: the CPU core that both launch GPU kernels from; None: any.
        machine: the file whose lock the two have together, if other pairs share the machine.
    """

    end: socket.socket
    is_first: bool
    core: int | None = None
    machine: IO[bytes] | None = None

    def environment(self) -> dict[str, str]:
        """Return the variables that the run's environment must have, beside what it inherits."""
        variables = {VARIABLE: json.dumps([self.end.fileno(), self.is_first, self.core])}
        if self.machine is not None:
            variables[SHARED_VARIABLE] = str(self.machine.fileno())
        return variables

    @property
    def inherited(self) -> tuple[socket.socket | IO[bytes], ...]:
        """What the process of the run inherits."""
        return (self.end,) if self.machine is None else (self.end, self.machine)


def invitations(
    core: int | None = None, machine: SharedMachine | None = None
) -> tuple[Invitation, Invitation]:
    """Return the invitations of the run that has the first turn, and of the other.

    Args:
        core: the CPU core that both launch GPU kernels from; None: any.
        machine: the lock of this pair, which closes with the two; None: no other pair is there.
    """
    first_end, second_end = socket.socketpair()
    if machine is None:
        return Invitation(first_end, True, core), Invitation(second_end, False, core)
    first = Invitation(first_end, True, core, machine.copy_to_inherit())
    second = Invitation(second_end, False, core, machine.copy_to_inherit())
    machine.close()
    return first, second


class Lockstep:
    """One run's part in it. A run without an invitation is alone, and waits for nothing.

    Args:
        invitation: what the run was started with; None: it is alone.
        machine: the lock of its pair; None: no other pair shares the machine.
    """

    def __init__(
        self, invitation: Invitation | None = None, machine: SharedMachine | None = None
    ) -> None:
        self._machine = machine
        self._peer: socket.socket | None = None
        self._is_first = False
        self._core: int | None = None
        self._rotation = CoreRotation()
        self._has_turn = True
        self._has_machine = True
        self._peer_is_done = True
        if invitation is not None:
            self._peer = invitation.end
            self._is_first = invitation.is_first
            self._core = invitation.core
            self._peer.settimeout(LIMIT_S)

    @property
    def alone(self) -> bool:
        """Whether there is no other run, or none any more."""
        return self._peer is None

    def next_core(self) -> int | None:
        """Return the core that the next round launches GPU kernels from.

        Two runs keep the core that they were started with. A run that is alone takes another each
        round.
        """
        return self._rotation.next_core() if self.alone else self._core

    @contextmanager
    def round(self) -> Iterator[None]:
        """Wait for the other run at the start of a round and at its end.

        Raises:
            RunFailed: the other run sends nothing for `LIMIT_S`; `turn` raises it too.
        """
        self._send(READY)
        self._await(READY)
        self._has_turn = self._is_first
        self._has_machine = self._machine is None
        self._peer_is_done = self.alone
        yield
        self._send(DONE)
        if not self._peer_is_done:
            self._await(DONE)
        if self._machine is not None:
            self._machine.share()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Have the machine to oneself, within a round."""
        # At the first turn, and not at the start of the round: a round may have no turns, and would
        # wait all the same until the other pairs have built.
        if not self._has_machine:
            self._have_machine()
        if not self._has_turn and not self._peer_is_done:
            # `DONE`, or that the other run is gone, leaves the rest of the round to this one.
            self._peer_is_done = self._await(TURN, DONE) != TURN
        yield
        self._has_turn = False
        if not self._peer_is_done:
            self._send(TURN)

    def _have_machine(self) -> None:
        """Wait until no other pair does anything."""
        assert self._machine is not None  # otherwise this run has the machine
        # Until the other run is here too, or done, it may build out of its turn. The pair must keep
        # its share as long.
        self._send(HERE)
        if not self._peer_is_done:
            self._peer_is_done = self._await(HERE, DONE) != HERE
        # Both runs wait here for the other pairs, however long they measure. If one waited for its
        # turn meanwhile, it would give up after `LIMIT_S`.
        self._machine.have_alone()
        self._has_machine = True

    def _send(self, message: bytes) -> None:
        try:
            if self._peer is not None:
                self._peer.sendall(message)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the other run is gone; what it sent before can still be read

    def _await(self, *awaited: bytes) -> bytes:
        """Return the next of these messages, or `GONE` if the other run has ended."""
        while self._peer is not None:
            message = self._receive(self._peer)
            if message == GONE:
                self._peer = None
            elif message in awaited:
                return message
        return GONE

    def _receive(self, peer: socket.socket) -> bytes:
        try:
            # The system wakes this process: a loop would disturb the other's times.
            return peer.recv(1)
        except ConnectionResetError:
            return GONE
        except TimeoutError:
            raise RunFailed(
                f"the run that this one is in lockstep with sent nothing for {LIMIT_S:g} s"
            ) from None


def lockstep_of_environment(suite: ResolvedSuite) -> Lockstep:
    """Return the lockstep that this process was invited to, or one that is alone.

    The invitation is removed from the environment, so that it is taken once.

    Raises:
        RunFailed: it was invited, but the suite needs the whole machine for more than its blocks.
    """
    value = os.environ.pop(VARIABLE, None)
    machine = SharedMachine.of_environment()
    if value is None:
        return Lockstep()
    if suite.trainings or suite.plan.gpu_memory or suite.fits:
        raise RunFailed(NEEDS_MACHINE)
    number, is_first, core = json.loads(value)
    # Worker processes must not inherit the socket: it would stay open when this process has ended,
    # and the other run would wait for it.
    os.set_inheritable(number, False)
    return Lockstep(Invitation(socket.socket(fileno=number), is_first, core), machine)
