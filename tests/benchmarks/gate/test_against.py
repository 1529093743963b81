"""`lisabench run --against`, in a small git repository that holds this package.

It has one commit, and a working tree.
"""

import compileall
import hashlib
import inspect
import json
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import psutil
import pytest
import yaml
from command import lisabench
from made_once import shared_folder
from raw_runs import raw_run
from run_factory import row_by_row
from samples import write_sample
from side_by_side import command, environment, lisabench_in
from small_clone import commit, git, write_clone
from spoiled_disk import disk_of, spoiled
from waiting import until

from lisabench.benchmarks import subprocesses
from lisabench.benchmarks.capabilities import (
    LOCKSTEP,
    RUN_WITHOUT_MEMORY_PASS,
    SHARED_MACHINE,
)
from lisabench.benchmarks.gate import against as against_module
from lisabench.benchmarks.gate import pairs
from lisabench.benchmarks.gate.remeasure import definition_of
from lisabench.benchmarks.gate.sides import checked_out
from lisabench.benchmarks.gate.versions import Version
from lisabench.benchmarks.run import lockstep
from lisabench.benchmarks.subprocesses import Done
from lisabench.benchmarks.suite_file import load, shipped_names

pytestmark = pytest.mark.no_clock

PLAN = {"block": 3, "warmup": 0, "memory_queries": 1, "gallery": 0}
FAKE = {"adapter": "fake", "clock": "virtual"}
TWO_PAIRS = ["1-base", "1-head", "2-base", "2-head"]
SLOWER = ("models/adapters/fake.py", "* 1e6 * self._factor", "* 1.1e6 * self._factor")


def edit(repository, name, before, after):
    text = (repository / name).read_text()
    assert text.count(before) == 1
    (repository / name).write_text(text.replace(before, after))


def suite_of(folder, name="s.yaml", cases=None, **more):
    """A suite over six queries beside the repository; returns its file."""
    data = folder / "data"
    if not data.exists():
        for i in range(6):
            write_sample(data / "val", f"q{i}", seed=i)
    cases = cases or {"a": FAKE, "b": FAKE}
    content = {
        "title": "t",
        "reference": next(iter(cases)),
        "data": {"root": str(data)},
        "plan": PLAN,
        "cases": cases,
    }
    (folder / name).write_text(yaml.safe_dump(content | more))
    return folder / name


@pytest.fixture(scope="module")
def first_commit(tmp_path_factory):
    """A repository with this package, its files compiled, as they are where it was run before."""
    return write_clone(tmp_path_factory.mktemp("first") / "repository")


CONDITIONS = """    import torch

    return {"threads": torch.get_num_threads(), "device": resolve_device("auto")}
"""


@pytest.fixture(scope="module")
def without_torch(first_commit, tmp_path_factory):
    """The same repository, but that a run does not import torch to describe the machine.

    That takes a second and a half in every process, and no test here looks at what it tells.
    """
    repository = shutil.copytree(first_commit, tmp_path_factory.mktemp("second") / "repository")
    edit(
        repository,
        "harness/environment.py",
        CONDITIONS,
        '    return {"threads": 1, "device": "cpu"}\n',
    )
    commit(repository)
    compileall.compile_dir(repository, quiet=1)
    return repository


@pytest.fixture
def repository(without_torch, tmp_path_factory):
    """In a folder with a short name: paths of sockets below it may have 107 characters."""
    return shutil.copytree(without_torch, tmp_path_factory.mktemp("a") / "repository")


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """The folder with what versions have said that they can do; see `side_by_side`."""
    folder = shared_folder(tmp_path_factory) / "answers"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def variables(answers):
    """The environment for a command, with a folder of its own for temporary files."""

    def make(folder):
        temporary = folder / "temporary"
        temporary.mkdir(exist_ok=True)
        return environment(temporary, answers)

    return make


@dataclass
class Gated:
    """A gate that has ended: its repository, the command, and what was judged, if anything was."""

    repository: Path
    done: CompletedProcess[str]
    judged: dict[str, Any] | None

    @property
    def out(self):
        return self.repository.parent / "out"

    @property
    def verdicts(self):
        return {(c["case"], c["metric"]): c["verdict"] for c in self.judged["checks"]}

    @property
    def errors(self):
        lines = self.done.stderr.splitlines()
        return [line for line in lines if line.startswith("lisabench:")]

    def run(self, name):
        return raw_run(self.out / name)


