"""`make bench`: what it runs, and that its figures are kept and compared."""

import subprocess
import sys

import pytest
from forked_pytest import pytest_in_fork
from workflow_steps import ROOT, calls_of, stand_in

pytestmark = pytest.mark.no_clock


def test_figures_are_kept_and_compared(tmp_path):
    chosen = ("benchmarks/micro/test_stages.py", "-k", "tiny_on and clip-preprocess")
    kept = ("--benchmark-only", "--benchmark-save=mine", f"--benchmark-storage={tmp_path}")
    done, output = pytest_in_fork(*chosen, *kept, output=tmp_path / "output.txt")
    assert done == 0, output
    comparing = ("--storage", tmp_path, "compare", "*mine", "--csv", tmp_path / "out.csv")
    compare = [sys.executable, "-m", "pytest_benchmark", *comparing]
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
