"""A git repository with this package alone, in which a gate can be held."""

import compileall
import os
import shutil
import subprocess
from pathlib import Path

from places import ROOT

ROOMS = ("harness", "models", "datasets", "reports", "benchmarks")


def git(folder: Path, *arguments: str) -> str:
    """Run git without the settings of whoever runs the tests, and return what it prints."""
    known = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    done = subprocess.run(
        ["git", *who, *arguments],
        cwd=folder,
        env=os.environ | known,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def commit(repository: Path) -> None:
    """Commit everything in a repository."""
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "a version")


def write_clone(repository: Path) -> Path:
    """Write a repository with one commit, and compile its files, as where it was run before."""
    for room in ROOMS:
        large = shutil.ignore_patterns("__pycache__", "published", "tiny")  # fakes need no weights
        shutil.copytree(ROOT / room, repository / room, ignore=large)
    for name in ("__init__.py", "cli.py", ".gitignore"):
        shutil.copyfile(ROOT / name, repository / name)
    git(repository, "init", "--quiet", "--initial-branch=main")
    commit(repository)
    compileall.compile_dir(repository, quiet=1)
    return repository