@pytest.fixture(scope="module")
def against(variables):
    """Hold a working tree against a version; a session that is killed leaves its pipes behind."""

    def gate(repository, *arguments, reference="HEAD", processes=2, killed=False):
        folder = repository.parent
        options = (
            "--against",
            reference,
            "--set",
            f"processes={processes}",
            "--out",
            folder / "out",
        )
        done = lisabench_in(repository, variables(folder), "run", *arguments, *options)
        assert "Traceback" not in done.stderr, done.stderr
        assert no_trace(repository, but="pymp-*" if killed else "-")
        file = folder / "out" / "check.json"
        return Gated(repository, done, json.loads(file.read_text()) if file.exists() else None)

    return gate


def no_trace(repository, but="-"):
    """Whether there is no worktree, and no temporary file."""
    trees = git(repository, "worktree", "list", "--porcelain").count("worktree ")
    left = [path.name for path in (repository.parent / "temporary").iterdir()]
    return trees == 1 and all(Path(name).match(but) for name in left)


CALLED = '        return "ok", method(worker, *arguments)\n'
WATCHED = """        import os, time
        begun = time.monotonic_ns()
        found = method(worker, *arguments)
        if method.__name__ in ("measure_memory", "warm_up", "measure_block"):
            with open(os.environ["LISABENCH_TEST_LOG"], "a") as file:
                side = __file__.split("/")[-5]
                file.write(f"{begun} {time.monotonic_ns()} {side} {method.__name__}\\n")
        return "ok", found
"""


# A function with which each phase begins, and which of its calls spoils the disk.
PHASES = {
    "the first pair": (against_module.Pairing, "carry_out", 0),
    "the second pair": (against_module.Pairing, "carry_out", 1),
    "the merge": (against_module, "merge_runs", 0),
    "the verdicts": (against_module, "write_json", 0),
    "what CI shows": (against_module, "publish", 0),
}
OF_CHILDREN = ("the first pair", "the second pair")  # which write their own files


@pytest.mark.slow  # a gate for each phase
@pytest.mark.parametrize("phase", PHASES)
def test_a_disk_that_is_spoiled_in_a_phase_ends_a_gate_in_one_line(repository, variables, phase):
    kind, reason = "read-only", "Read-only file system"
    # The test makes a disk read-only for the parent alone.
    if phase in OF_CHILDREN:
        kind, reason = "full", "No space left on device"
    suite = suite_of(repository.parent)
    with disk_of(kind, repository.parent / "disk", mib=8) as disk:
        out = disk.folder / "out"
        words = ["run", suite, "--against", "HEAD", "--set", "processes=2", "--out", out]
        done = spoiled(
            disk,
            lambda patch: disk.spoiled_at(patch, *PHASES[phase]),
            lambda: lisabench_in(repository, variables(repository.parent), *words),
        )
        assert done.returncode == 5, done.stderr
        last_line = done.stderr.splitlines()[-1]
        assert last_line.startswith("lisabench: ") and reason in last_line
        assert "Traceback" not in done.stderr and no_trace(repository)
        measured = [path.parent.name for path in out.glob("parts/*/run.json")]
        if phase == "the second pair":
            assert {"1-base", "1-head"} <= set(measured)
        elif phase not in OF_CHILDREN:
            assert sorted(measured) == TWO_PAIRS
        for name in measured:
            assert raw_run(out / "parts" / name).run["status"] == "complete"


def watch(repository, monkeypatch):
    """Have both versions write down when each thing that must not be disturbed began and ended.

    Each line also names the version.
    """
    log = repository.parent / "log"
    monkeypatch.setenv("LISABENCH_TEST_LOG", str(log))
    edit(repository, "benchmarks/run/worker.py", CALLED, WATCHED)
    commit(repository)
    return log


def seen(log):
    """By whom and what, in order; no two at once."""
    spans = sorted(
        (int(start), int(end), *what)
        for start, end, *what in map(str.split, log.read_text().splitlines())
    )
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    return [" ".join(what) for _, _, *what in spans]


@pytest.fixture(scope="module")
def unchanged(first_commit, tmp_path_factory, against):
    """Two pairs of a tree that is as its commit is, and the log of what was measured in order."""
    repository = shutil.copytree(first_commit, tmp_path_factory.mktemp("a") / "repository")
    # A fake's resident set, 47 MiB, moves by some tenths: two processes a side cannot tell 1 % from
    # that.
    suite = suite_of(
        repository.parent, controls={"nothing": {"adapter": "empty"}}, gate={"peak": 0.2}
    )
    with pytest.MonkeyPatch.context() as patch:
        log = watch(repository, patch)
        gated = against(repository, suite)
    return gated, log


