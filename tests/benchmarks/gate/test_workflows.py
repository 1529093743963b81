"""The workflows and the action: sound by GitHub's schemas and safe by zizmor.

Their shell steps run here.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from workflow_steps import ROOT, Runner, calls_of, read, stand_in

from lisabench import __version__
from lisabench.benchmarks.suite_file import shipped_names
from lisabench.reports.gate.page import MARK

pytestmark = pytest.mark.no_clock

BROWSER = "A browser for the tests of report.html"  # the step that installs one
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FILES = [*WORKFLOWS, ROOT / "action.yml"]
BIN = Path(sys.executable).parent
README = (ROOT / "README.md").read_text()
DOCUMENT = (ROOT / "docs" / "gate.md").read_text()


def steps_of(workflow, job):
    return read(f".github/workflows/{workflow}.yml")["jobs"][job]["steps"]


def step_of(workflow, job, name):
    return next(step for step in steps_of(workflow, job) if step.get("name") == name)


def checked(*command):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def schema_of(path):
    return "vendor.github-actions" if path.name == "action.yml" else "vendor.github-workflows"


def problems_by_schema(path):
    return checked(BIN / "check-jsonschema", "--builtin-schema", schema_of(path), path)


def problems_by_zizmor(*paths):
    options = (
        "--offline",
        "--persona=pedantic",
        "--strict-collection",
        "--no-progress",
        "--color=never",
    )
    return checked(BIN / "zizmor", *options, *paths)


def example(name):
    """The file of that name in the document, whose first line is its name."""
    (text,) = re.findall(
        rf"^```yaml\n# {re.escape(name)}\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL
    )
    return text


def example_workflow():
    """The document's, with a commit where it leaves one open."""
    return example(".github/workflows/gate.yml").replace(
        "OWNER/lisabench@COMMIT", f"team/lisabench@{'0' * 40}"
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_githubs_own_schema_accepts_it(path):
    assert problems_by_schema(path)[0] == 0, problems_by_schema(path)[1]


def test_zizmor_finds_nothing_not_even_what_only_a_pedant_would_say():
    code, said = problems_by_zizmor(*FILES)
    assert code == 0, said


def test_the_readmes_workflow_passes_both(tmp_path):
    path = tmp_path / ".github" / "workflows" / "gate.yml"
    path.parent.mkdir(parents=True)
    path.write_text(example_workflow())
    assert problems_by_schema(path)[0] == 0, problems_by_schema(path)[1]
    code, said = checked(BIN / "zizmor", "--offline", "--no-progress", "--color=never", path)
    assert code == 0, said


@pytest.mark.parametrize(
    ("sound", "planted", "rule"),
    [
        (
            "run: make check",
            "run: echo ${{ github.event.pull_request.title }}",
            "template-injection",
        ),
        (
            "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1",
            "actions/checkout@v7",
            "unpinned-uses",
        ),
        ("          persist-credentials: false\n", "", "artipacked"),
        ("permissions: {}", "permissions: write-all", "excessive-permissions"),
        ("  pull_request:", "  pull_request_target:", "dangerous-triggers"),
    ],
)
def test_zizmor_finds_what_is_planted(tmp_path, sound, planted, rule):
    source = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert sound in source
    path = tmp_path / "ci.yml"
    path.write_text(source.replace(sound, planted, 1))
    code, said = problems_by_zizmor(path)
    assert code != 0 and rule in said


def test_the_schemas_find_what_is_planted(tmp_path):
    for source, planted in ((FILES[0], "runs-on"), (FILES[-1], "using")):
        path = tmp_path / source.name
        path.write_text(source.read_text().replace(planted, "rums-on"))
        assert problems_by_schema(path)[0] == 1


def uses():
    return {
        (path.name, used) for path in FILES for used in re.findall(r"uses: (\S+)", path.read_text())
    }


@pytest.mark.parametrize(("file", "used"), sorted(uses()))
def test_what_is_used_is_this_repository_or_a_commit(file, used):
    assert used == "./" or re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", used), (
        f"{file} uses {used}"
    )


