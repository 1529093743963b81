"""Adapters of others that misbehave: each costs its own case, with a reason, and no other."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
from command import lisabench
from waiting import is_alive, until

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
    # A model for which there is no memory does not fit the machine: a result, and no failure.
    ran_out = "MemoryError" in addition
    assert done.returncode == (0 if ran_out else 5) and "Traceback" not in done.stderr
    assert MODELS[addition] in (done.stdout if ran_out else done.stderr)
    assert case_of(summary, "box")["quality"]["status"]["ok"] == 2
    assert case_of(summary, "box")["time"]["n"] == 2


# In a file: why it cannot be loaded.
IMPORTS = {
    "raise RuntimeError('not today')": "RuntimeError: not today",
    "raise GeneratorExit('I leave')": "GeneratorExit: I leave",
    "raise KeyboardInterrupt('I leave')": "KeyboardInterrupt: I leave",
    "import asyncio; raise asyncio.CancelledError": "CancelledError",
    "import sys; sys.exit(0)": "SystemExit: 0",
    "import os; os._exit(0)": "SystemExit: os._exit(0)",
    "import nowhere": "No module named 'nowhere'",
    "open('nowhere')": "No such file or directory: 'nowhere'",
    "def build(:": "SyntaxError",
    "def build(case: 'Nowhere', probe): pass": "name 'Nowhere' is not defined",
}


def write_imports(folder: Path, *further: str) -> list[str]:
    """Write a file for each import that fails, and a suite of them; return the cases' names."""
    cases = [f"broken-{number}" for number in range(len(IMPORTS))]
    lines = [SUITE.partition("cases:")[0], "cases:", *further]
    for case, content in zip(cases, IMPORTS, strict=True):
        (folder / f"{case}.py").write_text(content)
        lines.append(f"  {case}: {{adapter: ./{case}.py}}")
    (folder / "suite.yaml").write_text("\n".join(lines))
    return cases


def test_an_import_that_fails_costs_its_own_case_and_is_said_on_the_terminal(
    tmp_path, monkeypatch, data_root
):
    monkeypatch.chdir(tmp_path)
    cases = write_imports(tmp_path, "  box: {adapter: fake, clock: virtual}")
    data = ("--data", data_root, "--limit", 2)
    done = lisabench("run", "suite.yaml", *data, "--set", "box.vision_ms=9", "--out", "out")
    assert done.returncode == 5 and "Traceback" not in done.stderr
    summary = json.loads(Path("out/summary.json").read_text())
    entries = json.loads(Path("out/run.json").read_text())["cases"]
    for case, entry, reason in zip(cases, entries[1:], IMPORTS.values(), strict=True):
        assert entry["name"] == case and reason in entry["error"]
        assert f"lisabench: {case} could not be run" in done.stderr and reason in done.stderr
        assert case_of(summary, case)["quality"]["status"]["error"] == 2
    assert case_of(summary, "box")["quality"]["status"]["ok"] == 2
    assert case_of(summary, "box")["time"]["n"] == 2


def test_a_suite_of_which_no_case_can_be_loaded_is_one_line_and_no_run(
    tmp_path, monkeypatch, data_root
):
    monkeypatch.chdir(tmp_path)
    write_imports(tmp_path)
    suite = Path("suite.yaml").read_text().replace("reference: box", "reference: broken-0")
    Path("suite.yaml").write_text(suite)
    done = lisabench("run", "suite.yaml", "--data", data_root, "--out", "out")
    assert (done.returncode, done.stdout, Path("out").exists()) == (2, "", False)
    (line,) = done.stderr.splitlines()
    assert "broken-0.py" in line and "RuntimeError: not today" in line


