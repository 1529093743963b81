"""`make bench`: what it runs, and that its figures are kept and compared."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from workflow_steps import ROOT, calls_of, stand_in

pytestmark = pytest.mark.no_clock

BIN = Path(sys.executable).parent


def test_figures_are_kept_and_compared(tmp_path):
    storage = ("--benchmark-storage", tmp_path)
    chosen = ("benchmarks/micro/test_stages.py", "-k", "tiny_on and clip-preprocess")
    command = [
        sys.executable,
        "-m",
        "pytest",
        *chosen,
        "--benchmark-only",
        "--benchmark-save=mine",
        *storage,
    ]
    # pytest-benchmark measures nothing where pytest-xdist is at work, which it tells by these
    # variables.
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run([*map(str, command)], cwd=ROOT, env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    compare = [
        BIN / "pytest-benchmark",
        "--storage",
        tmp_path,
        "compare",
        "*mine",
        "--csv",
        tmp_path / "out.csv",
    ]
    done = subprocess.run([*map(str, compare)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "test_tiny_on_the_cpu[clip-preprocess]" in (tmp_path / "out.csv").read_text()


@pytest.mark.parametrize(
    ("given", "expected"),
    [((), []), (("SAVE=mine",), ["--benchmark-save=mine"])],
    ids=["shown", "kept"],
)
def test_make_bench_keeps_figures_under_a_name_that_it_is_given(tmp_path, given, expected):
    calls = stand_in(tmp_path / ".venv" / "bin", "python")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / ".venv" / ".installed").touch()
    subprocess.run(["make", "bench", *given], cwd=tmp_path, check=True, capture_output=True)
    assert calls_of(calls) == [["-m", "pytest", "benchmarks/micro", "--benchmark-only", *expected]]
