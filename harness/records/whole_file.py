"""The one way in which a file is written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file, which takes the place of `path` at the end of the block.

    A process may be killed while it writes, and others may read at any time. A file is replaced in
    one step only within its folder, so the temporary file lies beside it. If the block raises, the
    old file stays as it was. Where several processes write one file at once, the last one wins.
    """
    # The process is in the name: two processes must never write into one temporary file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    temporary.unlink(missing_ok=True)  # a killed process of the same number may have left one
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
