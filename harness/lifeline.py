"""Child processes end with the process that started them, whatever either of them is doing.

A process that is killed cannot end its children. So it holds the write end of a pipe, and each of
its children the read end. When the process ends, in whatever way, the system closes the write end,
and kills the children at that moment.
"""

import os
import signal
import sys
import threading
from multiprocessing import Pipe
from multiprocessing.connection import Connection

# How processes are started that read data or draw scenes: by a fork, which copies what is loaded.
# None is Python's own choice: no fork on macOS, and from Python 3.14 on none on Linux either.
START_METHOD = "fork" if sys.platform == "linux" else None
# The two ends of this process's own pipe, made when the first child needs one.
_ends: list[Connection] = []


def lifeline() -> Connection:
    """Return what the children of this process pass to `end_with`."""
    if not _ends:
        _ends.extend(Pipe(duplex=False))
        # A forked child would hold the write end too, and so keep itself and its siblings alive.
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_close_write_end)
    return _ends[0]


def _close_write_end() -> None:
    if _ends:
        _, write_end = _ends
        write_end.close()
        _ends.clear()


def end_with(parents_lifeline: Connection, with_group: bool = False) -> None:
    """Have this process killed as soon as the process that a lifeline belongs to has ended.

    Args:
        parents_lifeline: what `lifeline` returned in that process.
        with_group: whether all processes of its process group are killed with it. Programs of
            others, which a command like pip starts, have no lifeline.
    """
    if sys.platform == "linux":
        _arm(parents_lifeline.fileno(), with_group)
        if parents_lifeline.poll():  # the parent has ended already
            _kill(with_group)
    else:
        arguments = (parents_lifeline, with_group)
        threading.Thread(target=_await_end, args=arguments, daemon=True).start()


def _arm(file: int, with_group: bool) -> None:
    """Let the kernel send SIGKILL when the write end of a pipe is closed.

    A thread that waits for it would not run while native code holds Python's lock, as in a hung
    query.
    """
    import fcntl

    # The signal goes to one process, or group, per opening of a file, and all children share the
    # opening that they were handed. So each opens the pipe once more.
    opened = os.open(f"/proc/self/fd/{file}", os.O_RDONLY | os.O_NONBLOCK)
    owner = -os.getpgrp() if with_group else os.getpid()  # fcntl: a negative number is a group
    fcntl.fcntl(opened, fcntl.F_SETOWN, owner)
    fcntl.fcntl(opened, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(opened, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)


def _await_end(parents_lifeline: Connection, with_group: bool) -> None:
    parents_lifeline.poll(None)
    _kill(with_group)


def _kill(with_group: bool) -> None:
    if with_group:
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