def test_an_unchanged_tree_holds_and_leaves_a_run_of_each_side_and_nothing_else(unchanged):
    gated, _ = unchanged
    done, found = gated.done, gated.judged
    doubtful = [check for check in found["checks"] if check["verdict"] == "inconclusive"]
    assert (done.returncode, found["outcome"], found["paired"]) == (0, "holds", True), doubtful
    assert "4/4" in done.stderr and done.stdout.startswith("### ✅ lisabench: ")
    assert git(gated.repository, "status", "--porcelain") == ""
    for side in ("base", "head"):
        run = gated.run(side)
        asked = {(line["case"], line["process"]): 0 for line in run.samples}
        assert set(asked) == {("a", 0), ("a", 1), ("b", 0), ("b", 1)}
        assert [run.run["quality_pass"], len(run.quality)] == [{"queries": 6, "batch": 8}, 3 * 6]
        parts = [gated.run(f"parts/{pair}-{side}") for pair in (1, 2)]
        assert [len(part.quality) for part in parts] == [3 * 6, 0], (
            "quality is evaluated once per version"
        )
        assert {line["process"] for line in run.memory} == {0, 1}
        assert (run.run["status"], run.run["plan"]["processes"]) == ("complete", 2)
        assert run.run["source"]["commit"] == git(gated.repository, "rev-parse", "HEAD").strip()
        assert lisabench("report", gated.out / side).returncode == 0
    assert sorted(path.parent.name for path in gated.out.glob("parts/*/run.json")) == TWO_PAIRS


def test_the_processes_of_a_pair_take_turns_block_by_block_and_the_next_pair_the_other_way_round(
    unchanged,
):
    gated, log = unchanged
    memory, warm_up, block = "measure_memory", "warm_up", "measure_block"
    cases = [memory, memory, warm_up, warm_up, block, block, block, block]
    # Without a quality pass, a process evaluates the trivial baseline on the timed queries.
    baseline = [warm_up, block, block]
    first_pair = [f"{side} {what}" for what in cases for side in ("head", "base")]
    second_pair = [f"{side} {what}" for what in [*cases, *baseline] for side in ("base", "head")]
    assert seen(log) == first_pair + second_pair
    assert "warning" not in gated.done.stderr
    assert gated.judged["in_turns"] and "that took turns block by block" in gated.done.stdout
    for place in ("base", "head", "parts/1-base", "parts/2-head"):
        assert gated.run(place).run["in_turns"] is True
    assert not list((gated.out / "parts").rglob("report.md"))  # nobody reads them
    assert lisabench("report", gated.out / "head").returncode == 0
    page = (gated.out / "head" / "report.md").read_text()
    assert "in lockstep with another version" in page


def test_pairs_that_build_at_the_same_time_measure_one_after_the_other(
    repository, against, monkeypatch
):
    log = watch(repository, monkeypatch)
    # As on a GPU that holds four pairs: the first pair tells what one needs.
    monkeypatch.setattr(pairs, "pairs_that_fit", lambda runs: 4 if runs["base"] else 1)
    begun, run = [], subprocesses.run

    def counted(*commands, **more):
        begun.append(len(commands))
        return run(*commands, **more)

    monkeypatch.setattr(subprocesses, "run", counted)
    suite = suite_of(repository.parent, cases={"a": FAKE}, gate={"peak": 0.2})
    gated = against(repository, suite, processes=3)
    assert [number for number in begun if number > 1] == [2, 4], "pairs 2 and 3 are begun together"
    assert (gated.done.returncode, gated.judged["in_turns"]) == (0, True), gated.done.stdout
    blocks = [side for side, what in map(str.split, seen(log)) if what == "measure_block"]
    head_first, base_first = ["head", "base"] * 2, ["base", "head"] * 2
    assert blocks[:4] == head_first
    assert sorted([blocks[4:8], blocks[8:]]) == [base_first, head_first], "one pair at a time"
    for side in ("base", "head"):
        assert {line["process"] for line in gated.run(side).samples} == {0, 1, 2}
        parts = [gated.run(f"parts/{pair}-{side}") for pair in (1, 2, 3)]
        assert [bool(part.quality) for part in parts] == [True, False, False]


