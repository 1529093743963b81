"""Adapters of others that misbehave: each costs its own case, with a reason, and no other."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from command import lisabench

pytestmark = pytest.mark.no_clock

HEALTHY = """
from dataclasses import dataclass
import os, sys
import numpy as np
from lisabench.harness.contract import Prediction, Preparation

@dataclass(frozen=True)
class Case:
    fine: int = 1

class Model:
    has_quality = True
    settings = {"adapter": "outside"}
    def preprocess(self, samples): return samples
    def vision(self, inputs): pass
    def llm(self, inputs, features): pass
    def decoder(self, inputs, features, answers): pass
    def postprocess(self, inputs, answers, decoded):
        return [self.answer(np.zeros(sample.image.shape[:2], bool)) for sample in inputs]
    def answer(self, mask): return Prediction(mask)
    def close(self): pass

def build(case: Case, probe): return Model()
"""
SUITE = """
title: a baseline and an adapter of others
reference: box
plan: {processes: 1, warmup: 1, memory_processes: 1, memory_queries: 1, gallery: 0, beside: false}
cases:
  box: {adapter: fake, clock: virtual}
  outside: {adapter: ./outside.py}
"""
# In an answer: the status and the reason of its queries.
ANSWERS = {
    "def answer(self, mask): return Prediction(mask.astype(float))": (
        "error",
        "the mask has dtype float64; expected bool",
    ),
    "def answer(self, mask): return Prediction(mask[:, :3])": ("error", "the mask has shape"),
    "def answer(self, mask): return Prediction(mask, text=chr(0xDCE9))": (
        "error",
        "cannot be written as UTF-8",
    ),
    "def answer(self, mask): return Prediction(mask, predicted_iou=float('inf'))": (
        "nonfinite",
        "not finite (NaN or infinity): the predicted IoU",
    ),
    "def answer(self, mask): return Prediction(mask, prompt_tokens=-3)": (
        "error",
        "prompt_tokens is -3; expected a whole number from 0",
    ),
    "def answer(self, mask): raise GeneratorExit('I leave')": ("error", "GeneratorExit: I leave"),
    "def answer(self, mask): raise KeyboardInterrupt('I leave')": (
        "error",
        "KeyboardInterrupt: I leave",
    ),
    "def answer(self, mask): os.closerange(3, 300)": ("error", "the process ended by itself"),
    "def answer(self, mask): return None": ("error", "'NoneType' object has no attribute"),
    "def answer(self, mask): raise ValueError('two\\nlines \\x1b[31m')": (
        "error",
        "ValueError: two lines \\x1b[31m",
    ),
    "def llm(self, inputs, features): sys.exit('I leave')": ("error", "SystemExit: I leave"),
    "def llm(self, inputs, features): raise type('Odd', (Exception,), {'__str__': None})": (
        "error",
        "Odd: its message cannot be shown",
    ),
}
# In the model itself: why the case could not be run.
MODELS = {
    "settings = {'share': float('nan')}": "not JSON compliant",
    "settings = {'name': chr(0xD800)}": "can't encode character",
    "settings = {(1, 2): 3}": "keys must be str",
    "settings = None": "'NoneType' object is not iterable",
    "parameters = {'llm': float('inf')}": "cannot convert float infinity to integer",
    "preparation = Preparation(capture_s=float('nan'))": "not JSON compliant",
    "def __init__(self): sys.exit(0)": "SystemExit: 0",
    "def __init__(self): raise MemoryError('no room')": "MemoryError: no room",
}


@pytest.fixture
def run(tmp_path, data_root, monkeypatch):
    """Run the suite with something added to the model, and return the process and the summary."""
    monkeypatch.chdir(tmp_path)

    def carry_out(addition: str):
        model = HEALTHY.replace("    def close(self)", f"    {addition}\n    def close(self)")
        Path("outside.py").write_text(model)
        Path("suite.yaml").write_text(textwrap.dedent(SUITE))
        done = lisabench("run", "suite.yaml", "--data", data_root, "--limit", 2, "--out", "out")
        return done, json.loads(Path("out/summary.json").read_text())

    return carry_out


def case_of(summary, name):
    return next(case for case in summary["cases"] if case["name"] == name)


def test_the_adapter_is_measured_as_long_as_it_behaves(run):
    done, summary = run("")
    assert done.returncode == 0, done.stderr
    assert case_of(summary, "outside")["quality"]["status"]["ok"] == 2


@pytest.mark.parametrize("addition", ANSWERS)
def test_what_cannot_be_recorded_is_the_status_of_that_case_and_said_on_the_terminal(run, addition):
    status, reason = ANSWERS[addition]
    done, summary = run(addition)
    assert done.returncode == 5 and "Traceback" not in done.stderr
    assert case_of(summary, "outside")["quality"]["status"][status] == 2
    assert case_of(summary, "box")["quality"]["status"]["ok"] == 2
    said = [line for line in done.stderr.splitlines() if line.startswith("lisabench: outside")]
    assert said and reason in " ".join(said)


PRINTING = r"""
def show():
    print("::error::on stdout \x1b[31m", flush=True)
    print(":", ":error::in pieces", sep="", file=sys.stderr)
show()
class Printing(Model):
    def __init__(self): show()
    def answer(self, mask): show(); return Prediction(mask)
    def close(self): show(); raise GeneratorExit
def build(case: Case, probe): return Printing()
"""


def test_what_an_adapter_prints_is_no_output_of_the_command_and_nothing_in_it_acts(
    tmp_path, data_root
):
    (tmp_path / "outside.py").write_text(HEALTHY + PRINTING)
    (tmp_path / "suite.yaml").write_text(SUITE)
    command = [sys.executable, "-m", "lisabench", "run", "suite.yaml", "--data", data_root]
    done = subprocess.run(
        [*command, "--limit", "2", "--out", "out"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stdout
    assert "on stdout \\x1b[31m" in done.stderr and "in pieces" in done.stderr
    assert "\x1b[31m" not in done.stderr and "Traceback" not in done.stderr
    assert not [line for line in done.stderr.splitlines() if line.strip().startswith("::")]


@pytest.mark.parametrize("addition", MODELS)
def test_a_model_that_cannot_be_described_costs_its_own_case(run, addition):
    done, summary = run(addition)
    assert done.returncode == 5 and "Traceback" not in done.stderr
    assert MODELS[addition] in done.stderr
    assert case_of(summary, "box")["quality"]["status"]["ok"] == 2
    assert case_of(summary, "box")["time"]["n"] == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("raise RuntimeError('not today')", "RuntimeError: not today"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("import nowhere", "No module named 'nowhere'"),
        ("build = 3", "it defines no function 'build'"),
        ("def build(case: 'Nowhere', probe): pass", "name 'Nowhere' is not defined"),
        (HEALTHY.replace("int = 1", "int = 1\n    def __post_init__(self): {}[9]"), "KeyError: 9"),
    ],
)
def test_an_adapter_that_cannot_be_loaded_is_one_line_and_no_run(
    tmp_path, monkeypatch, data_root, content, reason
):
    monkeypatch.chdir(tmp_path)
    Path("outside.py").write_text(content)
    Path("suite.yaml").write_text(SUITE)
    done = lisabench("run", "suite.yaml", "--data", data_root, "--out", "out")
    assert (done.returncode, done.stdout, Path("out").exists()) == (2, "", False)
    (line,) = done.stderr.splitlines()
    assert "outside.py" in line and reason in line
