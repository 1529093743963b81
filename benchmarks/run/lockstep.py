"""Two runs in lockstep: they measure block by block in turn, so that drift meets both alike.

Whoever starts the two gives each of them one end of a pair of sockets, through the environment.
They wait for each other at the start of a round. In the round one run measures at a time; the other
sleeps in a read. After each turn a run passes the turn to the other. A run that has no turns left
in the round leaves the rest of it to the other, and both wait for each other at its end. Between
rounds both build their models at the same time.

If one run ends, for whatever reason, the system closes its socket, and the other goes on alone: the
one that ended may have had less to do. Whoever started the two ends the other run if one broke.

Messages are single bytes:

    ready    sent and awaited at the start of a round
    turn     it is your turn
    done     sent and awaited at the end of a round; the sender needs no turn any more
"""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ...harness.errors import RunFailed
from ..resolved_suite import ResolvedSuite
from .cpu_pinning import CoreRotation

# `lisabench doctor --json` lists it. The number changes with the messages, their order, or the
# variable.
PROTOCOL = "lockstep/3"
VARIABLE = "LISABENCH_LOCKSTEP"
# The gate looks for this sentence in the errors of a version that it has started.
NEEDS_MACHINE = (
    "trainings, and processes that are limited to a card, need the machine for themselves"
)
READY, TURN, DONE, GONE = b"r", b"t", b"d", b""
LIMIT_S = 3600.0  # of one wait: the other run may build a large model for minutes


@dataclass(frozen=True)
class Invitation:
    """What one of the two runs is started with.

    Attributes:
        end: its end of the pair of sockets.
        is_first: whether it has the first turn of every round.
        core: the CPU core that both launch GPU kernels from; None: any.
    """

    end: socket.socket
    is_first: bool
    core: int | None = None

    def environment(self) -> dict[str, str]:
        """Return the variables that the run's environment must have, beside the socket itself."""
        return {VARIABLE: json.dumps([self.end.fileno(), self.is_first, self.core])}


def invitations(core: int | None = None) -> tuple[Invitation, Invitation]:
    """Return the invitations of the run that has the first turn, and of the other."""
    first_end, second_end = socket.socketpair()
    return Invitation(first_end, True, core), Invitation(second_end, False, core)


class Lockstep:
    """One run's part in it. A run without an invitation is alone, and waits for nothing."""

    def __init__(self, invitation: Invitation | None = None) -> None:
        self._peer: socket.socket | None = None
        self._is_first = False
        self._core: int | None = None
        self._rotation = CoreRotation()
        self._has_turn = True
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
        self._peer_is_done = self.alone
        yield
        self._send(DONE)
        if not self._peer_is_done:
            self._await(DONE)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Have the machine to oneself, within a round."""
        if not self._has_turn and not self._peer_is_done:
            # `DONE`, or that the other run is gone, leaves the rest of the round to this one.
            self._peer_is_done = self._await(TURN, DONE) != TURN
        yield
        self._has_turn = False
        if not self._peer_is_done:
            self._send(TURN)

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
            return peer.recv(
                1
            )  # the system wakes this process: a loop would disturb the other's times
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
    if value is None:
        return Lockstep()
    if suite.trainings or suite.plan.gpu_memory or suite.fits:
        raise RunFailed(NEEDS_MACHINE)
    number, is_first, core = json.loads(value)
    # Worker processes must not inherit the socket: it would stay open when this process has ended,
    # and the other run would wait for it.
    os.set_inheritable(number, False)
    return Lockstep(Invitation(socket.socket(fileno=number), is_first, core))