@pytest.mark.slow
def test_beside_an_older_version_they_run_one_after_the_other_which_is_said(
    repository, against, monkeypatch
):
    newer = (repository / "benchmarks" / "run" / "lockstep.py").read_text()
    edit(repository, "benchmarks/run/lockstep.py", lockstep.PROTOCOL, "lockstep/0")
    log = watch(repository, monkeypatch)
    (repository / "benchmarks" / "run" / "lockstep.py").write_text(newer)
    gated = against(repository, suite_of(repository.parent, cases={"a": FAKE}), processes=1)
    each = ("measure_memory", "warm_up", "measure_block", "measure_block")
    assert seen(log) == [f"{side} {what}" for side in ("head", "base") for what in each]
    assert "cannot run in lockstep" in gated.done.stderr
    assert not gated.judged["in_turns"] and "that ran one after the other" in gated.done.stdout
    assert gated.run("head").run["in_turns"] is False


@pytest.mark.slow
def test_a_capped_card_is_measured_one_after_the_other(repository, against):
    suite = suite_of(repository.parent, cases={"a": FAKE}, plan=PLAN | {"gpu_memory": "8GB"})
    gated = against(repository, suite, processes=1)
    assert (
        "warning: trainings, and processes that are limited to a card, "
        "need the machine for themselves" in gated.done.stderr
    )
    assert gated.judged["in_turns"] is False


@pytest.fixture(scope="module")
def older_and_slower(without_torch, tmp_path_factory, against):
    """A pair on the host's clock, of an older version and a slower one.

    The older one keeps masks row by row; the slower one takes 1.5 times as long.
    """
    repository = shutil.copytree(without_torch, tmp_path_factory.mktemp("a") / "repository")
    changed = ("harness/masks.py", "harness/measure.py", "harness/records/run.py")
    newer = {name: (repository / name).read_text() for name in changed}
    with (repository / "harness" / "masks.py").open("a") as masks:
        masks.write(f"\n\n{inspect.getsource(row_by_row)}")
    edit(repository, "harness/measure.py", "masks.encode(", "masks.row_by_row(")
    edit(
        repository,
        "harness/records/run.py",
        'RUN_SCHEMA = "lisabench.run/2"',
        'RUN_SCHEMA = "lisabench.run/1"',
    )
    commit(repository)
    for name, text in newer.items():
        (repository / name).write_text(text)
    edit(repository, *(text.replace("1.1e6", "1.5e6") for text in SLOWER))
    cases, plan = {"a": {"adapter": "fake"}}, PLAN | {"save_masks": True}
    return against(repository, suite_of(repository.parent, cases=cases, plan=plan), processes=1)


def test_each_version_of_a_pair_in_turns_waits_by_the_hosts_clock_for_as_long_as_it_was_told_to(
    older_and_slower,
):
    """No query is over before its time; how much later depends on what else the machine does."""
    assert older_and_slower.judged["in_turns"]
    for side, least_ms in (("base", 10), ("head", 15)):
        run = older_and_slower.run(side)
        assert [case["clock"] for case in run.run["cases"]] == ["host"]
        assert len(run.samples) == 6
        assert min(line["latency_ns"] for line in run.samples) >= least_ms * 1e6


def test_masks_of_a_version_that_kept_them_row_by_row_are_compared_with_the_working_trees(
    older_and_slower,
):
    base, head = (older_and_slower.run(side) for side in ("base", "head"))
    assert (base.run["schema"], head.run["schema"]) == ("lisabench.run/1", "lisabench.run/2")
    assert {type(line["mask_rle"]["counts"]) for line in base.samples} == {list}
    assert {type(line["mask_rle"]["counts"]) for line in head.samples} == {str}
    (masks,) = (check for check in older_and_slower.judged["checks"] if check["metric"] == "masks")
    assert (masks["verdict"], masks["after"]) == ("holds", 1.0), older_and_slower.done.stderr


TURN = '            place = run.place(case, process) | {"block"'
BUILT = "        self.probe = TimingProbe(clock)\n        self.adapter = self._builder()"
BREAKING = {
    "built": (
        "benchmarks/run/case_worker.py",
        BUILT,
        f'        raise RuntimeError("planted")\n{BUILT}',
        "answered no query: RuntimeError: planted (its records",
    ),
    "killed": (
        "benchmarks/run/timed_rounds.py",
        TURN,
        f'            __import__("os").abort()\n{TURN}',
        "failed while running: it was ended by SIGABRT (its output",
    ),
    "raises": (
        "benchmarks/run/timed_rounds.py",
        TURN,
        f'            raise OSError(28, "No space left")\n{TURN}',
        "failed while running: OSError: [Errno 28] No space left (its output",
    ),
}


