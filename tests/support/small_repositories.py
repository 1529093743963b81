"""Small git repositories with adapters, and environments that they are installed in.

An environment is a virtual one that also has all that these tests run with. So nothing but the
package of a small repository is installed into it.
"""

import os
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path

import yaml
from places import ROOT
from samples import write_sample

PYPROJECT = """
[build-system]
requires = ["setuptools>=61"]
build-backend = "setuptools.build_meta"

[project]
name = "bright"
version = "1.0"
{more}
"""
REGISTERED = """
[project.entry-points."lisabench.adapters"]
bright = "bright.adapter:build"
"""
ADAPTER = """import dataclasses
from lisabench.models.adapters import fake

@dataclasses.dataclass(frozen=True)
class Case(fake.FakeCase):
    vision_ms: float = {vision_ms}

def build(case: Case, probe):
    '''Takes {vision_ms} ms.'''
    return fake.build(case, probe)
"""


def git(folder: Path, *arguments: str) -> str:
    own = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    done = subprocess.run(
        ["git", *who, *arguments], cwd=folder, env=os.environ | own, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def commit(repository: Path, files: Mapping[str, str]) -> None:
    """Write files, and make a commit of all that the working tree has."""
    write(repository, files)
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "a version")


def new_repository(folder: Path, files: Mapping[str, str]) -> Path:
    """Return a repository with one commit."""
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit(folder, {".gitignore": "*.egg-info/\nbuild/\n__pycache__/\n", **files})
    return folder


def suite(folder: Path, cases: Mapping[str, Mapping[str, object]]) -> Path:
    """Write a suite over four queries, whose times are simulated; return its file."""
    for number in range(4):
        write_sample(folder / "data" / "val", f"q{number}", seed=number)
    content = {
        "title": "t",
        "reference": next(iter(cases)),
        "data": {"root": str(folder / "data")},
        "plan": {"block": 2, "warmup": 0, "memory_queries": 1, "gallery": 0},
        "defaults": {"clock": "virtual"},
        "cases": dict(cases),
        "gate": {"peak": 0.5},
    }
    (folder / "gate.yaml").write_text(yaml.safe_dump(content))
    return folder / "gate.yaml"


def new_environment(folder: Path, without: tuple[str, ...] = ()) -> Path:
    """Make an environment, and return its Python.

    Args:
        folder: a new one.
        without: modules that it does not have.
    """
    venv.create(folder, with_pip=False)
    shared = folder / "shared"
    shared.mkdir()
    for entry in _site_folders():
        for path in entry.iterdir():
            name = path.name.partition(".")[0].partition("-")[0]
            if name not in without and path.suffix != ".pth" and not (shared / path.name).exists():
                (shared / path.name).symlink_to(path)
    if "lisabench" not in without and not (shared / "lisabench").exists():
        (shared / "lisabench").symlink_to(ROOT)
    (site_of(folder) / "shared.pth").write_text(f"{shared}\n")
    return folder / "bin" / "python"


def _site_folders() -> list[Path]:
    """Return the folders that this process has its packages from."""
    entries = [Path(entry) for entry in sys.path if entry.endswith("site-packages")]
    return [entry for entry in entries if entry.is_dir()]


def site_of(environment: Path) -> Path:
    """Return the folder of an environment that packages are installed into."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return environment / "lib" / version / "site-packages"


def pip_install(python: Path, *arguments: str | Path) -> None:
    """Install a small repository's package, without any other and without a download."""
    line = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*line, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