@pytest.mark.parametrize("way", ["--resume", "a setting of all cases", "a factor"])
def test_a_suite_with_an_import_that_fails_can_be_changed_and_resumed(
    tmp_path, monkeypatch, data_root, way
):
    monkeypatch.chdir(tmp_path)
    Path("outside.py").write_text("raise RuntimeError('not today')")
    further = "  slow: {adapter: fake, clock: virtual, vision_ms: 9}\n"
    factors = "factors: {encoder: [vision_ms], decoder: [decoder_ms]}\n"
    Path("suite.yaml").write_text(SUITE + further + (factors if way == "a factor" else ""))
    words = ["run", "suite.yaml", "--data", data_root, "--limit", 2, "--out", "out"]
    if way == "--resume":
        assert lisabench(*words, "--stop-after", "1e-9").returncode == 3
        words = ["run", "--resume", "--out", "out"]
    elif way == "a setting of all cases":
        words += ["--set", "llm_ms=3"]
    assert lisabench(*words).returncode == 5
    summary = json.loads(Path("out/summary.json").read_text())
    for name in ("box", "slow"):
        assert case_of(summary, name)["quality"]["status"]["ok"] == 2
        assert case_of(summary, name)["time"]["n"] == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("build = 3", "it defines no function 'build'"),
        ("def build(case, probe): pass", "must annotate `case`"),
        (HEALTHY.replace("int = 1", "int = 1\n    def __post_init__(self): {}[9]"), "KeyError: 9"),
        (None, "there is no file"),
    ],
)
def test_a_file_that_is_no_adapter_is_one_line_and_no_run(
    tmp_path, monkeypatch, data_root, content, reason
):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("outside.py").write_text(content)
    Path("suite.yaml").write_text(SUITE)
    done = lisabench("run", "suite.yaml", "--data", data_root, "--out", "out")
    assert (done.returncode, done.stdout, Path("out").exists()) == (2, "", False)
    (line,) = done.stderr.splitlines()
    assert "outside.py" in line and reason in line


@pytest.mark.parametrize("name", ["nowhere:build", "nowhere.module:build", "fkae", "nowhere.py"])
def test_a_name_of_no_adapter_is_refused(tmp_path, monkeypatch, data_root, name):
    monkeypatch.chdir(tmp_path)
    Path("suite.yaml").write_text(SUITE.replace("./outside.py", name))
    done = lisabench("run", "suite.yaml", "--data", data_root, "--out", "out")
    assert (done.returncode, done.stdout, Path("out").exists()) == (2, "", False)
    assert name in done.stderr and done.stderr.count("\n") == 1


def test_an_interrupt_of_the_user_ends_the_command_also_while_an_adapter_is_imported(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("outside.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    done = lisabench("list", "outside.py")
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "lisabench: interrupted; what was measured is kept\n"


def test_a_child_that_an_adapter_forks_while_it_is_imported_ends(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fork = "child = os.fork()\nif not child: os._exit(3)\nended = os.waitpid(child, 0)[1]\n"
    check = "assert os.waitstatus_to_exitcode(ended) == 3\n"
    Path("outside.py").write_text(f"import os\n{fork}{check}{HEALTHY}")
    done = lisabench("list", "outside.py")
    assert (done.returncode, done.stderr) == (0, "")


STARTS_A_PROGRAM = """
    def vision(self, inputs):
        import subprocess
        program = subprocess.Popen(["sleep", "3600"])
        with open("programs", "a") as file: file.write(f"{program.pid}\\n")
"""


def test_a_program_that_an_adapter_starts_ends_with_the_run(tmp_path, monkeypatch, data_root):
    monkeypatch.chdir(tmp_path)
    before, build = HEALTHY.split("\ndef build")
    Path("outside.py").write_text(f"{before}{STARTS_A_PROGRAM}\ndef build{build}")
    Path("suite.yaml").write_text(SUITE)
    done = lisabench("run", "suite.yaml", "--data", data_root, "--limit", 2, "--out", "out")
    assert done.returncode == 0, done.stderr
    programs = [int(line) for line in Path("programs").read_text().splitlines()]
    assert programs
    until(lambda: not any(is_sleeping(program) for program in programs))


def is_sleeping(pid: int) -> bool:
    try:
        process = psutil.Process(pid)
        return process.name() == "sleep" and is_alive(process)
    except psutil.NoSuchProcess:
        return False
