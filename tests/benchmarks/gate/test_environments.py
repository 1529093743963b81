"""`lisabench run --against-python` alone: the same code in two environments."""

import json
import shutil
import sys
import tomllib
import venv
from importlib.metadata import packages_distributions

import pytest
from packaging.requirements import Requirement
from places import ROOT
from side_by_side import environment, lisabench_in
from small_repositories import ADAPTER, new_environment, site_of, suite

from lisabench.benchmarks.gate.sides import NEEDED, two_environments
from lisabench.reports.gate.outcome import Checked
from lisabench.reports.gate.page import page

pytestmark = pytest.mark.no_clock


@pytest.fixture
def other(tmp_path):
    """An environment with all that this one has, and its Python."""
    return new_environment(tmp_path / "other")


def plant(python, name, version):
    """Have an environment say that it has another version of a library."""
    folder = site_of(python.parent.parent) / f"{name}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def against_python(folder, python, suite_file):
    temporary = folder / "t"
    temporary.mkdir()
    known = environment(temporary, folder) | {"GIT_CEILING_DIRECTORIES": str(folder)}
    words = ["run", suite_file, "--out", folder / "out", "--set", "processes=1"]
    done = lisabench_in(folder, known, *words, "--against-python", python)
    assert "Traceback" not in done.stderr, done.stderr
    assert not list(temporary.iterdir())
    return done


def errors(done):
    return [line for line in done.stderr.splitlines() if line.startswith("lisabench:")]


def test_an_environment_with_another_torch_is_compared_and_the_versions_that_differ_are_listed(
    tmp_path, other
):
    plant(other, "torch", "99.0")
    plant(other, "numpy", "98.0")
    done = against_python(tmp_path, other, suite(tmp_path, {"a": {"adapter": "fake"}}))
    check = json.loads((tmp_path / "out" / "check.json").read_text())
    assert check["same_code"] and check["baseline"] == f"the environment of {other}", done.stderr
    verdicts = {check["verdict"] for check in check["checks"]}
    assert not verdicts & {"refused", "regression", "missing"}
    changed = {name: before for name, (before, _) in check["changed"].items()}
    assert changed == {"version: torch": "99.0", "version: numpy": "98.0"}
    assert "The code is the same. This differs between the two environments" in done.stdout
    assert "| version: torch | 99.0" in done.stdout
    assert done.returncode == 3  # one pair gives no interval
    source = json.loads((tmp_path / "out" / "base" / "run.json").read_text())["source"]
    assert source == {"python": str(other)}


CHANGES = {
    "nothing": ({}, "and so are the versions of all libraries that we record"),
    "torch": ({"version: torch": ("2.11", "2.12")}, "version: torch"),
    "python and a setting": (
        {"version: python": ("3.11", "3.12"), "a: attention": ("sdpa", "eager")},
        "a: attention",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_the_page_says_what_differs_between_two_environments(what):
    changed, expected = CHANGES[what]
    gate = Checked(
        run="out", baseline="b", paired=True, same_code=True, outcome="holds", exit_code=0,
        changed=changed,
    )  # fmt: skip
    text = page(gate)
    assert "The code is the same" in text and expected in text
    assert "Besides the code" not in text


def test_both_environments_run_the_lisabench_that_compares_them(tmp_path, other, monkeypatch):
    """Also where another one is installed in the other environment."""
    decoy = site_of(other.parent.parent) / "lisabench"
    decoy.mkdir()
    (decoy / "__init__.py").write_text("raise ImportError('the decoy')")
    monkeypatch.chdir(tmp_path)
    with two_environments(other) as versions:
        places = [version.places(["lisabench"])["lisabench"] for version in versions]
        listed = [version.run("list", "suites") for version in versions]
    assert places == [ROOT / "__init__.py", ROOT / "__init__.py"]
    assert [done.returncode for done in listed] == [0, 0]
    assert listed[0].stdout == listed[1].stdout


LACKING = {"torch": ("torch",), "typer and yaml": ("typer", "yaml"), "lisabench": None}


@pytest.mark.parametrize("what", LACKING)
def test_an_environment_that_cannot_run_lisabench_is_one_line_that_says_how_to_install_it(
    tmp_path, what
):
    if LACKING[what] is None:
        venv.create(tmp_path / "other", with_pip=False)
        python, missing = tmp_path / "other" / "bin" / "python", NEEDED
    else:
        missing = LACKING[what]
        python = new_environment(tmp_path / "other", without=missing)
    done = against_python(tmp_path, python, suite(tmp_path, {"a": {"adapter": "fake"}}))
    assert (done.returncode, len(errors(done))) == (2, 1), done.stderr
    assert f"it has no {', '.join(missing)}; " in errors(done)[0]
    assert errors(done)[0].endswith(f"run: {python} -m pip install {ROOT}")


NO_PYTHON = {
    "there is no such file": ("no-such-python", "No such file"),
    "another program": (shutil.which("true"), "is no Python"),
    "a folder": (".", "Permission denied"),
}


@pytest.mark.parametrize("what", NO_PYTHON)
def test_what_is_no_python_is_one_line_and_2(tmp_path, what):
    python, expected = NO_PYTHON[what]
    done = against_python(tmp_path, python, suite(tmp_path, {"a": {"adapter": "fake"}}))
    assert (done.returncode, len(errors(done))) == (2, 1), done.stderr
    assert expected in errors(done)[0]


def test_an_adapter_that_the_other_environment_lacks_is_one_line_and_4(
    tmp_path, other, monkeypatch
):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "bright.py").write_text(ADAPTER.format(vision_ms=4.0))
    # Only this process can import it: PYTHONPATH would reach both environments.
    file = suite(tmp_path, {"a": {"adapter": "bright:build"}})
    this = new_environment(tmp_path / "here")
    (site_of(tmp_path / "here") / "own.pth").write_text(f"{tmp_path / 'own'}\n")
    monkeypatch.setattr(sys, "executable", str(this))
    done = against_python(tmp_path, other, file)
    assert (done.returncode, len(errors(done))) == (4, 1), done.stderr
    assert f"the environment of {other} cannot run what this environment can" in errors(done)[0]
    assert "No module named 'bright'" in errors(done)[0]


def test_what_is_needed_is_what_the_package_depends_on():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = {Requirement(text) for text in project["dependencies"]}
    names = {requirement.name for requirement in required if requirement.marker is None}
    modules = {}
    for module, distributions in packages_distributions().items():
        for distribution in distributions:
            modules.setdefault(distribution, set()).add(module)
    assert len(names) == len(NEEDED)
    for name in names:
        (known,) = [found for key, found in modules.items() if _same(key, name)]
        assert known & set(NEEDED), name


def _same(one, other):
    return one.lower().replace("_", "-") == other.lower().replace("_", "-")
