"""A version that a gate measures: code and an environment, and how its commands are started.

Each version is started through its own command line. A folder that holds lisabench, and whatever
else is the version's own, stands first on its PYTHONPATH. So neither an installed package nor one
in the current folder is imported instead. Before anything is measured, each version is checked to
import its own files. Where the two versions of a gate come from is in `sides`.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ...harness.errors import NothingToCompare, RunFailed, UsageError
from ...models import adapter_files
from .. import subprocesses
from ..subprocesses import Command, Done, last_line

PACKAGE = "lisabench"
ROOMS = ("harness", "models", "datasets", "reports", "benchmarks")
LANDMARKS = ("__init__.py", "cli.py", "benchmarks/suites")  # every version has these
# Prints where top-level modules would be imported from, without importing them.
PRINT_PLACES = """
import importlib.util, json, sys
places = {}
for name in sys.argv[1:]:
    spec = importlib.util.find_spec(name)
    # A folder without an __init__.py has no origin.
    places[name] = spec and (spec.origin or list(spec.submodule_search_locations)[0])
print(json.dumps(places))
"""


@dataclass(frozen=True)
class Worktree:
    """A commit of a repository, checked out into another folder.

    Attributes:
        repository: its root.
        folder: that the commit is checked out into.
    """

    repository: Path
    folder: Path


@dataclass(frozen=True)
class Version:
    """One version, and how it is started.

    Attributes:
        name: ``base`` or ``head``.
        label: what messages call it.
        home: the folder that stands first on its PYTHONPATH, and holds ``lisabench``.
        python: the interpreter of its environment.
        source: where it is from, as ``run.json`` says it.
        worktree: that it is read from: where a suite names a file of the repository as an adapter,
            this version has its own. None if it is read from the repository itself.
    """

    name: str
    label: str
    home: Path
    python: str
    source: dict[str, Any]
    worktree: Worktree | None = None

    @property
    def tree(self) -> Path:
        """The folder of its lisabench."""
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

    def run_python(self, *arguments: str | Path, **variables: str) -> Done:
        """Run its Python in the current folder.

        Args:
            arguments: of Python.
            variables: environment variables, besides those of every command of this version.
        """
        return self._start(self._python(*arguments, **variables))

    def prepare(self) -> None:
        """Compile its lisabench, and check that it imports it.

        Python compiles a file when it first imports it, which would make the first process of a
        version slower than the others.

        Raises:
            NothingToCompare: there is no lisabench in it.
            RunFailed: its Python imports another one, or none.
        """
        if not is_lisabench(self.tree):
            raise NothingToCompare(
                f"{self.label} holds no lisabench that could be run; name a later reference"
            )
        rooms = [self.tree / room for room in ROOMS]
        self.run_python("-m", "compileall", "-q", "-l", self.tree)
        self.run_python("-m", "compileall", "-q", *rooms)
        imported = self.places([PACKAGE])[PACKAGE]
        if imported != (self.tree / "__init__.py").resolve():
            raise RunFailed(
                f"{self.python} does not import {PACKAGE} from {self.label}; it imports "
                f"{imported or 'none'}"
            )

    def places(self, modules: Sequence[str]) -> Mapping[str, Path | None]:
        """Return where its Python would import some top-level modules from; None: from nowhere.

        Raises:
            RunFailed: its Python does not say it.
        """
        done = self.run_python("-c", PRINT_PLACES, *modules)
        if done.returncode:
            raise RunFailed(f"{self.python} fails: {last_line(done.stderr)}")
        try:
            places = json.loads(done.stdout)
        except json.JSONDecodeError as error:
            raise UsageError(f"{self.python} is no Python; it prints: {done.stdout}") from error
        return {name: place and Path(place).resolve() for name, place in places.items()}

    def _python(self, *arguments: str | Path, **variables: str) -> Command:
        paths = [str(self.home)]
        if os.environ.get("PYTHONPATH"):
            paths.append(os.environ["PYTHONPATH"])
        # PYTHONSAFEPATH keeps Python from putting the current folder first.
        own = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}
        if self.worktree is not None:
            own |= adapter_files.moved(self.worktree.repository, self.worktree.folder)
        line = [self.python, *(str(argument) for argument in arguments)]
        return Command(line, Path.cwd(), own | variables)

    def _start(self, command: Command) -> Done:
        try:
            return subprocesses.run(command)[0]
        except OSError as error:
            raise UsageError(
                f"cannot start {self.python}: {error.strerror}; "
                "--against-python must be the Python of an environment"
            ) from error


def is_lisabench(tree: Path) -> bool:
    """Return whether a folder holds the files of lisabench."""
    return all((tree / name).exists() for name in LANDMARKS)
