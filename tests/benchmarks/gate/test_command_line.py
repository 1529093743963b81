"""`lisabench check`, as a pipeline meets it: exit codes, the second look, and what is shown."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from command import lisabench
from pycocotools import mask as coco
from run_factory import edit_lines, edit_run, rle
from samples import write_sample

from lisabench.benchmarks.gate import check
from lisabench.harness.errors import LisabenchError

pytestmark = pytest.mark.no_clock

NOISY = {"adapter": "fake", "clock": "virtual", "process_noise": 0.01, "noise": 0.02}
CASES = {
    name: NOISY | {"seed": seed} for seed, name in enumerate(("slow", "large", "moved", "gone"))
}
PLAN = {"processes": 5, "warmup": 0, "memory_queries": 1, "gallery": 0, "save_masks": True}


@pytest.fixture(autouse=True, scope="module")
def _nowhere_on_github():
    with pytest.MonkeyPatch.context() as patch:
        for key in [key for key in os.environ if key.startswith("GITHUB_")]:
            patch.delenv(key)
        yield


def measured(folder, out, cases, gate):
    """A run of these cases over six queries."""
    if not (folder / "data").exists():
        for i in range(6):
            write_sample(folder / "data" / "val", f"q{i}", seed=i)
    content = {
        "title": "t",
        "reference": next(iter(cases)),
        "data": {"root": str(folder / "data")},
        "plan": PLAN,
    }
    (folder / f"{out}.yaml").write_text(yaml.safe_dump(content | {"cases": cases, "gate": gate}))
    done = lisabench("run", folder / f"{out}.yaml", "--out", folder / out)
    assert done.returncode == 0, done.stderr
    return folder / out


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The run that baselines are made of."""
    return measured(tmp_path_factory.mktemp("base"), "base", CASES, gate={})


@pytest.fixture(scope="module")
def worse(base):
    """The same with a stage 10 % slower, 64 MiB more, and a case less."""
    cases = {
        "slow": CASES["slow"] | {"vision_ms": 4.4},
        "large": CASES["large"] | {"allocate_mib": 64},
        "moved": CASES["moved"],
    }
    gate = {"cases": {"slow": {"stages": {"vision": 0.05}}}}
    return measured(base.parent, "worse", cases, gate)


@pytest.fixture
def baseline_of(base, tmp_path):
    """Make a baseline of some of the cases.

    `change` edits lines of quality.jsonl before, which holds the masks.
    """

    def make(*names, change=None, **page):
        copy = shutil.copytree(base, tmp_path / "copy")
        entries = json.loads((copy / "run.json").read_text())["cases"]
        edit_run(copy, cases=[entry for entry in entries if entry["name"] in names], **page)
        if change:
            edit_lines(copy / "quality.jsonl", change)
        assert lisabench("baseline", copy, "--out", tmp_path / "b.json").returncode == 0
        return tmp_path / "b.json"

    return make


@pytest.fixture
def copied(worse, tmp_path):
    """A copy of the worse run, to be edited or measured again."""
    return shutil.copytree(worse, tmp_path / "run")


def checks_of(run, file, *arguments, **environment):
    done = lisabench("check", run, "--baseline", file, "--json", *arguments, **environment)
    assert "Traceback" not in done.stderr
    found = json.loads(done.stdout)
    assert found["exit_code"] == done.returncode
    return done.returncode, {(c["case"], c["metric"]): c for c in found["checks"]}


def test_a_run_against_its_own_baseline_holds_with_0(base, baseline_of):
    done = lisabench("check", base, "--baseline", baseline_of(*CASES))
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("### ✅ lisabench: time, memory, quality and masks of ")
    assert not (base / "again").exists()


