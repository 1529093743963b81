"""A baton between two runs on one machine, so that they measure block by block in turn, and drift meets both alike.

Whoever started the two gives each one end of a pair of sockets, by the environment. They meet at the start of a round.
From there on only the run that holds the baton works; the other sleeps in a read. A run whose turns are done leaves the
rest of the round to the other, and both meet again at its end. Between rounds both work, as they build their models.
Where the other ends, whatever ended it, the system closes its socket, and the run goes on alone at once: the other may
have had less to do. Whoever started the two ends it, where the other broke.

    ready    said and heard at the start of a round
    yours    the baton
    done     said and heard at the end of a round; it needs no baton any more
"""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ...harness.errors import RunFailed
from ..suite import Suite
from .cpu_pinning import Rota

PROTOCOL = "lisabench.baton/2"  # looked for in the text of another version's file
VARIABLE = "LISABENCH_BATON"
APART = "trainings, and processes that are capped to a card, want the machine for themselves"  # looked for in stderr
READY, YOURS, DONE, GONE = b"r", b"y", b"d", b""
LIMIT_S = 3600.0  # of one wait: the other may build for minutes


@dataclass(frozen=True)
class Invitation:
    """One run's end; `first` begins every round, and both ask from one `core`."""

    end: socket.socket
    first: bool
    core: int | None = None

    def environment(self) -> dict[str, str]:
        """What the run's has to hold, beside the socket itself."""
        return {VARIABLE: json.dumps([self.end.fileno(), self.first, self.core])}


def invitations(core: int | None = None) -> tuple[Invitation, Invitation]:
    """For the run that begins, and for the other."""
    one, other = socket.socketpair()
    return Invitation(one, True, core), Invitation(other, False, core)


class Lockstep:
    """One run's side of it; without an other, nothing is waited for."""

    def __init__(self, invitation: Invitation | None = None) -> None:
        self._other = invitation and invitation.end
        self._first = invitation is not None and invitation.first
        self._core = invitation and invitation.core
        self._rota = Rota()
        self._held = self._others_done = True
        if self._other:
            self._other.settimeout(LIMIT_S)

    @property
    def alone(self) -> bool:
        """Whether there is no other run, or none any more."""
        return self._other is None

    def core(self) -> int | None:
        """The one to ask a GPU from in the next round: the pair's, and alone another one each time."""
        return self._rota.next_core() if self.alone else self._core

    @contextmanager
    def round(self) -> Iterator[None]:
        """Both are ready when it begins and done when it ends.

        Raises:
            RunFailed: the other is neither within `LIMIT_S`; so in `turn`.
        """
        self._say(READY)
        self._hear(READY)
        self._held, self._others_done = self._first, self.alone
        yield
        self._say(DONE)
        if not self._others_done:
            self._hear(DONE)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """The machine to oneself, within a round."""
        if not (self._held or self._others_done):
            self._others_done = self._hear(YOURS, DONE) != YOURS
        yield
        self._held = False
        if not self._others_done:
            self._say(YOURS)

    def _say(self, word: bytes) -> None:
        try:
            if self._other:
                self._other.sendall(word)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has gone; what it said before can still be heard

    def _hear(self, *awaited: bytes) -> bytes:
        """The next of these words, or that the other has gone."""
        while self._other:
            word = self._received(self._other)
            if word == GONE:
                self._other = None
            elif word in awaited:
                return word
        return GONE

    def _received(self, other: socket.socket) -> bytes:
        try:
            return other.recv(1)
        except ConnectionResetError:
            return GONE
        except TimeoutError:
            raise RunFailed(
                f"the run that this one takes turns with said nothing for {LIMIT_S:g} s"
            ) from None


def of_environment(suite: Suite) -> Lockstep:
    """As this process was invited to, once; otherwise one without an other.

    Raises:
        RunFailed: it was invited, and the suite needs the whole machine for more than its blocks.
    """
    given = os.environ.pop(VARIABLE, None)
    if given is None:
        return Lockstep()
    if suite.trainings or suite.plan.gpu_memory or suite.fits():
        raise RunFailed(APART)
    number, first, core = json.loads(given)
    os.set_inheritable(
        number, False
    )  # the other is to see that this process has ended, whatever its workers do
    return Lockstep(Invitation(socket.socket(fileno=number), first, core))
