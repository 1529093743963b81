"""Git, as the gate needs it: the repository around the current folder, and its commits."""

import os
from pathlib import Path

from ...harness.errors import UsageError
from .. import subprocesses
from ..subprocesses import Command, Done, last_line


def repository() -> Path:
    """Return the root of the git repository that the current folder is in.

    Raises:
        UsageError: it is in none, or there is no git.
    """
    done = _run(Path.cwd(), "rev-parse", "--show-toplevel")
    if done.returncode:
        raise UsageError(
            "--against compares two versions of a git repository, and the current folder is in "
            f"none; git says: {last_line(done.stderr)}"
        )
    return Path(done.stdout.strip())


def commit_of(root: Path, reference: str) -> str:
    """Return the id of the commit that a reference names.

    Raises:
        UsageError: it names none.
    """
    done = _run(root, "rev-parse", "--verify", "--quiet", f"{reference}^{{commit}}")
    if done.returncode == 0:
        return done.stdout.strip()
    is_shallow = _run(root, "rev-parse", "--is-shallow-repository").stdout.strip() == "true"
    if is_shallow:
        cure = (
            "this clone is shallow: run git fetch --unshallow, or in a workflow use "
            "actions/checkout with fetch-depth: 0"
        )
    else:
        cure = "name a commit, a branch or a tag that git log finds here"
    raise UsageError(f"git knows no commit {reference!r}; {cure}")


def working_tree(root: Path) -> dict[str, object]:
    """Return where the working tree is from: its commit, and whether tracked files are changed."""
    is_changed = bool(git(root, "status", "--porcelain", "--untracked-files=no"))
    return {"commit": git(root, "rev-parse", "HEAD"), "changed": is_changed}


def git(root: Path, *arguments: str) -> str:
    """Run git and return what it prints.

    Raises:
        UsageError: it failed.
    """
    done = _run(root, *arguments)
    if done.returncode:
        raise UsageError(f"git {arguments[0]} failed: {last_line(done.stderr)}")
    return done.stdout.strip()


def _run(folder: Path, *arguments: str) -> Done:
    # The repository's hooks are for its own work, and may fail in a worktree.
    line = ["git", "-c", f"core.hooksPath={os.devnull}", *arguments]
    try:
        return subprocesses.run(Command(line, folder))[0]
    except FileNotFoundError:
        raise UsageError("--against needs git, and there is none on the PATH") from None
