"""The packages of a repository: each version of a gate imports its own.

The working tree is measured as this environment imports it, so its packages must be editable
installations. Those of the other version are installed into a folder that stands first on its
PYTHONPATH, so that its modules and entry points are found before those of the working tree. What
they depend on is shared.
"""

import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

from ...harness.errors import NothingToCompare, RunFailed, UsageError
from ...models import adapter_files
from ..subprocesses import last_line
from .versions import PACKAGE, Version, Worktree

# pip and the build that it starts end with the gate, also when that is killed.
PIP = """
import runpy
from lisabench.benchmarks.subprocesses import end_with_parent
end_with_parent(with_group=True)
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""
INSTALL = ("install", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps")
# What the build needs is taken from the environment if it is there, so that nothing is downloaded.
# Otherwise pip builds in an environment of its own, which is what it does by default.
WAYS_TO_BUILD = (("--no-build-isolation",), ())
END_OF_OUTPUT = "[end of output]"  # pip's, after what a build has written
ERROR = "ERROR: "
MODULE_SUFFIXES = (".py", ".so", ".pyd")


def folders_of(root: Path) -> list[Path]:
    """Return the folders of a repository that this environment has a package installed from.

    Installers note the folder, for an editable installation and for a copy.
    Source: https://packaging.python.org/en/latest/specifications/direct-url

    Returns:
        The folders from the repository's root, sorted.
    """
    folders = set()
    for distribution in importlib.metadata.distributions():
        if distribution.name == PACKAGE:  # it measures both versions, wherever it lies
            continue
        origin = json.loads(distribution.read_text("direct_url.json") or "{}")
        url = urlparse(origin.get("url", ""))
        if url.scheme != "file":
            continue
        folder = Path(url2pathname(url.path)).resolve()
        if adapter_files.is_source(folder, root):
            folders.add(folder.relative_to(root))
    return sorted(folders)


def keep_apart(base: Version, head: Version) -> None:
    """Have each version import the packages of the repository from its own files.

    Those of base are installed from its worktree.

    Args:
        base: a version with a worktree.
        head: the working tree.

    Raises:
        UsageError: there is no pip, or this environment does not import the working tree.
        NothingToCompare: a package cannot be installed from the worktree.
        RunFailed: base imports something else all the same.
    """
    worktree = base.worktree
    if worktree is None:
        raise ValueError(f"{base.label} has no worktree")
    folders = folders_of(worktree.repository)
    if folders:
        modules = _install(base, worktree, folders)
        _check_imports(base, head, modules, worktree.repository)


def _install(version: Version, worktree: Worktree, folders: Sequence[Path]) -> list[str]:
    """Install packages from a worktree into a version's home; return their top-level modules.

    Raises:
        UsageError: there is no pip.
        NothingToCompare: one of them cannot be installed, or is not there.
    """
    if version.places(["pip"])["pip"] is None:
        raise UsageError(
            f"--against installs the package of {version.label} with pip, and {version.python} "
            f"has none; run: {version.python} -m ensurepip"
        )
    # In the folder that is removed afterwards, whatever becomes of pip.
    temporary = worktree.folder.with_name("pip")
    temporary.mkdir()
    for folder in folders:
        source = worktree.folder / folder
        if not source.is_dir():
            raise NothingToCompare(f"{version.label} has no folder {folder} with a package")
        _pip_install(version, source, temporary)
    modules = _modules_in(version.home)
    if not modules:
        raise NothingToCompare(f"the package of {version.label} has no module")
    return modules


def _pip_install(version: Version, source: Path, temporary: Path) -> None:
    reasons = []
    for way in WAYS_TO_BUILD:
        arguments = (*INSTALL, *way, "--target", version.home, source)
        done = version.run_python("-c", PIP, *arguments, TMPDIR=str(temporary))
        if done.returncode == 0:
            return
        reasons.append(_why_pip_failed(done.stderr))
    why = "; and with build isolation: ".join(dict.fromkeys(reasons))
    raise NothingToCompare(f"pip cannot install the package of {version.label}: {why}")


def _modules_in(home: Path) -> list[str]:
    """Return the top-level modules that pip has installed into a folder."""
    modules = set()
    for distribution in importlib.metadata.distributions(path=[str(home)]):
        for file in distribution.files or ():
            name = file.parts[0].partition(".")[0]
            if file.suffix in MODULE_SUFFIXES and name.isidentifier():
                modules.add(name)
    return sorted(modules)


def _why_pip_failed(stderr: str) -> str:
    """Return the line that says why: the last one of the build, or else pip's first error."""
    before, is_of_build, _ = stderr.partition(END_OF_OUTPUT)
    if is_of_build:
        return last_line(before).removeprefix(ERROR)
    for line in stderr.splitlines():
        # A traceback of pip's own ends with the exception.
        if line.startswith(ERROR) and "Exception:" not in line:
            return line.removeprefix(ERROR)
    return last_line(stderr)


def _check_imports(base: Version, head: Version, modules: Sequence[str], root: Path) -> None:
    """Check that each version imports modules from its own files, and compile the working tree's.

    Raises:
        RunFailed: base imports one from elsewhere.
        UsageError: this environment imports one that is not the working tree's.
    """
    for name, place in base.places(modules).items():
        if place is None or not place.is_relative_to(base.home.resolve()):
            raise RunFailed(
                f"{base.label} does not import its own {name}, but {place}: something in the "
                "environment comes before PYTHONPATH"
            )
    for name, place in head.places(modules).items():
        if place is None:  # the working tree has no such module any more
            continue
        if not adapter_files.is_source(place, root):
            raise UsageError(
                f"{name} is imported from {place}, which is a copy and not the working tree; "
                f"install it with: {head.python} -m pip install --no-deps --editable FOLDER"
            )
        # pip has compiled the other version's.
        is_folder = place.name == "__init__.py"
        head.run_python("-m", "compileall", "-q", place.parent if is_folder else place)