@pytest.mark.parametrize(
    "what",
    [pytest.param(what, marks=[] if what == "built" else [pytest.mark.slow]) for what in BREAKING],
)
def test_a_version_that_breaks_is_measured_once_and_is_one_clear_line_and_ends_the_other(
    repository, against, what
):
    *planted, expected = BREAKING[what]
    llm_ms = 0 if what == "built" else 2000  # alone, the other would take 12 s more
    edit(repository, *planted)
    cases = {"a": {"adapter": "fake", "llm_ms": llm_ms}}
    suite = suite_of(repository.parent, cases=cases, plan=PLAN | {"quality_queries": 0})
    gated = against(repository, suite, processes=5, killed=what == "killed")
    lines = [
        line
        for line in gated.done.stderr.splitlines()
        if line.startswith(("lisabench:", "warning:"))
    ]
    assert (gated.done.returncode, gated.judged, len(lines)) == (5, None, 1)
    assert lines[0].startswith(f"lisabench: the working tree {expected}")
    parts = gated.out / "parts"
    assert sorted(path.name for path in parts.iterdir() if path.is_dir()) == TWO_PAIRS[:2]
    assert gated.run("parts/1-base").run["status"] == ("complete" if what == "built" else "running")
    assert not left_over(gated.out)


def left_over(out):
    return [
        p
        for p in psutil.process_iter(["cmdline"])
        if any(str(out) in a for a in p.info["cmdline"] or ())
    ]


def as_by_the_allocator(repository, mib):
    """No process differs from another in memory, and the records say that it was a GPU's."""
    name = "harness/memory.py"
    edit(repository, name, 'instrument = "resident set"', 'instrument = "cuda allocator"')
    edit(repository, name, '_status_bytes("VmHWM") if self._can_reset else None', f"{mib} << 20")


def with_memory(folder):
    return sorted(
        path.parent.name for path in folder.glob("parts/*/memory.jsonl") if path.stat().st_size
    )


def test_a_tree_that_is_10_percent_slower_is_red_after_a_second_look_at_each_case_alone(
    repository, against
):
    edit(repository, *SLOWER)
    cases = {"a": FAKE, "b": FAKE | {"vision_ms": 400.0, "clock": "virtual"}}
    suite = suite_of(repository.parent, cases=cases, gate={"cases": {"b": {"end_to_end": 0.2}}})
    gated = against(repository, suite)
    assert (gated.done.returncode, gated.judged["exit_code"]) == (1, 1)
    red = [c for c in gated.judged["checks"] if c["verdict"] == "regression"]
    assert [(c["case"], c["metric"]) for c in red] == [("a", "time.end_to_end")]
    assert red[0]["change"] == pytest.approx(1.1, rel=1e-6, abs=0)
    assert red[0]["first"]["verdict"] == "regression"
    again = [raw_run(path.parent).run for path in gated.out.glob("again/*/*/run.json")]
    assert [[entry["name"] for entry in page["cases"]] for page in again] == [["a"], ["a"]]
    memory = gated.out.glob("again/*/*/memory.jsonl")
    assert [path.read_text() for path in memory] == ["", ""], "memory was as before"
    assert (
        "failure" in (gated.out / "junit.xml").read_text()
        and "**regression**" in (gated.out / "comment.md").read_text()
    )


WRAPPED = """import dataclasses
from lisabench.models.adapters import fake

def build(case: fake.FakeCase, probe):
    return fake.build(dataclasses.replace(case, vision_ms={vision_ms}), probe)
"""


@pytest.mark.slow
def test_a_file_of_the_repository_is_each_versions_own_and_any_other_is_the_same_for_both(
    repository, against
):
    (repository / "mine.py").write_text(WRAPPED.format(vision_ms=4.0))
    commit(repository)
    (repository / "mine.py").write_text(WRAPPED.format(vision_ms=8.0))
    (repository.parent / "outside.py").write_text(WRAPPED.format(vision_ms=4.0))
    virtual = {"clock": "virtual"}
    cases = {
        "inside": virtual | {"adapter": "repository/mine.py"},
        "outside": virtual | {"adapter": "outside.py"},
    }
    gated = against(repository, suite_of(repository.parent, cases=cases))
    assert gated.verdicts["inside", "time.end_to_end"] == "regression", gated.done.stderr
    assert gated.verdicts["outside", "time.end_to_end"] == "holds"
    digests = {}
    for place in ("base", "head", "again/1/base", "again/1/head"):
        for entry in gated.run(place).run["cases"]:
            digests[place, entry["name"]] = entry["adapter_sha256"]
    committed = WRAPPED.format(vision_ms=4.0).encode()
    changed = WRAPPED.format(vision_ms=8.0).encode()
    assert digests == {
        ("base", "inside"): hashlib.sha256(committed).hexdigest(),
        ("head", "inside"): hashlib.sha256(changed).hexdigest(),
        ("base", "outside"): hashlib.sha256(committed).hexdigest(),
        ("head", "outside"): hashlib.sha256(committed).hexdigest(),
        ("again/1/base", "inside"): hashlib.sha256(committed).hexdigest(),
        ("again/1/head", "inside"): hashlib.sha256(changed).hexdigest(),
    }
    # The file is the code that is compared, so it is not listed beside it.
    assert "adapter_sha256" not in gated.done.stdout


