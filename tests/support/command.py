"""A command in the test's own process, which has imported everything once."""

import io
import os
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from subprocess import CompletedProcess
from unittest import mock

from lisabench import cli


def lisabench(*words: object, **environment: str) -> CompletedProcess[str]:
    """Make the process as a new one would be.

    Modules, random states and the server of worker processes are kept.
    """
    with mock.patch.dict(os.environ, environment):
        return in_process(cli.main, *words)


def in_process(main: Callable[[], object], *words: object) -> CompletedProcess[str]:
    argv = ["lisabench", *map(str, words)]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with mock.patch("sys.argv", argv), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    return CompletedProcess(argv, code, out.getvalue(), err.getvalue())
