"""Two versions of lisabench: the working tree, and a git reference in a worktree beside it.

Each is started through its own command line. A folder that holds it under the name ``lisabench``
stands first on its PYTHONPATH, so that neither an installed version nor one in the current folder
is imported instead. Before anything is measured, each version is checked to import its own files.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ...harness.errors import NothingToCompare, RunFailed, UsageError
from ...models import adapter_files
from .. import subprocesses
from ..subprocesses import Command, Done

PACKAGE = "lisabench"
ROOMS = ("harness", "models", "datasets", "reports", "benchmarks")
LANDMARKS = ("__init__.py", "cli.py", "benchmarks/suites")  # every version has these
PRINT_IMPORTED_FILE = f"import {PACKAGE}; print({PACKAGE}.__file__)"


@dataclass(frozen=True)
class Version:
    """One version, and how it is started.

    Attributes:
        name: ``base`` or ``head``.
        label: what messages call it.
        home: the folder that holds its files as ``lisabench``.
        python: the interpreter of its environment.
        source: where it is from, as ``run.json`` says it.
        worktree_of: the repository that its files are a worktree of: where a suite names a file of
            the repository as an adapter, this version has its own. None for the repository itself.
    """

    name: str
    label: str
    home: Path
    python: str
    source: dict[str, Any]
    worktree_of: Path | None = None

    @property
    def tree(self) -> Path:
        """The folder of its files."""
        return self.home / PACKAGE

    @cached_property
    def capabilities(self) -> frozenset[str]:
        """What it says that it can do; see `benchmarks.capabilities`.

        A version from before ``doctor --json`` listed them has none. Such a version can be measured
        alone, with a memory pass in every process.
        """
        done = self.run("doctor", "--json")
        try:
            report = json.loads(done.stdout)
        except json.JSONDecodeError:
            return frozenset()
        if not isinstance(report, dict):  # older versions print a list of checks
            return frozenset()
        return frozenset(report.get("capabilities", ()))

    def run(self, *arguments: str | Path) -> Done:
        """Run its command line in the current folder."""
        return self._start(self.command(*arguments))

    def command(self, *arguments: str | Path) -> Command:
        """Return its command line with some arguments, to be run."""
        return self._python("-m", f"{PACKAGE}.cli", *arguments)

    def prepare(self) -> None:
        """Compile its files, and check that it imports them.

        Python compiles a file when it first imports it, which would make the first process of a
        version slower than the others.

        Raises:
            NothingToCompare: there is no lisabench in it.
            RunFailed: its Python imports another one, or none.
        """
        if not _is_lisabench(self.tree):
            raise NothingToCompare(
                f"{self.label} holds no lisabench that could be run; name a later reference"
            )
        rooms = [self.tree / room for room in ROOMS]
        self._start(self._python("-m", "compileall", "-q", "-l", self.tree))
        self._start(self._python("-m", "compileall", "-q", *rooms))
        done = self._start(self._python("-c", PRINT_IMPORTED_FILE))
        imported = done.stdout.strip()
        expected = self.tree / "__init__.py"
        if not imported or Path(imported).resolve() != expected.resolve():
            raise RunFailed(
                f"{self.python} does not import {PACKAGE} from {self.label}; it prints: "
                f"{imported or last_line(done.stderr)}"
            )

    def _python(self, *arguments: str | Path) -> Command:
        paths = [str(self.home)]
        if os.environ.get("PYTHONPATH"):
            paths.append(os.environ["PYTHONPATH"])
        # PYTHONSAFEPATH keeps Python from putting the current folder first.
        variables = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}
        if self.worktree_of is not None:
            variables |= adapter_files.moved(self.worktree_of, self.tree)
        line = [self.python, *(str(argument) for argument in arguments)]
        return Command(line, Path.cwd(), variables)

    def _start(self, command: Command) -> Done:
        try:
            return subprocesses.run(command)[0]
        except OSError as error:
            raise UsageError(
                f"cannot start {self.python}: {error.strerror}; "
                "--against-python must be the Python of an environment"
            ) from error


@contextmanager
def checked_out(reference: str, python: Path | None) -> Iterator[tuple[Version, Version]]:
    """Yield the reference and the working tree, ready to be run; remove the worktree afterwards.

    Args:
        reference: anything that git takes for a commit.
        python: the interpreter for the reference; None: this one.

    Raises:
        UsageError: the current folder is no clone of lisabench, or has no such reference.
        NothingToCompare: the reference holds no lisabench.
    """
    root = _repository()
    commit = _commit_of(root, reference)
    folder = Path(tempfile.mkdtemp(prefix=f"{PACKAGE}-"))
    base_home, head_home = folder / "base", folder / "head"
    with _kept(folder, base_home / PACKAGE, root):
        base_home.mkdir()
        head_home.mkdir()
        base = Version(
            name="base",
            label=f"{reference} ({commit[:10]})",
            home=base_home,
            python=str(python or sys.executable),
            source={"reference": reference, "commit": commit},
            worktree_of=root,
        )
        (head_home / PACKAGE).symlink_to(root)
        is_changed = bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
        head = Version(
            name="head",
            label="the working tree",
            home=head_home,
            python=sys.executable,
            source={"commit": _git(root, "rev-parse", "HEAD"), "changed": is_changed},
        )
        _git(root, "worktree", "add", "--quiet", "--detach", str(base.tree), commit)
        base.prepare()
        head.prepare()
        yield base, head


@contextmanager
def _kept(folder: Path, tree: Path, root: Path) -> Iterator[None]:
    """Have a folder, and the worktree in it, removed at the end of the block.

    A process of its own does that, so that it is done when this one is killed, too.
    """
    script = Path(__file__).with_name("worktree_keeper.py")
    keeper = subprocess.Popen(
        [sys.executable, "-I", str(script), str(folder), str(tree), str(root)],
        env=subprocesses.without_git_variables(),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # an interrupt from the keyboard does not meet it
    )
    try:
        yield
    finally:
        keeper.communicate()


def _repository() -> Path:
    """Return the root of the clone of lisabench that the current folder is in."""
    done = _run_git(Path.cwd(), "rev-parse", "--show-toplevel")
    if done.returncode:
        reason = last_line(done.stderr)
        raise UsageError(
            f"--against needs a clone of {PACKAGE} as the current folder; git says: {reason}"
        )
    root = Path(done.stdout.strip())
    if not _is_lisabench(root):
        raise UsageError(
            f"--against compares two versions of {PACKAGE} itself, and {root} is no clone of it"
        )
    return root


def _is_lisabench(tree: Path) -> bool:
    return all((tree / name).exists() for name in LANDMARKS)


def _commit_of(root: Path, reference: str) -> str:
    done = _run_git(root, "rev-parse", "--verify", "--quiet", f"{reference}^{{commit}}")
    if done.returncode == 0:
        return done.stdout.strip()
    is_shallow = _run_git(root, "rev-parse", "--is-shallow-repository").stdout.strip() == "true"
    if is_shallow:
        cure = (
            "this clone is shallow: run git fetch --unshallow, or in a workflow use "
            "actions/checkout with fetch-depth: 0"
        )
    else:
        cure = "name a commit, a branch or a tag that git log finds here"
    raise UsageError(f"git knows no commit {reference!r}; {cure}")


def _git(root: Path, *arguments: str) -> str:
    """Run git and return what it prints.

    Raises:
        UsageError: it failed.
    """
    done = _run_git(root, *arguments)
    if done.returncode:
        raise UsageError(f"git {arguments[0]} failed: {last_line(done.stderr)}")
    return done.stdout.strip()


def _run_git(folder: Path, *arguments: str) -> Done:
    # The repository's hooks are for its own work, and may fail in a worktree.
    line = ["git", "-c", f"core.hooksPath={os.devnull}", *arguments]
    try:
        return subprocesses.run(Command(line, folder))[0]
    except FileNotFoundError:
        raise UsageError("--against needs git, and there is none on the PATH") from None


def last_line(text: str) -> str:
    """Return the last line with a letter or digit: there git, Python and typer say the error."""
    for line in reversed(text.splitlines()):
        stripped = line.strip(" │\t")  # the frame of an error that typer prints
        if any(character.isalnum() for character in stripped):
            return stripped
    return "nothing"
