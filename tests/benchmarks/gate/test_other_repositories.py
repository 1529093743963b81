"""`lisabench run --against` in a repository that is not lisabench's: each version has its own code.

The repositories are small ones, whose packages are installed into an environment of the test. Each
installation takes seconds, so most of these tests are slow.
"""

import json
import signal
import subprocess

import psutil
import pytest
from side_by_side import environment, lisabench_in
from small_repositories import (
    ADAPTER,
    PYPROJECT,
    REGISTERED,
    commit,
    git,
    new_environment,
    new_repository,
    pip_install,
    suite,
    write,
)
from waiting import is_alive, until

pytestmark = pytest.mark.no_clock

OLD, NEW = ADAPTER.format(vision_ms=4.0), ADAPTER.format(vision_ms=8.0)
SOURCE = "src/bright/adapter.py"
PACKAGED = {
    "pyproject.toml": PYPROJECT.format(more=REGISTERED),
    "src/bright/__init__.py": "",
    SOURCE: OLD,
}
# Prints, for each version, what its command line says about adapters.
ASK = """
import json, sys
from lisabench.benchmarks.gate.sides import sides
suite, *adapters = sys.argv[1:]
with sides("HEAD", None, suite, {}) as versions:
    print(json.dumps([version.run("list", *adapters, "--json").stdout for version in versions]))
"""


@pytest.fixture
def python(tmp_path):
    return new_environment(tmp_path / "environment")


def variables(folder, **more):
    temporary = folder / "t"
    temporary.mkdir(exist_ok=True)
    return environment(temporary, folder) | {"GIT_CEILING_DIRECTORIES": str(folder)} | more


def run(python, repository, *arguments, **more):
    """Run Python in a repository. Afterwards there is neither a worktree nor a temporary file."""
    folder = repository.parent
    done = subprocess.run(
        [python, *map(str, arguments)],
        cwd=repository,
        env=variables(folder, **more),
        capture_output=True,
        text=True,
    )
    assert nothing_is_left(repository)
    return done


def nothing_is_left(repository):
    trees = git(repository, "worktree", "list", "--porcelain").count("worktree ")
    return trees == 1 and not list((repository.parent / "t").iterdir())


def against(python, repository, suite_file, *arguments, **more):
    """Run the gate with one pair, and return how it ended and what was checked."""
    out = repository.parent / "out"
    line = ["-m", "lisabench", "run", suite_file, "--out", out, "--set", "processes=1", *arguments]
    done = run(python, repository, *line, **more)
    assert "Traceback" not in done.stderr, done.stderr
    check = out / "check.json"
    return done, json.loads(check.read_text()) if check.exists() else None


@pytest.mark.slow
def test_each_version_is_measured_with_its_own_entry_point_module_and_file(python, tmp_path):
    fast = {"bench/mine.py": OLD, "src/bright/speed.py": "LLM_MS = 3.0\n"}
    repository = new_repository(tmp_path / "repository", PACKAGED | fast)
    pip_install(python, "--editable", repository)
    # The file is as before, and what it imports of the package is not.
    using = "from bright.speed import LLM_MS\n" + OLD.replace(
        "fake.build(case", "fake.build(dataclasses.replace(case, llm_ms=LLM_MS)"
    )
    commit(repository, {"bench/mine.py": using})
    write(repository, {SOURCE: NEW, "src/bright/speed.py": "LLM_MS = 6.0\n"})
    cases = {
        "registered": {"adapter": "bright"},
        "module": {"adapter": "bright.adapter:build"},
        "file": {"adapter": "repository/bench/mine.py"},
        "nothing": {"adapter": "fake"},
    }
    done, gate = against(python, repository, suite(tmp_path, cases), "--against", "HEAD")
    assert gate is not None, done.stderr
    changes = {
        (check["case"], check["metric"]): check["change"]
        for check in gate["checks"]
        if check["metric"].startswith("time.")
    }
    assert changes["registered", "time.vision"] == pytest.approx(2, rel=1e-9)
    assert changes["module", "time.vision"] == pytest.approx(2, rel=1e-9)
    assert changes["file", "time.llm"] == pytest.approx(2, rel=1e-9)
    assert changes["file", "time.vision"] == pytest.approx(1, rel=1e-9)
    assert changes["nothing", "time.end_to_end"] == pytest.approx(1, rel=1e-9)
    assert done.returncode == 3  # one pair gives no interval
    source = json.loads((tmp_path / "out" / "base" / "run.json").read_text())["source"]
    assert source == {
        "reference": "HEAD",
        "commit": git(repository, "rev-parse", "HEAD").strip(),
    }
    assert git(repository, "status", "--porcelain").splitlines() == [
        " M src/bright/adapter.py",
        " M src/bright/speed.py",
    ]