def test_a_file_that_the_older_version_lacks_is_one_line(repository, against):
    (repository / "mine.py").write_text(WRAPPED.format(vision_ms=4.0))
    cases = {"inside": {"clock": "virtual", "adapter": "repository/mine.py"}}
    gated = against(repository, suite_of(repository.parent, cases=cases))
    assert gated.done.returncode == 4
    (line,) = gated.errors
    assert "cannot run what the working tree can: adapter" in line and "there is no file" in line


BROKEN = "raise ValueError('half an edit')\n"


@pytest.mark.slow
def test_an_adapter_that_the_change_breaks_is_a_regression_of_its_case_alone(repository, against):
    (repository / "mine.py").write_text(WRAPPED.format(vision_ms=4.0))
    commit(repository)
    (repository / "mine.py").write_text(BROKEN + WRAPPED.format(vision_ms=4.0))
    cases = {"sound": FAKE, "mine": {"adapter": "repository/mine.py", "clock": "virtual"}}
    gated = against(repository, suite_of(repository.parent, cases=cases))
    assert (gated.done.returncode, gated.judged["exit_code"]) == (1, 1), gated.done.stderr
    assert gated.verdicts["mine", "failures"] == "regression"
    assert gated.verdicts["mine", "time.end_to_end"] == "missing"
    of_sound = {verdict for (case, _), verdict in gated.verdicts.items() if case == "sound"}
    assert gated.verdicts["sound", "time.end_to_end"] == "holds" and "missing" not in of_sound
    reason = "adapter 'mine.py': it cannot be loaded (ValueError: half an edit)"
    assert f"mine cannot be measured: {reason}" in (gated.out / "comment.md").read_text()
    # Alone, it would be a suite of which nothing can be loaded.
    assert not (gated.out / "again").exists()


@pytest.mark.slow
def test_two_pairs_measure_the_allocators_memory_and_find_64_mib_more_in_both_looks(
    repository, against
):
    as_by_the_allocator(repository, 400)
    commit(repository)
    edit(repository, "harness/memory.py", "400 << 20", "464 << 20")
    gated = against(repository, suite_of(repository.parent, cases={"a": FAKE}), processes=3)
    assert with_memory(gated.out) == with_memory(gated.out / "again" / "1") == TWO_PAIRS
    assert len(list(gated.out.glob("parts/*/samples.jsonl"))) == 6
    base = gated.run("base")
    assert {line["process"] for line in base.samples} == {0, 1, 2}
    assert {line["process"] for line in base.memory} == {0, 1}
    assert (base.run["plan"]["processes"], base.run["plan"]["memory_processes"]) == (3, 2)
    red = {
        check["metric"]: check["change"]
        for check in gated.judged["checks"]
        if check["verdict"] == "regression"
    }
    assert (gated.done.returncode, set(red)) == (1, {"memory.peak", "memory.query_peak"})
    assert red["memory.peak"] == pytest.approx(1.16, rel=1e-9, abs=0)
    assert gated.verdicts["a", "time.end_to_end"] == "holds"


def test_of_a_shipped_suite_each_version_runs_its_own(repository, against):
    def ship(cases):
        suite_of(repository.parent, "shipped-fake.yaml", cases)
        shutil.copy(repository.parent / "shipped-fake.yaml", repository / "benchmarks" / "suites")

    ship({"a": FAKE, "gone": FAKE})
    commit(repository)
    ship({"a": FAKE | {"llm_ms": 2.5}, "new": FAKE})
    gated = against(repository, "shipped-fake", processes=1)
    assert (gated.done.returncode, gated.judged["new"]) == (1, ["new"])
    assert gated.verdicts["gone", "case"] == "missing"
    assert gated.verdicts["a", "time.end_to_end"] == "inconclusive"
    assert gated.judged["changed"] == {"a: llm_ms": [3.0, 2.5]}
    assert "Besides the code, this differs" in gated.done.stdout