@pytest.mark.parametrize(("case", "metric"), [("slow", "time.vision"), ("large", "memory.peak")])
def test_a_slow_stage_and_more_memory_are_caught_and_confirmed_by_a_second_look(
    copied, baseline_of, case, metric
):
    code, checks = checks_of(copied, baseline_of(case, "moved"))
    assert code == 1
    found = {key for key, check in checks.items() if check["verdict"] == "regression"}
    assert (case, metric) in found and {name for name, _ in found} == {case}
    assert checks[case, metric]["first"]["verdict"] == "regression"
    again = [json.loads(path.read_text()) for path in copied.glob("again/*/run.json")]
    assert [[entry["name"] for entry in page["cases"]] for page in again] == [[case]]


def moved(line):
    """One query of one case, with its mask one pixel further down."""
    if (line["case"], line["sample_id"]) != ("moved", "q3"):
        return line
    mask_HW = coco.decode(line["mask_rle"])
    return line | {"mask_rle": rle(np.roll(mask_HW, 1, axis=0))}


def test_one_mask_that_has_moved_is_caught(copied, baseline_of):
    code, checks = checks_of(copied, baseline_of("moved", change=moved))
    assert code == 1
    assert [key for key, check in checks.items() if check["verdict"] == "regression"] == [
        ("moved", "masks")
    ]
    assert "q3" in checks["moved", "masks"]["why"]


def test_a_missing_case_fails_the_gate_with_1_and_nothing_is_measured_for_it(copied, baseline_of):
    code, checks = checks_of(copied, baseline_of("moved", "gone"))
    assert code == 1
    assert checks["gone", "case"]["verdict"] == "missing"
    assert not (copied / "again").exists()


def slower(line):
    return (
        line | {"latency_ns": round(1.2 * line["latency_ns"])} if line["case"] == "moved" else line
    )


def test_a_regression_that_a_second_look_does_not_find_again_stops_nobody(copied, baseline_of):
    edit_lines(copied / "samples.jsonl", slower)
    code, checks = checks_of(copied, baseline_of("moved"))
    found = checks["moved", "time.end_to_end"]
    assert (code, found["verdict"], found["first"]["verdict"]) == (0, "holds", "regression")


ELSEWHERE = {"passport": {"cpu": "Abacus"}, "versions": {"torch": "0.1"}}


@pytest.mark.parametrize("what", ELSEWHERE)
def test_elsewhere_a_regression_is_unconfirmed_and_ends_with_3(copied, baseline_of, what):
    page = {what: json.loads((copied / "run.json").read_text())[what] | ELSEWHERE[what]}
    edit_run(copied, **page)
    edit_lines(copied / "samples.jsonl", slower)
    code, checks = checks_of(copied, baseline_of("moved", **page))
    found = checks["moved", "time.end_to_end"]
    assert (code, found["verdict"]) == (3, "unconfirmed")
    assert next(iter(ELSEWHERE[what])) in found["why"]
    assert not (copied / "again").exists()


def test_a_second_look_at_other_data_confirms_nothing(copied, baseline_of):
    page = json.loads((copied / "run.json").read_text())
    data = page["data"] | {"fingerprint": "b"}
    edit_run(copied, data=data)
    edit_lines(copied / "samples.jsonl", slower)
    code, checks = checks_of(copied, baseline_of("moved", data=data))
    assert code == 3 and "data" in checks["moved", "time.end_to_end"]["why"]


def test_a_doubt_ends_with_3(copied, baseline_of):
    page = json.loads((copied / "run.json").read_text())
    gate = page["definition"]["gate"] | {"end_to_end": 0.0}
    edit_run(copied, definition=page["definition"] | {"gate": gate})
    code, checks = checks_of(copied, baseline_of("moved"))
    assert (code, checks["moved", "time.end_to_end"]["verdict"]) == (3, "inconclusive")


def test_an_unrelated_machine_is_refused_for_time_with_4_and_not_for_quality(copied, baseline_of):
    code, checks = checks_of(copied, baseline_of("moved", passport={"cpu": "Abacus"}))
    verdicts = {metric: check["verdict"] for (_, metric), check in checks.items()}
    assert code == 4
    assert (verdicts["time.end_to_end"], verdicts["memory.peak"]) == ("refused", "refused")
    assert (verdicts["quality.gIoU"], verdicts["masks"]) == ("holds", "holds")


