"""Waits for what happens in other processes. The limit only guards against hanging."""

import time
from collections.abc import Callable

import psutil

HANGS_AFTER_S = 300


def until(happened: Callable[[], bool]) -> None:
    """Wait until something has happened in another process."""
    end = time.monotonic() + HANGS_AFTER_S
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process has not ended; a zombie has."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