def test_a_version_is_asked_what_it_can_do_and_an_older_one_that_lists_nothing_can_do_none_of_it(
    repository, monkeypatch
):
    newer = (repository / "benchmarks" / "doctor.py").read_text()
    edit(repository, "benchmarks/doctor.py", '"capabilities": capabilities(),', "")
    commit(repository)
    (repository / "benchmarks" / "doctor.py").write_text(newer)
    monkeypatch.chdir(repository)
    with checked_out("HEAD", None) as (base, head):
        assert base.capabilities == frozenset()
        assert head.capabilities == {LOCKSTEP, RUN_WITHOUT_MEMORY_PASS, SHARED_MACHINE}


@pytest.mark.parametrize(
    "printed", ["", "Usage: lisabench doctor", '[{"verdict": "ok"}]', '{"version": "0.0.1"}']
)
def test_what_versions_from_before_capabilities_print_is_read_as_none(monkeypatch, printed):
    version = Version("base", "an older one", Path("nowhere"), sys.executable, {})
    monkeypatch.setattr(Version, "run", lambda *_: Done(2, printed, ""))
    assert version.capabilities == frozenset()


@pytest.mark.parametrize("name", shipped_names())
def test_a_case_of_any_shipped_suite_can_be_measured_alone_from_what_its_run_has_written_down(
    name, tmp_path
):
    own = {case.name: {"peak": None} for case in load(name).models}
    suite = load(name, {"gate.cases": own})
    definition = suite.definition.as_recorded()
    for case in suite.models:
        alone_definition = definition_of(definition, suite.split, case.name)
        (tmp_path / "alone.yaml").write_text(yaml.safe_dump(alone_definition))
        alone = load(str(tmp_path / "alone.yaml"))
        assert alone.name == suite.name
        assert list(alone.definition.cases) == list(alone.definition.gate.cases) == [case.name]
        assert alone.case(case.name).given == case.given


OLDER = {
    "records": (
        ("harness/records/run.py", '"lisabench.run/2"', '"lisabench.run/9"'),
        4,
        "the records of HEAD",
    ),
    "settings": (
        ("models/adapters/fake.py", "    drift: float = 0.0\n", ""),
        4,
        "cannot run what the working tree can",
    ),
    "broken": (
        ("cli.py", '"""The command line', 'raise RuntimeError("gone")\n"""The command line'),
        5,
        "failed while running",
    ),
}


@pytest.mark.parametrize("what", OLDER)
def test_an_older_version_that_cannot_be_compared_is_one_clear_line(repository, against, what):
    (name, before, after), code, expected = OLDER[what]
    newer = (repository / name).read_text()
    edit(repository, name, before, after)
    commit(repository)
    (repository / name).write_text(newer)
    suite = suite_of(repository.parent, cases={"a": FAKE | {"drift": 0.0}})
    gated = against(repository, suite)
    errors = gated.errors
    assert (gated.done.returncode, gated.judged, len(errors)) == (code, None, 1)
    assert expected in errors[0]
    assert expected in (gated.out / "comment.md").read_text()


def test_what_the_working_tree_itself_refuses_is_a_usage_error(repository, against):
    gated = against(repository, "no-such-suite")
    assert (gated.done.returncode, gated.judged) == (2, None)
    assert "lisabench: unknown suite 'no-such-suite'" in gated.done.stderr


def shallow(folder, repository):
    commit_more = ["commit", "--quiet", "--allow-empty", "--message", "b"]
    git(repository, *commit_more)
    git(folder, "clone", "--quiet", "--depth=1", repository.as_uri(), "shallow")
    return folder / "shallow"


def foreign(folder, _):
    git(folder, "init", "--quiet", "foreign")
    return folder / "foreign"


PLACES = {
    "unknown": (lambda _, repository: repository, "nosuch", "git knows no commit 'nosuch'"),
    "an option": (lambda _, repository: repository, "--all", "git knows no commit '--all'"),
    "shallow": (shallow, "HEAD~1", "git fetch --unshallow"),
    "foreign": (foreign, "HEAD", "no case of tiny has an adapter of the repository"),
    "nowhere": (lambda folder, _: folder, "HEAD", "the current folder is in none"),
}