@pytest.mark.parametrize(
    ("break_it", "code", "expected"),
    [
        (lambda file: file.unlink(), 2, "there is no baseline"),
        (lambda file: file.write_text(""), 2, "is empty"),
        (lambda file: file.write_text("{"), 2, "not JSON"),
        (
            lambda file: file.write_text(file.read_text().replace("baseline/1", "baseline/0")),
            4,
            "has schema",
        ),
        (
            lambda file: file.write_text(file.read_text().replace('"failed": 0', '"failed": 9')),
            2,
            "was edited",
        ),
    ],
)
def test_a_baseline_that_is_none_is_one_clear_line_and_never_a_pass(
    copied, baseline_of, tmp_path, break_it, code, expected
):
    file = baseline_of("moved")
    break_it(file)
    outputs = {"--junit": tmp_path / "junit.xml", "--comment": tmp_path / "comment.md"}
    given = [part for pair in outputs.items() for part in pair]
    # After the run, and before it, so that it is not measured at all.
    for run, further in ((copied, ()), (tmp_path / "not-yet", ("--baseline-only",))):
        command = ("check", run, "--baseline", file, *given, *further)
        done = lisabench(*command, GITHUB_ACTIONS="true")
        assert done.returncode == code
        assert len(done.stderr.strip().splitlines()) == 1 and expected in done.stderr
        assert done.stdout.startswith("::error title=lisabench gate::") and expected in done.stdout
        assert ElementTree.parse(outputs["--junit"]).find(".//error") is not None
        assert expected in outputs["--comment"].read_text()
        for path in outputs.values():
            path.unlink()


def test_a_baseline_that_can_be_read_is_no_gate_yet(baseline_of, tmp_path):
    junit = tmp_path / "junit.xml"
    given = ["--baseline", baseline_of("moved"), "--baseline-only", "--junit", junit]
    done = lisabench("check", tmp_path / "not-yet", *given)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not junit.exists()  # which the action takes for a gate that was held


def test_a_run_that_is_not_finished_is_refused_with_the_way_on(copied, baseline_of):
    edit_run(copied, status="running")
    done = lisabench("check", copied, "--baseline", baseline_of("moved"))
    assert done.returncode == 2 and "--resume" in done.stderr


def test_all_that_ci_shows_is_written_when_the_gate_fails(copied, baseline_of, tmp_path):
    summary, junit, comment = (
        tmp_path / "summary.md",
        tmp_path / "junit.xml",
        tmp_path / "comment.md",
    )
    summary.write_text("# of an earlier step\n")
    given = ["--baseline", baseline_of("slow", "gone"), "--junit", junit, "--comment", comment]
    done = lisabench(
        "check", copied, *given, GITHUB_STEP_SUMMARY=str(summary), GITHUB_ACTIONS="true"
    )
    assert done.returncode == 1
    errors = [line for line in done.stdout.splitlines() if line.startswith("::error ")]
    assert {line.split("::")[1] for line in errors} == {
        "error title=slow%3A time.vision",
        "error title=gone%3A case",
    }
    assert [
        line for line in done.stdout.splitlines() if line.startswith("::warning ")
    ]  # end to end is in doubt
    heading = (
        "### ❌ lisabench: this change makes `slow` slower and leaves `gone` without a result\n"
    )
    assert summary.read_text().startswith(f"# of an earlier step\n{heading}")
    assert comment.read_text().startswith(f"<!-- lisabench gate -->\n{heading}")
    for text in (summary.read_text(), comment.read_text()):
        assert "| time of vision" in text and str(copied) not in text
    suites = {suite.get("name"): suite for suite in ElementTree.parse(junit).getroot()}
    failures = {
        name: [t.get("name") for t in s if t.find("failure") is not None]
        for name, s in suites.items()
    }
    assert failures == {"slow": ["time.vision"], "gone": ["case"]}
    for suite in suites.values():
        counted = {tag: len(suite.findall(f".//{tag}")) for tag in ("failure", "error", "skipped")}
        assert [int(suite.get(name)) for name in ("failures", "errors", "skipped")] == list(
            counted.values()
        )