@pytest.mark.parametrize("workflow", ["ci", "gpu", "latest", "release"])
def test_only_a_job_that_checks_nothing_out_may_write(workflow):
    content = read(f".github/workflows/{workflow}.yml")
    assert content["permissions"] == {}
    assert "secrets" not in (ROOT / ".github" / "workflows" / f"{workflow}.yml").read_text()
    for job in content["jobs"].values():
        used = [step.get("uses", "") for step in job["steps"]]
        if "write" in job["permissions"].values():
            assert all(name.startswith("actions/download-artifact@") for name in used if name)
        else:
            assert job["permissions"] == {"contents": "read"}


@pytest.mark.parametrize("workflow", ["ci", "latest"])
def test_a_browser_is_there_before_the_tests_run(workflow):
    names = [step.get("name") for step in steps_of(workflow, "test")]
    assert names.index(BROWSER) < names.index("Test")
    step = step_of(workflow, "test", BROWSER)
    # It fails where there is none, so that no test is skipped without a word.
    assert step["run"].rstrip().splitlines()[-1].startswith("chromedriver --version")


@pytest.mark.parametrize("workflow", ["ci", "latest"])
def test_the_oldest_and_the_newest_python_that_may_install_are_tested(workflow):
    versions = read(f".github/workflows/{workflow}.yml")["jobs"]["test"]["strategy"]["matrix"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest, above_newest = re.findall(r"\d+\.(\d+)", project["requires-python"])
    minors = [int(version.removeprefix("3.")) for version in versions["python"]]
    assert (min(minors), max(minors) + 1) == (int(oldest), int(above_newest))


def test_what_pypi_and_the_readme_say_of_python_is_what_may_install():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest, above_newest = re.findall(r"\d+\.(\d+)", project["requires-python"])
    may_install = [f"3.{minor}" for minor in range(int(oldest), int(above_newest))]
    prefix = "Programming Language :: Python :: "
    named = [name.removeprefix(prefix) for name in project["classifiers"] if prefix in name]
    assert named == may_install
    assert f"Python {may_install[0]} to {may_install[-1]}," in (ROOT / "README.md").read_text()


def test_every_dependency_has_an_upper_bound_above_the_tested_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines()]
    tested = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}
    extras = project["optional-dependencies"]
    for text in [*project["dependencies"], *extras["parquet"], *extras["data"]]:
        requirement = Requirement(text)
        assert "<" in {bound.operator for bound in requirement.specifier}, text
        assert requirement.specifier.contains(tested[canonicalize_name(requirement.name)]), text


def test_the_newest_dependencies_are_tested_each_week_with_warnings_as_errors():
    latest = read(".github/workflows/latest.yml")
    assert list(latest["on"]) == ["schedule", "workflow_dispatch"]
    steps = latest["jobs"]["test"]["steps"]
    commands = [step["run"] for step in steps if "run" in step and step["name"] != BROWSER]
    assert commands[0].startswith("make constraints") and commands[1] == "make test"
    assert steps[-1]["env"] == {"PYTEST_ADDOPTS": "-W error::FutureWarning"}
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]
    assert "error::DeprecationWarning:lisabench" in settings["ini_options"]["filterwarnings"]


def test_no_checkout_leaves_a_token_behind():
    workflows = [path.read_text() for path in WORKFLOWS] + [example_workflow()]
    jobs = [job for text in workflows for job in yaml.safe_load(text)["jobs"].values()]
    checkouts = [
        s for job in jobs for s in job["steps"] if s.get("uses", "").startswith("actions/checkout@")
    ]
    assert [step["with"]["persist-credentials"] for step in checkouts] == [False] * 6


