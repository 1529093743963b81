"""A worker process: it carries out one call at a time, which the session sends through a pipe.

The session sends ``(method, arguments)``. The worker sends back ``("ok", result)``,
``("failed", (status, reason))``, or ``("refused", error)`` for what the user must fix. It ends when
the pipe does, so that no worker outlives a session that was killed.
"""

import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from ...harness import measure
from ...harness.errors import LisabenchError
from .case_worker import CaseWorker
from .data_worker import DataWorker

Method = Callable[..., Any]
Outcome = tuple[str, Any]


def serve(pipe: Connection, make_worker: Callable[[Any], CaseWorker | DataWorker], of: Any) -> None:
    """Carry out calls until the session closes the pipe.

    Args:
        pipe: to the session.
        make_worker: `CaseWorker` or `DataWorker`.
        of: what the worker is made of: its settings, or the data.
    """
    # An interrupt from the keyboard meets every process. The session handles it, and ends its
    # workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker = make_worker(of)
    while True:
        try:
            method, arguments = pipe.recv()
        except EOFError:
            if isinstance(worker, CaseWorker):
                worker.close()
            # Leave without Python's clean-up: libraries take seconds for theirs, and may hang in
            # it.
            os._exit(0)
        outcome = carry_out(worker, method, arguments)
        # Before the outcome is sent: the session then lets the next case measure.
        if isinstance(worker, CaseWorker):
            worker.synchronize()
        pipe.send(outcome)


def carry_out(worker: CaseWorker | DataWorker, method: Method, arguments: tuple) -> Outcome:
    """Call a method of the worker; return its result, or how it failed."""
    try:
        return "ok", method(worker, *arguments)
    except LisabenchError as error:
        return "refused", error
    except Exception as error:
        return "failed", measure.classify(error)
