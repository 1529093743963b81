"""An adapter named by its file or by its module, from the suite to the records of its run."""

import hashlib
import json
import os
import pickle
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from command import lisabench
from outside_adapter import CORNER

from lisabench.benchmarks import suite_file
from lisabench.benchmarks.run.worker_messages import SentConfig
from lisabench.harness.errors import RunFailed, UsageError
from lisabench.models import adapter_files, registry

pytestmark = pytest.mark.no_clock

PLAN = {"processes": 1, "memory_processes": 1, "memory_queries": 1, "warmup": 0, "gallery": 0}
SIZES = {"beside": 4, "below": 9, "module": 6}


def corner(size_px: int) -> str:
    return CORNER.replace("size_px: int = 4", f"size_px: int = {size_px}")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def folder(tmp_path, data_root, monkeypatch):
    """A folder with two files of one name, a module, and a suite in a subfolder that names them."""
    suites = tmp_path / "suites"
    (suites / "more").mkdir(parents=True)
    (suites / "model.py").write_text(corner(SIZES["beside"]))
    (suites / "more" / "model.py").write_text(corner(SIZES["below"]))
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "corner_of_a_module.py").write_text(corner(SIZES["module"]))
    content = {
        "title": "three corners",
        "reference": "beside",
        "data": {"root": str(data_root)},
        "plan": PLAN,
        "defaults": {"adapter": "model.py"},
        "cases": {
            "beside": {},
            "below": {"adapter": "more/model.py"},
            "module": {"adapter": "corner_of_a_module:build"},
        },
    }
    (suites / "corners.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "corner_of_a_module", raising=False)  # of another test
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_files_and_modules_are_measured_and_recorded_by_what_was_named(folder):
    done = lisabench("run", "suites/corners.yaml", "--out", "out")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((folder / "out" / "run.json").read_text())
    entries = {entry["name"]: entry for entry in manifest["cases"]}
    files = {
        "beside": "suites/model.py",
        "below": "suites/more/model.py",
        "module": "site/corner_of_a_module.py",
    }
    for name, file in files.items():
        assert entries[name]["adapter_sha256"] == sha256(folder / file)
        settings = entries[name]["settings"]
        assert settings["size_px"] == SIZES[name]
        # Cases of the same settings count as one model. Two files that give themselves the same
        # settings must not.
        assert settings["adapter"] == entries[name]["adapter"]
        assert settings["adapter_sha256"] == sha256(folder / file)[:12]
    assert entries["beside"]["adapter"] == "suites/model.py"
    assert entries["below"]["adapter"] == "suites/more/model.py"
    assert entries["module"]["adapter"] == "corner_of_a_module:build"
    summary = json.loads((folder / "out" / "summary.json").read_text())
    scores = {case["name"]: case["quality"]["gIoU"] for case in summary["cases"]}
    assert scores["beside"] < scores["module"] < scores["below"]
    assert not list(folder.glob("suites/**/__pycache__"))


def test_a_resumed_run_refuses_a_changed_file_and_goes_on_with_the_first(folder):
    begun = lisabench("run", "suites/corners.yaml", "--out", "out", "--stop-after", "1e-9")
    assert begun.returncode == 3, begun.stderr
    for name in ("suites/model.py", "suites/more/model.py", "site/corner_of_a_module.py"):
        before = (folder / name).read_text()
        (folder / name).write_text(before + "# another file\n")
        refused = lisabench("run", "--resume", "--out", "out")
        assert refused.returncode == 2
        last_line = refused.stderr.splitlines()[-1]
        assert last_line.startswith("lisabench: the file of adapter ")
        assert "was changed since the run in out was begun" in last_line
        (folder / name).write_text(before)
    assert lisabench("run", "--resume", "--out", "out").returncode == 0


def test_a_path_of_the_command_line_is_from_the_current_folder(folder):
    (folder / "third.py").write_text(corner(3))
    suite = suite_file.load("suites/corners.yaml", {"below.adapter": "third.py"})
    sizes = {case.name: case.config.size_px for case in suite.models}
    assert sizes == {"beside": 4, "below": 3, "module": 6}


def test_a_sweep_over_files_names_them_from_the_suite(folder):
    path = folder / "suites" / "swept.yaml"
    content = yaml.safe_load((folder / "suites" / "corners.yaml").read_text())
    del content["defaults"]
    content |= {"cases": {"beside": {}}, "sweep": {"adapter": ["model.py", "more/model.py"]}}
    path.write_text(yaml.safe_dump(content))
    suite = suite_file.load("suites/swept.yaml")
    assert [case.config.size_px for case in suite.models] == [4, 9]


def test_a_mapping_that_stands_twice_is_joined_to_the_folder_once(folder):
    text = """
title: an alias
reference: a
cases: {a: &shared {adapter: model.py}, b: *shared}
"""
    (folder / "suites" / "alias.yaml").write_text(text)
    suite = suite_file.load("suites/alias.yaml")
    assert [case.adapter for case in suite.models] == ["suites/model.py"] * 2


IN_A_WORKER = """
import multiprocessing
if multiprocessing.parent_process() is not None:
    {}
"""


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("raise ValueError('not in a worker')", "ValueError: not in a worker"),
        ("import nowhere", "No module named 'nowhere'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_an_import_that_fails_in_a_worker_is_a_status_of_its_case(folder, statement, reason):
    source = corner(SIZES["below"]) + IN_A_WORKER.format(statement)
    (folder / "suites" / "more" / "model.py").write_text(source)
    done = lisabench("run", "suites/corners.yaml", "--out", "out")
    assert done.returncode == 5
    assert "Traceback" not in done.stderr
    manifest = json.loads((folder / "out" / "run.json").read_text())
    entries = {entry["name"]: entry for entry in manifest["cases"]}
    assert reason in entries["below"]["error"]
    assert entries["beside"]["error"] is None and entries["module"]["error"] is None


@pytest.mark.parametrize("name", ["suites/model.py", "suites/more/model.py"])
def test_a_file_that_is_changed_while_it_is_measured_is_refused_by_the_worker(folder, name):
    config = registry.make_case(name, {})
    sent = SentConfig(name, registry.source_sha256(name), pickle.dumps(config))
    assert sent.opened() == config
    (folder / name).write_text(corner(5))
    with pytest.raises(RuntimeError, match="was changed after the run had begun"):
        sent.opened()
    # A new run in the same process reads the new file.
    assert registry.make_case(name, {}).size_px == 5


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (None, "there is no file"),
        ("raise ValueError('two\\nlines')", r"ValueError: two lines"),
        ("import nowhere", "No module named 'nowhere'"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("def build(:", "SyntaxError"),
        (b"\xff\xfe\x00", "SyntaxError|ValueError"),
        ("build = 3", "it defines no function 'build'"),
        ("", "it defines no function 'build'"),
        ("def build(case, probe): pass", "must annotate `case`"),
        ("def build(case: 'Nowhere', probe): pass", "NameError: name 'Nowhere' is not defined"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(tmp_path, monkeypatch, source, problem):
    monkeypatch.chdir(tmp_path)
    if isinstance(source, str):
        source = source.encode()
    if source is not None:
        Path("model.py").write_bytes(source)
    with pytest.raises(UsageError, match=problem) as caught:
        registry.make_case("model.py", {})
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("adapter 'model.py'")


@pytest.mark.parametrize("name", ["nowhere:build", "json:built", "json:", ":build", "..json:dumps"])
def test_what_is_wrong_with_a_module_is_one_line(name):
    with pytest.raises(UsageError) as caught:
        registry.find(name)
    assert str(caught.value).startswith(f"adapter {name!r}: it ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["suites/model.py", "corner_of_a_module:build"])
@pytest.mark.usefixtures("folder")
def test_list_shows_the_settings_of_a_file_or_a_module(name):
    done = lisabench("list", name, "--json")
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    size_px = 4 if name.endswith(".py") else 6
    assert listed == {"adapters": {name: ""}, "settings": {"size_px": f"(int) [{size_px}]"}}


def test_what_a_file_prints_is_no_output_of_the_command(folder):
    with (folder / "suites" / "model.py").open("a") as file:
        file.write("print('loaded')\n")
    done = lisabench("list", "suites/model.py", "--json")
    assert json.loads(done.stdout)["settings"]
    assert done.stderr == "loaded\n"


def test_list_refuses_a_file_that_is_not_there(folder):
    done = lisabench("list", "nowhere.py")
    assert (done.returncode, done.stdout) == (2, "")
    reason = f"there is no file {folder / 'nowhere.py'}"
    assert done.stderr == f"lisabench: adapter 'nowhere.py': it cannot be loaded ({reason})\n"


RAISES_OURS = """
from lisabench.harness.errors import UsageError
raise UsageError("there are too many heads")
"""


def test_of_an_error_of_ours_only_the_message_is_shown(tmp_path):
    path = tmp_path / "model.py"
    path.write_text(RAISES_OURS)
    too_long = f"{'x' * 300}.py"
    reasons = {
        str(tmp_path / "nowhere.py"): f"there is no file {tmp_path / 'nowhere.py'}",
        too_long: "the name xxxxxxxxxxxxxxxxxxxx... in a path has 303 bytes; expected at most 255",
        str(path): "there are too many heads",
    }
    for name, reason in reasons.items():
        with pytest.raises(UsageError) as caught:
            registry.find(name)
        assert str(caught.value) == f"adapter {name!r}: it cannot be loaded ({reason})"


@pytest.mark.parametrize("name", [3, ["model.py"], None, "modle"])
def test_what_names_no_adapter_is_refused(name):
    with pytest.raises(UsageError, match="unknown adapter"):
        registry.find(name)


def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "model.py")
    with pytest.raises(UsageError, match="there is no file"):
        registry.find(str(tmp_path / "model.py"))


def test_a_file_of_a_moved_repository_is_read_from_its_worktree(tmp_path, monkeypatch):
    for tree, size_px in (("repository", 4), ("worktree", 7)):
        (tmp_path / tree / "models").mkdir(parents=True)
        (tmp_path / tree / "models" / "model.py").write_text(corner(size_px))
    (tmp_path / "outside.py").write_text(corner(5))
    variables = adapter_files.moved(tmp_path / "repository", tmp_path / "worktree")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path / "repository")
    assert registry.make_case("models/model.py", {}).size_px == 7
    assert registry.make_case("../outside.py", {}).size_px == 5


def test_a_module_that_names_a_file_of_the_current_folder_that_is_not_there_is_no_file_of_it(
    tmp_path, monkeypatch
):
    """That of `torch.ops` is "_ops.py"."""
    repository, worktree = tmp_path / "repository", tmp_path / "worktree"
    repository.mkdir()
    monkeypatch.chdir(repository)
    monkeypatch.setenv(*adapter_files.moved(repository, worktree).popitem())
    module = ModuleType("planted")
    module.__file__ = "planted.py"
    monkeypatch.setitem(sys.modules, "planted", module)
    adapter_files.refuse_modules_of_repository()

    (repository / "planted.py").write_text("")
    with pytest.raises(RunFailed, match="module planted is imported from the working tree"):
        adapter_files.refuse_modules_of_repository()
