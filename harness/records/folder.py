"""The folder that a command writes: it has one owner, and is as before if that is refused."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from ..errors import LisabenchError, UsageError

# Of files that a command cannot do without; a figure that cannot be written is a warning. The names
# of folders of lisabench have no ending.
ENDINGS = (".json", ".jsonl", ".npz", ".md", ".html", ".xml", ".lock")


def refuse_folders(folder: Path) -> None:
    """Check that a folder holds no folder where a file may have to be written.

    Raises:
        UsageError: it holds one.
    """
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.endswith(ENDINGS) and path.is_dir():
            raise UsageError(
                f"{path} is a folder, where lisabench writes a file; remove it, or name another "
                "folder with --out"
            )


def refuse_links(folder: Path) -> None:
    """Check that a folder holds no symbolic link, through which another file would be overwritten.

    The folder itself may be one.

    Raises:
        UsageError: it holds one.
    """
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_symlink():
            raise UsageError(
                f"{path} is a symbolic link, and lisabench writes through none; remove it, or name "
                "another folder with --out"
            )


class Before(NamedTuple):
    """A folder before anything is written into it.

    Attributes:
        missing: the folder and those above it, as far as they do not exist, the innermost first.
        entries: what it holds.
    """

    missing: Sequence[Path]
    entries: frozenset[Path]


def before_writing(folder: Path) -> Before:
    """Return a folder as it is now, for `undone_if_refused`."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    entries = folder.iterdir() if folder.is_dir() else ()
    return Before(missing, frozenset(entries))


@contextmanager
def undone_if_refused(folder: Path, before: Before) -> Iterator[None]:
    """Make a folder as it was before if the block refuses to begin, that is with exit code 2.

    What has measured something keeps it, whatever happens. The folder must be locked: the files of
    another command would be removed, too.
    """
    try:
        yield
    except LisabenchError as error:
        new = set(folder.iterdir()) - before.entries
        if error.exit_code == UsageError.exit_code and not any(map(_has_records, new)):
            for path in new:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            for path in before.missing:
                with suppress(OSError):  # another process has written into it meanwhile
                    path.rmdir()
        raise


def _has_records(path: Path) -> bool:
    """Return whether a journal has a line: the file itself, or one below the folder."""
    journals = path.rglob("*.jsonl") if path.is_dir() else (path,)
    return any(journal.suffix == ".jsonl" and journal.stat().st_size for journal in journals)
