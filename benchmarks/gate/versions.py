"""Two versions of lisabench in one environment: the working tree, and a git reference in a worktree beside it.

Each is driven through its own command line. A folder that holds it under the name ``lisabench`` stands first on its
PYTHONPATH, so that neither an installed version nor one in the current folder is taken in its place; and the version is
asked, before anything is measured, which files it was imported from.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...harness.errors import NothingToCompare, RunFailed, UsageError
from .. import subprocesses
from ..subprocesses import Command, Done

PACKAGE = "lisabench"
ROOMS = ("harness", "models", "datasets", "reports", "benchmarks")
LANDMARKS = ("__init__.py", "cli.py", "benchmarks/suites")
WHICH = f"import {PACKAGE}; print({PACKAGE}.__file__)"
DEEPEN = "; this clone is shallow: git fetch --unshallow, or in a workflow actions/checkout with fetch-depth: 0"


@dataclass(frozen=True)
class Version:
    """One version, and how it is started.

    Attributes:
        name: ``base`` or ``head``.
        label: what messages call it.
        home: the folder that holds its files as ``lisabench``.
        python: the interpreter of its environment.
        source: what ``run.json`` says of where it is from.
    """

    name: str
    label: str
    home: Path
    python: str
    source: dict[str, Any]

    @property
    def tree(self) -> Path:
        return self.home / PACKAGE

    def run(self, *arguments: str | Path) -> Done:
        """Its command line, run in the current folder."""
        return self._start(self.command(*arguments))

    def command(self, *arguments: str | Path) -> Command:
        """The same, to be run."""
        return self._python("-m", f"{PACKAGE}.cli", *arguments)

    def make_ready(self) -> None:
        """Compiles its files, so that its first process is like the others, and makes sure that they are the ones.

        Raises:
            NothingToCompare: there is no lisabench in it.
            RunFailed: its Python imports another one, or none.
        """
        if not _is_lisabench(self.tree):
            raise NothingToCompare(
                f"{self.label} holds no lisabench that could be run; name a later reference"
            )
        self._start(self._python("-m", "compileall", "-q", "-l", self.tree))
        self._start(self._python("-m", "compileall", "-q", *(self.tree / room for room in ROOMS)))
        done = self._start(self._python("-c", WHICH))
        found = done.stdout.strip() or last_line(done.stderr)
        if not found or Path(found).resolve() != (self.tree / "__init__.py").resolve():
            raise RunFailed(
                f"{self.python} does not import {PACKAGE} from {self.label}, but says: {found}"
            )

    def _python(self, *arguments: str | Path) -> Command:
        paths = [str(self.home), os.environ.get("PYTHONPATH", "")]
        own = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONSAFEPATH": "1"}
        return Command([self.python, *map(str, arguments)], Path.cwd(), own)

    def _start(self, command: Command) -> Done:
        try:
            return subprocesses.run(command)[0]
        except OSError as error:
            raise UsageError(
                f"cannot start {self.python}: {error.strerror}; --against-python is the Python of an environment"
            ) from error


@contextmanager
def checked_out(reference: str, python: Path | None) -> Iterator[tuple[Version, Version]]:
    """The reference and the working tree as it is, ready to be run. The worktree is gone afterwards, whatever happened.

    Args:
        reference: anything that git takes for a commit.
        python: the interpreter for the reference, where it is not this one.

    Raises:
        UsageError: the current folder is no clone of lisabench, or has no such reference.
        NothingToCompare: the reference holds no lisabench.
    """
    root = _root()
    commit = _commit(root, reference)
    with tempfile.TemporaryDirectory(prefix=f"{PACKAGE}-", ignore_cleanup_errors=True) as folder:
        base = _base(Path(folder) / "base", reference, commit, python)
        head = _head(Path(folder) / "head", root)
        try:
            _must(root, "worktree", "add", "--quiet", "--detach", str(base.tree), commit)
            for version in (base, head):
                version.make_ready()
            yield base, head
        finally:
            shutil.rmtree(base.tree, ignore_errors=True)
            _git(root, "worktree", "remove", "--force", str(base.tree))


def _base(home: Path, reference: str, commit: str, python: Path | None) -> Version:
    home.mkdir()
    source = {"reference": reference, "commit": commit}
    return Version(
        "base", f"{reference} ({commit[:10]})", home, str(python or sys.executable), source
    )


def _head(home: Path, root: Path) -> Version:
    home.mkdir()
    (home / PACKAGE).symlink_to(root)
    changed = bool(_must(root, "status", "--porcelain", "--untracked-files=no"))
    source = {"commit": _must(root, "rev-parse", "HEAD"), "changed": changed}
    return Version("head", "the working tree", home, sys.executable, source)


def _root() -> Path:
    done = _git(Path.cwd(), "rev-parse", "--show-toplevel")
    if done.returncode:
        raise UsageError(
            f"--against needs a clone of {PACKAGE} as the current folder; git says: {last_line(done.stderr)}"
        )
    root = Path(done.stdout.strip())
    if not _is_lisabench(root):
        raise UsageError(
            f"--against compares two versions of {PACKAGE} itself, and {root} is no clone of it"
        )
    return root


def _is_lisabench(tree: Path) -> bool:
    return all((tree / name).exists() for name in LANDMARKS)


def _commit(root: Path, reference: str) -> str:
    done = _git(root, "rev-parse", "--verify", "--quiet", f"{reference}^{{commit}}")
    if done.returncode:
        shallow = _git(root, "rev-parse", "--is-shallow-repository").stdout.strip() == "true"
        cure = DEEPEN if shallow else "; name a commit, a branch or a tag that git log finds here"
        raise UsageError(f"git knows no commit {reference!r}{cure}")
    return done.stdout.strip()


def _must(root: Path, *arguments: str) -> str:
    done = _git(root, *arguments)
    if done.returncode:
        raise UsageError(f"git {arguments[0]} failed: {last_line(done.stderr)}")
    return done.stdout.strip()


def _git(folder: Path, *arguments: str) -> Done:
    try:
        return subprocesses.run(
            Command(["git", "-c", f"core.hooksPath={os.devnull}", *arguments], folder)
        )[0]
    except FileNotFoundError:
        raise UsageError("--against needs git, and there is none on the PATH") from None


def last_line(text: str) -> str:
    """The last line with a word in it: there the error stands, be it of git, a traceback, or a box of the help."""
    lines = [line.strip(" │\t") for line in text.splitlines()]
    return next(
        (line for line in reversed(lines) if any(letter.isalnum() for letter in line)), "nothing"
    )
