"""A process that removes the folder of a gate when the gate has ended, even if it was killed.

It is started as a script. Its arguments are the folder and, if a worktree is in it, the worktree
and its repository. Its stdin is a pipe from the gate, which the system closes when the gate ends.
It imports nothing of ours, so that it starts at once.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

TRIES = 120
BETWEEN_TRIES_S = 0.5


def keep(folder: Path, *worktree: Path) -> None:
    """Wait until the gate has ended, then remove the folder and git's note of the worktree.

    Args:
        folder: that is removed.
        worktree: its folder, and the repository that it is of; neither if there is none.
    """
    sys.stdin.buffer.read()
    for _ in range(TRIES):
        # The files first: git would leave those that the version has made.
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            break
        time.sleep(BETWEEN_TRIES_S)  # a process of the version is still ending, and writes into it
    if worktree:
        tree, root = worktree
        git = ["git", "-C", str(root), "-c", f"core.hooksPath={os.devnull}"]
        subprocess.run([*git, "worktree", "remove", "--force", str(tree)], check=False)


if __name__ == "__main__":
    keep(*(Path(argument) for argument in sys.argv[1:]))
