"""Adapters that are named by their file: ``adapter: path/file.py``.

The file defines ``build(case, probe)``, as the module of any other adapter does. It stands alone:
what it imports must be installed or on PYTHONPATH. The folder that it lies in is not searched, so
that files of one name in two folders are never mistaken for each other.
"""

import hashlib
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from ..harness.errors import RunFailed, UsageError
from ..harness.input_file import read_whole
from ..harness.paths import user_path

SUFFIX = ".py"
BUILD = "build"
# The gate measures an older version from a worktree, and sets this variable to a list in JSON: the
# repository, and the worktree. What lies in the repository is then read from the worktree.
MOVED = "LISABENCH_MOVED_REPOSITORY"


@dataclass(frozen=True)
class LoadedFile:
    """A file that was run as a module.

    Attributes:
        module: what it defines.
        sha256: of its bytes.
    """

    module: ModuleType
    sha256: str


_loaded: dict[Path, LoadedFile] = {}


class NoSuchFileError(UsageError):
    """An adapter is named by a file that is not there."""


def is_file(name: str) -> bool:
    """Return whether an adapter is named by its file."""
    return name.endswith(SUFFIX)


def load(name: str) -> LoadedFile:
    """Run a file as a module, unless these bytes of it have been run in this process.

    Args:
        name: the path, from the current folder.

    Raises:
        Exception: whatever reading or running it raises.
    """
    path = place(name)
    source = read_whole(path)
    sha256 = hashlib.sha256(source).hexdigest()
    known = _loaded.get(path)
    if known is not None and known.sha256 == sha256:
        return known
    module = ModuleType(_module_name(path))
    module.__file__ = str(path)
    # Before it is run: dataclasses look for the module that they are defined in.
    sys.modules[module.__name__] = module
    # Not by an import, which reads the file for itself, and writes __pycache__ beside it.
    exec(compile(source, str(path), "exec"), module.__dict__)
    _loaded[path] = LoadedFile(module, sha256)
    return _loaded[path]


def sha256_of(name: str) -> str | None:
    """Return the SHA-256 of a file without running it; None if it cannot be read."""
    try:
        return hashlib.sha256(read_whole(place(name))).hexdigest()
    except (NoSuchFileError, OSError):
        return None


def moved(repository: Path, worktree: Path) -> dict[str, str]:
    """Return variables with which a process reads a repository's files from a worktree."""
    return {MOVED: json.dumps([str(repository.resolve()), str(worktree)])}


def import_from_worktree() -> None:
    """Have modules of a repository that was moved imported from its worktree.

    An editable installation or PYTHONPATH has put the repository's folders on `sys.path`.
    """
    if MOVED in os.environ:
        repository, worktree = _repository_and_worktree()
        for number, entry in enumerate(sys.path):
            path = Path(entry).resolve()
            if is_source(path, repository):
                sys.path[number] = str(worktree / path.relative_to(repository))


def refuse_modules_of_repository() -> None:
    """Check that nothing was imported from a repository that was moved.

    The hooks that some packages install for their editable form find a package wherever `sys.path`
    points to. Two versions with such a package would run the same files.

    Raises:
        RunFailed: a module was.
    """
    if MOVED not in os.environ:
        return
    repository, _ = _repository_and_worktree()
    own_package = Path(__file__).resolve().parents[1]
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file is None:
            continue
        path = Path(file).resolve()
        # lisabench measures both versions, wherever it lies. Some modules name no file that there
        # is: torch.ops says "_ops.py", which resolves to the current folder.
        is_foreign = is_source(path, repository) and not path.is_relative_to(own_package)
        if is_foreign and path.is_file():
            raise RunFailed(
                f"module {name} is imported from the working tree, {path}: the other version has "
                "none of its own"
            )


def is_source(path: Path, repository: Path) -> bool:
    """Return whether a path is of a repository, and not of an environment that lies in it."""
    return path.is_relative_to(repository) and not path.is_relative_to(Path(sys.prefix).resolve())


def _repository_and_worktree() -> tuple[Path, Path]:
    repository, worktree = json.loads(os.environ[MOVED])
    return Path(repository), Path(worktree)


def place(name: str) -> Path:
    """Return where a file is read from.

    Raises:
        NoSuchFileError: it is not there, or is no file, such as a folder or a pipe.
    """
    try:
        path = user_path(name).resolve()
    except UsageError as error:
        raise NoSuchFileError(str(error)) from error
    if MOVED in os.environ:
        repository, worktree = _repository_and_worktree()
        if path.is_relative_to(repository):
            path = worktree / path.relative_to(repository)
    if not path.is_file():
        raise NoSuchFileError(f"there is no file {path}")
    return path


def _module_name(path: Path) -> str:
    """Return a name that no other file has, and that every process gives to this one.

    Objects of its classes are sent between processes, and name the module.
    """
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()
    stem = re.sub(r"\W", "_", path.stem)
    return f"lisabench_adapter_{stem}_{digest[:12]}"