@pytest.mark.parametrize(("workflow", "job"), [("ci", "comment"), ("gpu", "gate")])
def test_a_fork_gets_neither_a_token_that_writes_nor_a_machine_of_ours(workflow, job):
    condition = read(f".github/workflows/{workflow}.yml")["jobs"][job]["if"]
    assert "github.event.pull_request.head.repo.full_name == github.repository" in condition


@pytest.mark.parametrize("workflow", ["ci", "gpu"])
def test_the_workflow_gives_the_action_inputs_that_it_has_and_a_suite_that_ships(workflow):
    (asked,) = [step["with"] for step in steps_of(workflow, "gate") if step.get("uses") == "./"]
    assert {"suite", "against"} <= asked.keys() <= read("action.yml")["inputs"].keys()
    suite = ROOT / asked["suite"]
    assert suite.exists() and suite.stem in shipped_names()


def test_the_document_describes_every_input_of_the_action():
    rows = re.findall(
        r"^\| `([\w-]+)` \| (.*?) \|", DOCUMENT.partition("## In CI")[2], re.MULTILINE
    )
    inputs = read("action.yml")["inputs"]
    assert [name for name, _ in rows][: len(inputs)] == list(inputs)
    for (name, default), entry in zip(rows, inputs.values(), strict=False):
        assert default == ("" if not entry.get("default") else f"`{entry['default']}`"), name


# The steps of ci.yml and gpu.yml


def test_the_steps_of_the_ci_workflow_are_commands_of_the_makefile_that_work(tmp_path):
    sample, programs = tmp_path / "sample", tmp_path / "sample" / ".venv" / "bin"
    calls = {name: stand_in(programs, name) for name in ("python", "ruff", "pyright", "lisabench")}
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copyfile(ROOT / name, sample / name)
    (sample / ".venv" / ".installed").touch()
    runner = Runner(sample, tmp_path / "temp")
    # The step that installs a browser would change this machine.
    steps = [step for step in steps_of("ci", "test") if step.get("name") != BROWSER]
    scripts = [step for step in steps if "run" in step]
    for step in scripts:
        done = runner.run(step, {})
        assert done.code == 0, done.stderr
    assert len(scripts) == 4
    assert calls_of(calls["ruff"]) == [["check", "."], ["format", "--check", "."]]
    assert calls_of(calls["pyright"]) == [[]]
    two_at_a_time = ["--numprocesses", "2", "--dist", "worksteal"]
    alone = ["-m", "not no_clock", "tests/cuda"]
    beside_others = [*two_at_a_time, "-m", "no_clock and not slow"]
    simulations = [*two_at_a_time, "-m", "slow"]
    assert calls_of(calls["python"]) == [
        ["-m", "pytest", *group] for group in (alone, beside_others, simulations)
    ]
    assert calls_of(calls["lisabench"]) == [["run", "tiny"]]


COMMENTS = "repos/team/sample/issues"


