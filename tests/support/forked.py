"""Processes that are forked from the server of worker processes, for tests.

The server has imported torch and transformers once. A new interpreter would import them again, for
seconds.
"""

import multiprocessing
from collections.abc import Callable
from multiprocessing.process import BaseProcess

from lisabench.benchmarks.run.worker_pool import WorkerPool
from lisabench.models import registry


def forked(function: Callable[..., None], *arguments: object) -> BaseProcess:
    """Start a process that calls a function, and return it.

    The function's module must be importable, and the arguments are pickled.
    """
    # A pool starts the server, unless one has started it before.
    WorkerPool(registry.preload("lisa"), time_limit_s=600)
    process = multiprocessing.get_context("forkserver").Process(target=function, args=arguments)
    process.start()
    return process
