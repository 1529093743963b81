"""A worker process: it carries out one call at a time, which the session sends through a pipe.

The session sends ``(method, arguments)``. The worker sends back ``("ok", result)``,
``("failed", (status, reason))``, or ``("refused", error)`` for what the user must fix. It ends when
the pipe does, and is killed when the session is.
"""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from ...harness import environment, measure, terminal
from ...harness.errors import LisabenchError
from ...harness.lifeline import end_with
from .case_worker import CaseWorker
from .data_worker import DataWorker

Method = Callable[..., Any]
Outcome = tuple[str, Any]
Gpu = tuple[str, str]  # a device such as ``cuda:1``, and the id of its GPU


def serve(
    pipe: Connection,
    parents_lifeline: Connection,
    make_worker: Callable[[Any], CaseWorker | DataWorker],
    of: Any,
    gpu: Gpu | None,
) -> None:
    """Carry out calls until the session closes the pipe.

    Args:
        pipe: to the session.
        parents_lifeline: of the session.
        make_worker: `CaseWorker` or `DataWorker`.
        of: what the worker is made of: its settings, or the data.
        gpu: the one that this process is left; None: all that are visible.
    """
    # First of all: an adapter may ask CUDA something as soon as it is imported.
    if gpu is not None:
        environment.choose_gpu(*gpu)
    # A group of its own, of which the programs are that an adapter starts: all of it is ended.
    own_group = hasattr(os, "setpgid")
    if own_group:
        os.setpgid(0, 0)
        # Adapters print. A terminal may be set to stop what another group than the shell's writes.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    # The pipe is read between two calls alone. A call may hang, or take minutes.
    end_with(parents_lifeline, with_group=own_group)
    # Adapters and their libraries print. The output of the command is that of the session.
    printed = terminal.PrintedByOthers(sys.stderr)
    sys.stdout = sys.stderr = printed
    worker = make_worker(of)
    # A session that is interrupted leaves results unread, and the pipe is then reset, not closed.
    # An adapter may close it, too. The session finds out that the process has ended.
    with suppress(EOFError, OSError):
        while True:
            method, arguments = pipe.recv()
            outcome = carry_out(worker, method, arguments)
            # Before the outcome is sent: the session then lets the next case measure.
            if isinstance(worker, CaseWorker):
                worker.synchronize()
            pipe.send(outcome)
    if isinstance(worker, CaseWorker):
        with suppress(BaseException):  # everything is measured, and an adapter may raise anything
            worker.close()
    with suppress(OSError):  # nobody may read it any more
        printed.end_line()
    # Leave without Python's clean-up: libraries take seconds for theirs, and may hang in it.
    os._exit(0)


def carry_out(worker: CaseWorker | DataWorker, method: Method, arguments: tuple) -> Outcome:
    """Call a method of the worker; return its result, or how it failed."""
    try:
        return "ok", method(worker, *arguments)
    except LisabenchError as error:
        return "refused", error
    except BaseException as error:  # an adapter may call exit(), or raise what it likes
        return "failed", measure.classify(error)