def test_make_hands_the_index_of_the_cpu_build_on_to_pip_and_the_readme_names_that_of_the_workflow(
    tmp_path,
):
    """A stand-in for python makes an environment whose pip writes down which index it was given."""
    index = read(".github/workflows/ci.yml")["env"]["PIP_EXTRA_INDEX_URL"]
    assert f"`PIP_EXTRA_INDEX_URL={index}` before `make demo`" in " ".join(README.split())
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    inner = '#!/bin/sh\necho "$PIP_EXTRA_INDEX_URL $*" > pip-was-given\n'
    (tmp_path / "inner").write_text(inner)
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\nmkdir -p .venv/bin && cp inner .venv/bin/python && chmod +x .venv/bin/python\n"
    )
    python.chmod(0o755)
    environment = os.environ | {"PIP_EXTRA_INDEX_URL": index}
    command = ["make", ".venv/.installed", f"PYTHON={python}"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    given = (tmp_path / "pip-was-given").read_text()
    assert given.startswith(f"{index} -m pip install ")
    assert "--isolated" not in given and "--index-url" not in given


@pytest.mark.parametrize(
    ("earlier", "expected"),
    [
        ("", ["api", "--method", "POST", f"{COMMENTS}/7/comments", "--field", "body=@comment.md"]),
        (
            "11\n12",
            ["api", "--method", "PATCH", f"{COMMENTS}/comments/12", "--field", "body=@comment.md"],
        ),
    ],
)
def test_the_comment_is_written_once_and_then_replaced(tmp_path, earlier, expected):
    calls = stand_in(
        tmp_path / "bin", "gh", f"[[ $* == *--paginate* ]] && printf '{earlier}' || true"
    )
    (tmp_path / "comment.md").write_text("<!-- lisabench gate -->\n")
    step = step_of("ci", "comment", "Write the comment, or replace the last one")
    context = {"github": {"token": "t", "event": {"pull_request": {"number": 7}}}}
    done = Runner(tmp_path, tmp_path / "temp", (tmp_path / "bin",)).run(step, context)
    assert done.code == 0, done.stderr
    looked, wrote = calls_of(calls)
    assert looked[:3] == ["api", "--paginate", f"{COMMENTS}/7/comments"] and wrote == expected


def test_the_comment_job_looks_for_the_mark_that_the_gate_writes():
    assert MARK in step_of("ci", "comment", "Write the comment, or replace the last one")["run"]


def test_without_a_comment_to_write_nobody_is_asked(tmp_path):
    calls = stand_in(tmp_path / "bin", "gh")
    step = step_of("ci", "comment", "Write the comment, or replace the last one")
    context = {"github": {"token": "t", "event": {"pull_request": {"number": 7}}}}
    assert Runner(tmp_path, tmp_path / "temp", (tmp_path / "bin",)).run(step, context).code == 0
    assert calls_of(calls) == []


def commit(folder, days_ago):
    """An empty commit of so many days ago; its name."""
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    when = subprocess.run(
        ["date", "-d", f"{days_ago} days ago", "-R"], check=True, capture_output=True, text=True
    )
    dates = {"GIT_AUTHOR_DATE": when.stdout.strip(), "GIT_COMMITTER_DATE": when.stdout.strip()}
    message = ("commit", "--quiet", "--allow-empty", "-m", "m")
    subprocess.run(["git", *who, *message], cwd=folder, check=True, env=os.environ | dates)
    return subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=folder, check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.parametrize(
    ("event", "asked", "expected"),
    [("schedule", "", "week"), ("pull_request", "", "HEAD^1"), ("workflow_dispatch", "v1", "v1")],
)
def test_the_night_is_held_against_what_was_a_week_ago(tmp_path, event, asked, expected):
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    names = {"old": commit(tmp_path, 20), "week": commit(tmp_path, 8), "new": commit(tmp_path, 1)}
    runner = Runner(tmp_path, tmp_path / "temp", environment={"GITHUB_EVENT_NAME": event})
    done = runner.run(
        step_of("gpu", "gate", "Choose what to measure beside"), {"inputs": {"against": asked}}
    )
    assert done.code == 0, done.stderr
    assert done.outputs["against"] == names.get(expected, expected).strip()


def test_a_repository_younger_than_a_week_is_held_against_its_last_commit(tmp_path):
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    commit(tmp_path, 1)
    runner = Runner(tmp_path, tmp_path / "temp", environment={"GITHUB_EVENT_NAME": "schedule"})
    done = runner.run(
        step_of("gpu", "gate", "Choose what to measure beside"), {"inputs": {"against": ""}}
    )
    assert done.outputs["against"] == "HEAD^1"


# The steps of release.yml


@pytest.mark.parametrize(("tag", "code"), [(f"v{__version__}", 0), ("v99.0.0", 1)])
def test_a_release_has_the_version_of_its_tag(tmp_path, tag, code):
    runner = Runner(ROOT, tmp_path / "temp", environment={"GITHUB_REF_NAME": tag})
    done = runner.run(step_of("release", "build", "Check the tag"), {})
    assert done.code == code
    assert ("::error title=release" in done.stdout) == (code == 1)


# The action's gate, on a lisabench that ends as it is told to

# The file that a gate writes: into --out where it runs side by side, else where --junit says.
WRITES_JUNIT = """
for ((i = 1; i < $#; i++)); do
  next=$((i + 1))
  [[ ${!i} == --out ]] && junit=${!next}/junit.xml
  [[ ${!i} == --junit ]] && junit=${!next}
done
mkdir -p "$(dirname "$junit")"
echo "<testsuites/>" > "$junit"
"""


@pytest.fixture
def gate(tmp_path):
    """Run the action's last step after `lisabench run` and `check` have ended with given codes.

    `readable` is what ``check --baseline-only`` ends with.
    """

    def hold(run=0, check=0, measured=True, readable=0, **inputs):
        temp = tmp_path / "temp"
        ends = f"[[ $1 == run ]] && exit {run}; exit {check}"
        says = f"{WRITES_JUNIT}\n{ends}" if measured else ends
        says = f'[[ "$*" == *" --baseline-only" ]] && exit {readable}\n{says}'
        calls = stand_in(temp / "lisabench" / "bin", "lisabench", says)
        described = read("action.yml")
        asked = {name: entry.get("default") for name, entry in described["inputs"].items()} | {
            "suite": "s.yaml"
        }
        step = next(step for step in described["runs"]["steps"] if step.get("id") == "gate")
        done = Runner(tmp_path, temp).run(step, {"inputs": asked | inputs})
        return done, calls_of(calls)

    return hold


@pytest.mark.parametrize("code", range(6))
def test_side_by_side_the_step_ends_as_the_run_does_but_for_a_doubt(gate, code):
    done, calls = gate(run=code, against="HEAD^1", args="--limit 4 --set processes=6")
    folder = done.outputs["folder"]
    extra = ["--limit", "4", "--set", "processes=6", "--against", "HEAD^1"]
    assert calls == [["run", "s.yaml", "--out", folder, *extra]]
    assert (done.code, done.outputs["exit-code"]) == (0 if code == 3 else code, str(code))
    assert ("::warning" in done.stdout) == (code == 3)


@pytest.mark.parametrize(
    ("run", "check", "expected"),
    [(0, 0, 0), (0, 1, 1), (0, 2, 2), (0, 3, 3), (0, 4, 4), (5, 0, 5), (5, 1, 5)],
)
def test_against_a_baseline_the_step_ends_as_the_check_does_unless_the_run_failed(
    gate, run, check, expected
):
    done, calls = gate(run, check, baseline="b.json")
    folder = done.outputs["folder"]
    shown = ["--junit", f"{folder}/junit.xml", "--comment", f"{folder}/comment.md"]
    check_it = ["check", f"{folder}/run", "--baseline", "b.json", *shown]
    measure = ["run", "s.yaml", "--out", f"{folder}/run"]
    assert calls == [[*check_it, "--baseline-only"], measure, check_it]
    assert (done.code, done.outputs["exit-code"]) == (
        0 if expected == 3 else expected,
        str(expected),
    )


@pytest.mark.parametrize("code", [2, 4, 5])
def test_nothing_is_measured_for_a_baseline_that_cannot_be_read(gate, code):
    done, calls = gate(readable=code, baseline="b.json")
    assert (done.code, done.outputs["exit-code"]) == (code, str(code))
    assert [call[-1] for call in calls] == ["--baseline-only"]


@pytest.fixture
def look_for_drift(tmp_path):
    """Run the action's step for the history, after `lisabench history` has ended with a code."""

    def look(code=0, gate_code="0", side_by_side=False, **inputs):
        temp, folder = tmp_path / "temp", tmp_path / "folder"
        (folder / ("head" if side_by_side else "run")).mkdir(parents=True, exist_ok=True)
        says = f"echo '| a table |'; exit {code}"
        calls = stand_in(temp / "lisabench" / "bin", "lisabench", says)
        described = read("action.yml")
        asked = {name: entry.get("default") for name, entry in described["inputs"].items()}
        name = "Look for slow drift"
        step = next(step for step in described["runs"]["steps"] if step["name"] == name)
        outputs = {"folder": str(folder), "exit-code": gate_code}
        context = {"inputs": asked | inputs, "steps": {"gate": {"outputs": outputs}}}
        runner = Runner(tmp_path, temp, environment={"GITHUB_SHA": "1a2b"})
        done = runner.run(step, context)
        summary = runner.summary.read_text() if runner.summary.exists() else ""
        return done, calls_of(calls), summary

    return look


@pytest.mark.parametrize("side_by_side", [False, True])
def test_a_run_is_appended_to_the_history_and_the_table_shown(
    look_for_drift, side_by_side, tmp_path
):
    done, calls, summary = look_for_drift(side_by_side=side_by_side, history="h.jsonl")
    run = tmp_path / "folder" / ("head" if side_by_side else "run")
    assert calls == [["history", "h.jsonl", "--add", str(run), "--commit", "1a2b"]]
    assert done.code == 0 and "| a table |" in summary and "| a table |" in done.stdout


def test_a_comment_of_the_gate_gets_the_newest_runs(look_for_drift, tmp_path):
    comment = tmp_path / "folder" / "comment.md"
    comment.parent.mkdir()
    comment.write_text("### a gate")
    _, (call,), _ = look_for_drift(history="h.jsonl")
    assert call[-2:] == ["--comment", str(comment)]


@pytest.mark.parametrize(
    ("code", "fail", "expected"),
    [(1, "false", 0), (1, "true", 1), (2, "false", 2), (5, "false", 5)],
)
def test_a_drift_is_a_warning_unless_it_is_to_fail(look_for_drift, code, fail, expected):
    done, _, _ = look_for_drift(code, history="h.jsonl", **{"fail-on-drift": fail})
    assert done.code == expected
    assert ("::warning" in done.stdout) == ((code, expected) == (1, 0))


@pytest.mark.parametrize(("history", "gate_code"), [("", "0"), ("h.jsonl", "2"), ("h.jsonl", "5")])
def test_without_a_history_or_a_measured_run_nothing_is_appended(
    look_for_drift, history, gate_code
):
    done, calls, summary = look_for_drift(gate_code=gate_code, history=history)
    assert (done.code, calls, summary) == (0, [], "")


@pytest.mark.parametrize("run", [2, 3, 4])
def test_a_run_that_did_not_end_is_not_checked_and_never_a_pass(gate, run):
    done, calls = gate(run, baseline="b.json")
    assert done.code == run and [call[0] for call in calls] == ["check", "run"]
    assert done.outputs["exit-code"] == str(run)


@pytest.mark.parametrize("way", [{"against": "HEAD^1"}, {"baseline": "b.json"}], ids=str)
def test_what_measured_nothing_is_not_green(gate, way):
    done, _ = gate(measured=False, args="--help", **way)
    assert (done.code, done.outputs["exit-code"]) == (5, "5")
    assert "::error title=lisabench gate::nothing was measured" in done.stdout


def test_a_doubt_fails_where_it_was_asked_to(gate):
    done, _ = gate(check=3, baseline="b.json", **{"fail-on-inconclusive": "true"})
    assert done.code == 3


@pytest.mark.parametrize(
    "inputs", [{}, {"against": "HEAD^1", "baseline": "b.json"}], ids=["neither", "both"]
)
def test_one_way_to_compare_must_be_given(gate, inputs):
    done, calls = gate(**inputs)
    assert (done.code, calls) == (2, []) and "::error" in done.stdout


def test_no_input_is_run_as_code(gate, tmp_path):
    nasty = f"$(touch {tmp_path}/x); `touch {tmp_path}/x` ' \" *"
    done, calls = gate(suite=nasty, baseline=nasty, args="$(touch x) *")
    assert done.code == 0 and not (tmp_path / "x").exists()
    _, measure, check_it = calls
    assert measure[1] == nasty and measure[-2:] == ["x)", "*"]
    assert check_it[3] == nasty


# The document's example, in a repository as somebody else would have it


@pytest.fixture(scope="module")
def action(tmp_path_factory):
    """What a runner downloads of this repository: the tracked files."""
    folder = tmp_path_factory.mktemp("action")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        if not name.startswith(("tests/", "results/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """What the package index would give: all that is installed here, but for lisabench itself."""
    folder = tmp_path_factory.mktemp("packages")
    for path in Path(yaml.__file__).parent.parent.iterdir():
        if not re.search(r"lisabench|^pip\b|\.pth$", path.name):
            (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="module")
def runner(tmp_path_factory, packages):
    """A machine with a checkout of the document's files, and a baseline made as it says."""
    folder = tmp_path_factory.mktemp("sample")
    for name in ("gate.yaml", ".github/workflows/gate.yml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(example(name))
    (command,) = re.findall(
        r"^\$ (.* --out baseline\.json)$", DOCUMENT.partition("## In CI")[2], re.MULTILINE
    )
    path = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(
        command, shell=True, cwd=folder, check=True, env=os.environ | path, capture_output=True
    )
    offline = {
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "PYTHONPATH": str(packages),
    }
    return Runner(folder, tmp_path_factory.mktemp("runner"), (BIN,), offline)


ADAPTER = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "my-adapter"
version = "1"
[tool.setuptools]
py-modules = ["my_adapter"]
"""


@pytest.fixture(scope="module")
def held(runner, action):
    """What came of the document's workflow, in a repository that is a package too."""
    (runner.workspace / "my_adapter.py").write_text("HERE = True\n")
    (runner.workspace / "pyproject.toml").write_text(ADAPTER)
    checkout, use = yaml.safe_load(example(".github/workflows/gate.yml"))["jobs"]["gate"]["steps"]
    assert (
        checkout["uses"].startswith("actions/checkout@") and use["uses"] == "OWNER/lisabench@COMMIT"
    )
    return runner.use(action, use["with"] | {"install": "--no-cache-dir ."})


def test_the_documents_example_holds(runner, held):
    assert held.code == 0, held.stdout + held.stderr
    assert held.outputs["exit-code"] in ("0", "3"), (
        "the memory of a machine that is busy may be in doubt"
    )
    folder = Path(held.outputs["folder"])
    assert runner.summary.read_text().startswith("### ")
    assert (folder / "run" / "report.md").exists() and (folder / "junit.xml").exists()
    assert runner.summary.read_text().strip() in (folder / "comment.md").read_text()


@pytest.mark.usefixtures("held")
def test_the_action_installs_what_else_is_asked_for(runner):
    python = runner.temp / "lisabench" / "bin" / "python"
    assert checked(python, "-P", "-c", "import my_adapter; assert my_adapter.HERE") == (0, "")


@pytest.mark.slow
@pytest.mark.usefixtures("held")
def test_the_documents_example_stops_what_is_slower(runner, action):
    suite = runner.workspace / "gate.yaml"
    suite.write_text(suite.read_text().replace("vision_ms: 4", "vision_ms: 6"))
    described = read(action / "action.yml")
    asked = {name: entry.get("default") for name, entry in described["inputs"].items()}
    step = next(step for step in described["runs"]["steps"] if step.get("id") == "gate")
    done = runner.run(step, {"inputs": asked | {"suite": "gate.yaml", "baseline": "baseline.json"}})
    assert (done.code, done.outputs["exit-code"]) == (1, "1"), done.stdout + done.stderr
    assert "::error title=ours%3A time.end_to_end::regression" in done.stdout
    assert "### ❌ lisabench: this change makes `ours` slower" in runner.summary.read_text()