@pytest.mark.parametrize("what", PLACES)
def test_what_git_cannot_do_is_one_line_and_2(repository, variables, tmp_path, what):
    place, reference, expected = PLACES[what]
    folder = place(tmp_path, repository)
    known = variables(tmp_path) | {"GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    done = lisabench_in(folder, known, "run", "--against", reference, "--out", tmp_path / "out")
    lines = [line for line in done.stderr.splitlines() if line.startswith("lisabench:")]
    assert (done.returncode, len(lines)) == (2, 1)
    assert expected in lines[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--against-python", sys.executable, "--resume"], "--against measures in one go"),
        (["--against", "HEAD", "--resume"], "--against measures in one go"),
        (["--against", "HEAD", "--set", "processes=0"], "processes is 0"),
        (
            ["--against", "HEAD", "--set", "memory_processes=2"],
            "--against settles by itself how often memory",
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path, variables, arguments, said):
    done = lisabench_in(tmp_path, variables(tmp_path), "run", *arguments, "--out", tmp_path / "o")
    assert done.returncode == 2 and done.stderr.startswith(f"lisabench: {said}")


def test_each_version_is_its_own_whatever_is_installed_or_lies_in_the_current_folder(
    repository, monkeypatch
):
    decoy = repository / "lisabench"
    decoy.mkdir()
    (decoy / "__init__.py").write_text("raise ImportError('the decoy')")
    suite_of(repository.parent, "mine.yaml")
    shutil.copy(repository.parent / "mine.yaml", repository / "benchmarks" / "suites")
    monkeypatch.chdir(repository)
    monkeypatch.setenv("PYTHONPATH", str(repository))
    with checked_out("HEAD", None) as (base, head):
        listed = [version.run("list", "suites").stdout for version in (base, head)]
        tree = base.tree
    assert ["mine" in text for text in listed] == [False, True]
    assert all("tiny" in text for text in listed)
    assert (
        not tree.exists()
        and git(repository, "worktree", "list", "--porcelain").count("worktree ") == 1
    )


def test_a_python_that_imports_another_lisabench_is_found_out(repository, against):
    python = repository.parent / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -E "$@"\n')
    python.chmod(0o755)
    gated = against(repository, suite_of(repository.parent), "--against-python", python)
    assert (gated.done.returncode, gated.judged) == (5, None)
    assert "does not import lisabench from HEAD" in gated.done.stderr


def test_a_reference_that_holds_no_lisabench_is_nothing_to_compare(repository, against):
    empty = git(
        repository, "commit-tree", git(repository, "mktree", "--missing").strip(), "-m", "empty"
    ).strip()
    gated = against(repository, suite_of(repository.parent), reference=empty)
    assert (gated.done.returncode, gated.judged) == (4, None)
    assert "holds no lisabench" in gated.done.stderr


ENDINGS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL]


@pytest.mark.slow
@pytest.mark.parametrize("ending", ENDINGS)
def test_an_interrupt_leaves_no_worktree_and_keeps_what_was_measured(repository, variables, ending):
    suite, out = suite_of(repository.parent, cases={"a": FAKE}), repository.parent / "out"
    running = subprocess.Popen(
        command("run", suite, "--against", "HEAD", "--out", out),
        cwd=repository,
        env=variables(repository.parent),
        stderr=subprocess.DEVNULL,
        # Tests that were begun in the background ignore interrupts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    until(lambda: all((out / "parts" / name).exists() for name in ("2-base", "2-head")))
    assert not no_trace(repository)
    running.send_signal(ending)
    code = running.wait(timeout=300)
    assert code == (-ending if ending == signal.SIGKILL else 128 + ending)
    # A process that is killed leaves the folder of its socket.
    until(lambda: no_trace(repository, but="pymp-*" if ending == signal.SIGKILL else "-"))
    assert raw_run(out / "parts" / "1-head").run["status"] == "complete"
    until(lambda: not left_over(out))
    if ending != signal.SIGKILL:
        comment = (out / "comment.md").read_text()
        assert (
            "⛔ lisabench: nothing was checked" in comment
            and "what was measured is kept" in comment
        )


def test_versions_end_soon_after_whoever_began_them_was_killed(repository, variables):
    slow = {"adapter": "fake", "llm_ms": 3_600_000}  # nobody waits for its first query
    suite, out = suite_of(repository.parent, cases={"a": slow}), repository.parent / "out"
    running = subprocess.Popen(
        command("run", suite, "--against", "HEAD", "--out", out),
        cwd=repository,
        env=variables(repository.parent),
        stderr=subprocess.DEVNULL,
    )
    begun = [out / "parts" / name / "run.json" for name in ("1-base", "1-head")]
    until(lambda: all(file.exists() for file in begun))
    assert len(left_over(out)) > 2
    running.kill()
    running.wait()
    until(lambda: not left_over(out))
    assert raw_run(out / "parts" / "1-base").run["status"] == "running"