SETUP = "from setuptools import setup\nsetup(name='bright', version='1', packages=['bright'])\n"
MODEL = "from elsewhere.speed import VISION_MS\n" + ADAPTER.format(vision_ms="{}").replace(
    "= {}", "= VISION_MS"
).replace("{}", "VISION_MS")
LAYOUTS = {
    # files, those of the working tree, what is installed, PYTHONPATH
    "src": (PACKAGED, {SOURCE: NEW}, ["."], None),
    "flat, with setup.py": (
        {"setup.py": SETUP, "bright/__init__.py": "", "bright/adapter.py": OLD},
        {"bright/adapter.py": NEW},
        ["."],
        None,
    ),
    "in a folder of the repository": (
        {f"python/{name}": text for name, text in PACKAGED.items()},
        {f"python/{SOURCE}": NEW},
        ["python"],
        None,
    ),
    "two packages": (
        {f"a/{name}": text for name, text in PACKAGED.items()}
        | {
            f"a/{SOURCE}": MODEL,
            "b/setup.py": SETUP.replace("bright", "elsewhere"),
            "b/elsewhere/__init__.py": "",
            "b/elsewhere/speed.py": "VISION_MS = 4.0\n",
        },
        {"b/elsewhere/speed.py": "VISION_MS = 8.0\n"},
        ["a", "b"],
        None,
    ),
    "not installed": (
        {"lib/bright/__init__.py": "", "lib/bright/adapter.py": OLD},
        {"lib/bright/adapter.py": NEW},
        [],
        "lib",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_module_is_each_versions_own_whatever_the_layout_of_its_repository(
    python, tmp_path, layout
):
    files, changed, installed, path = LAYOUTS[layout]
    repository = new_repository(tmp_path / "repository", files)
    for folder in installed:
        pip_install(python, "--editable", repository / folder)
    write(repository, changed)
    place = "bright.adapter:build"
    more = {} if path is None else {"PYTHONPATH": str(repository / path)}
    file = suite(tmp_path, {"a": {"adapter": place}})
    done = run(python, repository, "-c", ASK, file, place, **more)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(answer)["settings"]["vision_ms"] for answer in json.loads(done.stdout)]
    assert ["4.0" in answer for answer in answers] == [True, False], answers
    assert ["8.0" in answer for answer in answers] == [False, True], answers


@pytest.mark.slow
def test_a_module_that_only_the_working_tree_has_is_never_run_as_the_other_versions(
    python, tmp_path
):
    """An editable installation finds it wherever sys.path points to."""
    files = {"setup.py": SETUP, "bright/__init__.py": "", "bright/adapter.py": OLD}
    repository = new_repository(tmp_path / "repository", files)
    new = {"later/__init__.py": "", "later/speed.py": "VISION_MS = 8.0\n"}
    write(repository, {"setup.py": SETUP.replace("['bright']", "['bright', 'later']"), **new})
    pip_install(python, "--editable", repository)
    git(repository, "stash", "--include-untracked", "--quiet")
    commit(repository, {"bright/adapter.py": MODEL.replace("elsewhere", "later")})
    git(repository, "stash", "pop", "--quiet")
    file = suite(tmp_path, {"b": {"adapter": "bright.adapter:build"}})
    done, gate = against(python, repository, file, "--against", "HEAD")
    assert (done.returncode, gate) == (5, None)
    assert "module later" in done.stderr and "is imported from the working tree" in done.stderr


def errors(done):
    return [line for line in done.stderr.splitlines() if line.startswith("lisabench:")]


BROKEN = {
    "setup.py raises": ({"setup.py": "raise RuntimeError('planted')\n"}, "RuntimeError: planted"),
    "no such build backend": (
        {"pyproject.toml": PYPROJECT.format(more="").replace("setuptools.build_meta", "no_such")},
        "no_such",
    ),
    "pyproject.toml is no TOML": ({"pyproject.toml": "[project\n"}, "TOMLDecodeError"),
    "no package": ({"README": ""}, "'setup.py' nor 'pyproject.toml' found"),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", BROKEN)
def test_an_old_version_that_cannot_be_installed_is_one_line_and_4(python, tmp_path, what):
    files, expected = BROKEN[what]
    repository = new_repository(tmp_path / "repository", files)
    for name in files:
        (repository / name).unlink()
    write(repository, PACKAGED)
    pip_install(python, "--editable", repository)
    file = suite(tmp_path, {"a": {"adapter": "bright"}})
    # Without an index to download from: a mistake of the build is found before that.
    done, gate = against(python, repository, file, "--against", "HEAD", PIP_NO_INDEX="1")
    assert (done.returncode, gate, len(errors(done))) == (4, None, 1), done.stderr
    assert "pip cannot install the package of HEAD" in errors(done)[0]
    assert expected in errors(done)[0]
    assert expected in (tmp_path / "out" / "comment.md").read_text()


@pytest.mark.slow
def test_an_old_version_without_the_entry_point_is_one_line_and_4(python, tmp_path):
    before = PACKAGED | {"pyproject.toml": PYPROJECT.format(more="")}
    repository = new_repository(tmp_path / "repository", before)
    write(repository, PACKAGED)
    pip_install(python, "--editable", repository)
    file = suite(tmp_path, {"a": {"adapter": "bright"}})
    done, gate = against(python, repository, file, "--against", "HEAD")
    assert (done.returncode, gate, len(errors(done))) == (4, None, 1), done.stderr
    assert "cannot run what the working tree can: unknown adapter 'bright'" in errors(done)[0]


@pytest.mark.slow
def test_a_copy_of_the_working_tree_that_is_installed_is_refused_with_the_cure(python, tmp_path):
    repository = new_repository(tmp_path / "repository", PACKAGED)
    pip_install(python, repository)
    file = suite(tmp_path, {"a": {"adapter": "bright"}})
    done, gate = against(python, repository, file, "--against", "HEAD")
    assert (done.returncode, gate, len(errors(done))) == (2, None, 1), done.stderr
    assert "a copy and not the working tree" in errors(done)[0]
    assert "--editable" in errors(done)[0]


REFUSED = {
    # the adapter, the reference, what is said
    "an unknown reference": ("repository/mine.py", "nosuch", "git knows no commit 'nosuch'"),
    "an unknown name": ("bright", "HEAD", "unknown adapter 'bright'"),
    "a shipped adapter": ("fake", "HEAD", "no case of"),
    "a file elsewhere": ("outside.py", "HEAD", "has an adapter of the repository"),
    "a file that is not there": ("repository/no.py", "HEAD", "there is no file"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_compared_in_a_repository_is_one_line_and_2(tmp_path, what):
    adapter, reference, expected = REFUSED[what]
    repository = new_repository(tmp_path / "repository", {"mine.py": OLD})
    write(tmp_path, {"outside.py": OLD})
    file = suite(tmp_path, {"a": {"adapter": adapter}})
    done = lisabench_in(
        repository,
        variables(tmp_path),
        "run", file, "--against", reference, "--out", tmp_path / "out",
    )  # fmt: skip
    assert (done.returncode, len(errors(done))) == (2, 1), done.stderr
    assert expected in errors(done)[0]
    assert nothing_is_left(repository)


def test_outside_of_a_repository_it_is_one_line_and_2(tmp_path):
    file = suite(tmp_path, {"a": {"adapter": "fake"}})
    done = lisabench_in(
        tmp_path, variables(tmp_path), "run", file, "--against", "HEAD", "--out", tmp_path / "out"
    )
    assert (done.returncode, len(errors(done))) == (2, 1)
    assert "the current folder is in none" in errors(done)[0]


SLEEPING = """import os, time
from pathlib import Path
if "worktree" in os.getcwd():
    Path(os.environ["LISABENCH_TEST_MARK"]).write_text(str(os.getpid()))
    time.sleep(3600)
"""


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_gate_that_is_ended_while_it_installs_leaves_no_worktree(python, tmp_path, ending):
    files = {"bright/__init__.py": "", "bright/adapter.py": OLD, "setup.py": SLEEPING + SETUP}
    repository = new_repository(tmp_path / "repository", files)
    pip_install(python, "--editable", repository)
    file = suite(tmp_path, {"a": {"adapter": "bright.adapter:build"}})
    mark = tmp_path / "mark"
    running = subprocess.Popen(
        [python, "-m", "lisabench", "run", file, "--against", "HEAD", "--out", tmp_path / "out"],
        cwd=repository,
        env=variables(tmp_path, LISABENCH_TEST_MARK=str(mark)),
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    until(lambda: mark.exists() and mark.read_text())
    build = psutil.Process(int(mark.read_text()))
    assert not nothing_is_left(repository)
    running.send_signal(ending)
    code = running.wait(timeout=300)
    assert code == (-ending if ending == signal.SIGKILL else 128 + ending)
    until(lambda: not is_alive(build))
    until(lambda: nothing_is_left(repository))
