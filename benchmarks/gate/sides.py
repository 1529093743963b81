"""The two versions that a gate measures, and where they come from.

a clone of lisabench          two versions of lisabench itself
any other git repository      two versions of it, both measured by this lisabench
no reference, another Python  one code in two environments
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from ...harness.errors import UsageError
from ...models import adapter_files, registry
from .. import subprocesses, suite_file
from . import git, packages
from .versions import PACKAGE, Version, Worktree, is_lisabench

# The folder of the lisabench that runs this.
OWN_TREE = Path(__file__).parents[2]
WORKTREE = "worktree"
# The modules that lisabench depends on, but for those that only some platforms have.
NEEDED = (
    "PIL", "accelerate", "cv2", "filelock", "huggingface_hub", "jinja2", "matplotlib", "numpy",
    "pandas", "peft", "psutil", "pydantic", "pynvml", "rich", "safetensors", "scipy",
    "sentencepiece", "tokenizers", "torch", "transformers", "typer", "typing_extensions", "yaml",
)  # fmt: skip

Versions = tuple[Version, Version]


def sides(
    reference: str | None, python: Path | None, suite: str, changes: Mapping[str, Any]
) -> AbstractContextManager[Versions]:
    """Return a context with the two versions, base and head, ready to be run.

    Args:
        reference: anything that git takes for a commit of the repository that the current folder is
            in; None: the same code in two environments.
        python: the interpreter for base; None: this one.
        suite: name or file of the suite that they are measured with.
        changes: of the suite, by key.

    Raises:
        UsageError: there are no two versions that this suite could compare.
    """
    if reference is None:
        if python is None:
            raise UsageError("give --against REF, --against-python PYTHON, or both")
        return two_environments(python)
    root = git.repository()
    if not is_lisabench(root):
        _refuse_unmeasured(root, suite, changes)
    return checked_out(reference, python)


@contextmanager
def checked_out(reference: str, python: Path | None) -> Iterator[Versions]:
    """Yield a commit and the working tree; remove the worktree of the commit afterwards.

    In a clone of lisabench each version is measured by itself, in any other repository both are by
    the lisabench that runs this.

    Args:
        reference: of the repository that the current folder is in.
        python: the interpreter for the reference; None: this one.

    Raises:
        UsageError: there is no repository or no such reference, or an environment lacks something.
        NothingToCompare: the reference holds no lisabench, or its package cannot be installed.
        RunFailed: a version imports files that are not its own.
    """
    root = git.repository()
    commit = git.commit_of(root, reference)
    with _temporary_folder(root) as folder:
        worktree = Worktree(root, folder / WORKTREE)
        git.git(root, "worktree", "add", "--quiet", "--detach", str(worktree.folder), commit)
        of_lisabench = is_lisabench(root)
        base = Version(
            name="base",
            label=f"{reference} ({commit[:10]})",
            home=_home(folder / "base", worktree.folder if of_lisabench else OWN_TREE),
            python=str(python or sys.executable),
            source={"reference": reference, "commit": commit},
            worktree=worktree,
        )
        head = Version(
            name="head",
            label="the working tree",
            home=_home(folder / "head", root if of_lisabench else OWN_TREE),
            python=sys.executable,
            source=git.working_tree(root),
        )
        _check_environment(base)
        base.prepare()
        head.prepare()
        if not of_lisabench:
            packages.keep_apart(base, head)
        yield base, head


@contextmanager
def two_environments(python: Path) -> Iterator[Versions]:
    """Yield the lisabench that runs this in another environment, and in this one.

    Args:
        python: the interpreter of the other environment.

    Raises:
        UsageError: it cannot run lisabench.
    """
    with _temporary_folder() as folder:
        base = Version(
            name="base",
            label=f"the environment of {python}",
            home=_home(folder / "base", OWN_TREE),
            python=str(python),
            source={"python": str(python)},
        )
        head = Version(
            name="head",
            label="this environment",
            home=_home(folder / "head", OWN_TREE),
            python=sys.executable,
            source={"python": sys.executable},
        )
        _check_environment(base)
        base.prepare()
        head.prepare()
        yield base, head


def _home(folder: Path, tree: Path) -> Path:
    """Make a folder that holds a lisabench, by a link, and return it."""
    folder.mkdir()
    (folder / PACKAGE).symlink_to(tree)
    return folder


def _check_environment(version: Version) -> None:
    """Check that the environment of a version has what lisabench needs.

    Raises:
        UsageError: it lacks something.
    """
    places = version.places(NEEDED)
    missing = [name for name in NEEDED if places[name] is None]
    if missing:
        raise UsageError(
            f"{version.python} cannot run {PACKAGE}: it has no {', '.join(missing)}; "
            f"run: {version.python} -m pip install {_to_be_installed()}"
        )


def _to_be_installed() -> str:
    """Return what pip installs this lisabench from: a clone of it, or the package index."""
    if (OWN_TREE / "pyproject.toml").exists():
        return str(OWN_TREE.resolve())
    return PACKAGE


def _refuse_unmeasured(root: Path, suite: str, changes: Mapping[str, Any]) -> None:
    """Check that a suite measures something of a repository.

    Otherwise the two versions would be one, and the gate would hold whatever was changed.

    Raises:
        UsageError: it measures nothing of it, or is no suite that could be run.
    """
    has_packages = bool(packages.folders_of(root))
    for case in suite_file.load(suite, changes).models:
        if case.adapter in registry.ADAPTERS:
            continue
        # An adapter from elsewhere may use a package of the repository.
        if has_packages:
            return
        if case.load_error is not None and not adapter_files.is_file(case.adapter):
            continue  # where a module lies is known only once it is imported
        path = registry.file_of(case.adapter)
        if path is not None and adapter_files.is_source(path.resolve(), root):
            return
    raise UsageError(
        f"no case of {suite} has an adapter of the repository {root}, so there is nothing to "
        "compare: give adapter: path/file.py or module:build, or install its package "
        "(pip install --editable) and name what that registers under lisabench.adapters"
    )


@contextmanager
def _temporary_folder(root: Path | None = None) -> Iterator[Path]:
    """Yield a new folder; remove it at the end of the block, with the worktree of a repository.

    A process of its own does that, so that it is done when this one is killed, too.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"{PACKAGE}-"))
    script = Path(__file__).with_name("worktree_keeper.py")
    worktree = [] if root is None else [str(folder / WORKTREE), str(root)]
    keeper = subprocess.Popen(
        [sys.executable, "-I", str(script), str(folder), *worktree],
        env=subprocesses.without_git_variables(),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # an interrupt from the keyboard does not meet it
    )
    try:
        yield folder
    finally:
        keeper.communicate()