def test_an_output_that_cannot_be_written_is_said_and_no_pass(base, baseline_of, tmp_path):
    done = lisabench(
        "check", base, "--baseline", baseline_of("moved"), "--junit", tmp_path / "gone" / "j.xml"
    )
    assert done.returncode == 2 and "cannot write to" in done.stderr


FULL = OSError(errno.ENOSPC, "No space left on device")
BREAKING = {
    "a defect": (KeyError("peak\nbytes"), 5),
    "a full disk": (FULL, 5),
    "no memory": (MemoryError(), 5),
    "an interrupt": (KeyboardInterrupt(), 130),
    "a library that exits": (SystemExit(1), 5),
}


@pytest.mark.parametrize("what", BREAKING)
def test_whatever_breaks_a_gate_is_shown_in_every_output(
    base, baseline_of, tmp_path, monkeypatch, what
):
    error, code = BREAKING[what]

    def breaks(*_, **__):
        raise error

    file = baseline_of("moved")
    monkeypatch.setattr(check, "gate_checks", breaks)
    files = [tmp_path / name for name in ("comment.md", "junit.xml", "summary.md")]
    outputs = ["--comment", files[0], "--junit", files[1]]
    github = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(files[2])}
    done = lisabench("check", base, "--baseline", file, *outputs, **github)
    assert done.returncode == code
    assert done.stderr.splitlines()[-1].startswith("lisabench: ")
    assert "::error title=lisabench gate::" in done.stdout
    reason = "interrupted" if code == 130 else type(error).__name__
    for text in (path.read_text() for path in files):
        assert reason in text
    assert "⛔ lisabench: nothing was checked: " in files[0].read_text()
    assert ElementTree.parse(files[1]).getroot().find("testsuite/testcase/error") is not None


def test_an_output_that_cannot_be_written_keeps_no_other_from_being_written(
    base, baseline_of, tmp_path
):
    comment = tmp_path / "comment.md"
    outputs = ["--junit", tmp_path / "none" / "junit.xml", "--comment", comment]
    done = lisabench("check", base, "--baseline", baseline_of("moved"), *outputs)
    assert (done.returncode, "cannot write to" in done.stderr) == (2, True)
    assert "within their limits" in comment.read_text()


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, 5), (errno.EROFS, 5), (errno.EDQUOT, 5), (errno.EACCES, 2)],
)
def test_an_output_on_a_broken_disk_is_a_failure_and_in_a_wrong_place_a_mistake(
    tmp_path, monkeypatch, number, code
):
    def cannot_be_written(path, *_, **__):
        raise OSError(number, os.strerror(number), str(path))

    outcome = check.broken("runs/a", "baseline.json", "no reason", 5)
    monkeypatch.setattr(Path, "open", cannot_be_written)
    with pytest.raises(LisabenchError, match=r"cannot write to .*c\.md: ") as caught:
        check.publish(outcome, check.Outputs(comment=tmp_path / "c.md"))
    assert caught.value.exit_code == code


def test_a_gate_that_broke_says_why_also_if_no_output_can_be_written(
    base, baseline_of, tmp_path, monkeypatch
):
    file = baseline_of("moved")

    def breaks(*_, **__):
        raise FULL

    monkeypatch.setattr(check, "gate_checks", breaks)
    done = lisabench("check", base, "--baseline", file, "--comment", tmp_path / "none" / "c.md")
    assert done.returncode == 5
    warning, last_line = done.stderr.splitlines()[-2:]
    assert warning.startswith("warning: cannot write to ") and "No space left" in last_line


def test_a_stdout_on_a_full_disk_keeps_the_comment_and_is_no_verdict(worse, baseline_of, tmp_path):
    words = [sys.executable, "-m", "lisabench.cli", "check", worse, "--baseline"]
    words += [baseline_of("large"), "--comment", tmp_path / "comment.md"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 5
    assert "No space left" in done.stderr and "Traceback" not in done.stderr
    assert "this change makes `large` larger" in (tmp_path / "comment.md").read_text()
