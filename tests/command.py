"""The command in the test's own process, which has imported everything once: what it prints, and its exit code."""

import io
import os
from contextlib import redirect_stderr, redirect_stdout
from subprocess import CompletedProcess
from unittest import mock

from lisabench import cli


def lisabench(*words: object, **environment: str) -> CompletedProcess[str]:
    """As a new process would be, but for modules, random states and worker processes' server, which are kept."""
    argv = ["lisabench", *map(str, words)]
    out, err, code = io.StringIO(), io.StringIO(), 0
    patches = mock.patch("sys.argv", argv), mock.patch.dict(os.environ, environment)
    with patches[0], patches[1], redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    return CompletedProcess(argv, code, out.getvalue(), err.getvalue())
