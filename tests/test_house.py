"""The rules of the house: who may import whom, what the package holds, what --help imports."""

import ast
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import yaml
from import_graph import circles, import_graph, imports_of, modules
from places import ROOT

import lisabench
from lisabench.benchmarks.gate.versions import ROOMS

pytestmark = pytest.mark.no_clock

MAY_IMPORT = {
    "harness": set(),
    "models": {"harness"},
    "datasets": {"harness"},
    "reports": {"harness"},
    "benchmarks": {"harness", "models", "datasets", "reports"},
}


GRAPH = import_graph()


def rooms_above(module: str, imported: set[str]) -> set[str]:
    """The imported modules that lie in rooms which the module's room must not see."""
    room = module.split(".")[0]
    allowed = MAY_IMPORT[room] | {room}
    return {other for other in imported if other.split(".")[0] not in allowed}


@pytest.mark.parametrize("module", [name for name in GRAPH if name != "cli"])
def test_imports_run_downwards_only(module):
    assert not rooms_above(module, GRAPH[module])


@pytest.mark.parametrize(
    "planted",
    [
        "from ..reports.page import page",
        "from ..reports.page.page import write_report",
        "from lisabench.reports.page import page",
        "import lisabench.reports.page.page",
        "def f():\n    from lisabench.reports.page.page import write_report",
    ],
)
def test_an_upward_import_is_found(planted):
    imported = imports_of(planted, "models.planted", set(GRAPH))
    assert rooms_above("models.planted", imported) == {"reports.page.page"}


# What a folder may import from the other folders of its room. The files that lie in a room itself
# are shared by its folders.
FOLDERS_BELOW = {
    "harness.records": set(),
    "harness.statistics": {"harness.records"},
    "models.lisa": set(),
    "models.checkpoints": {"models.lisa"},
    "models.execution": {"models.lisa"},
    "models.adapters": {"models.lisa", "models.checkpoints", "models.execution"},
    "models.training": {"models.lisa", "models.checkpoints", "models.adapters"},
    "datasets.layouts": set(),
    "datasets.scenes": set(),
    "reports.training": set(),
    "reports.run": {"reports.training"},
    "reports.page": {"reports.training", "reports.run"},
    "reports.html": {"reports.training", "reports.run"},
    "reports.study": {"reports.training", "reports.run"},
    "reports.gate": set(),
    "reports.export": {"reports.training", "reports.run", "reports.gate"},
    "reports.published": {"reports.training", "reports.run", "reports.study", "reports.gate"},
    "benchmarks.training": set(),
    "benchmarks.run": {"benchmarks.training"},
    "benchmarks.gate": {"benchmarks.training", "benchmarks.run"},
    "benchmarks.study": set(),
}
LARGEST_FOLDER = 22


def folder_of(module: str) -> str:
    """Return the folder of a module: ``models.lisa`` for ``models.lisa.config``, or a room."""
    return module.rpartition(".")[0]


def folders_above(module: str, imported: set[str]) -> set[str]:
    """Return the imported modules in folders of the same room that the module must not see."""
    folder = folder_of(module)
    room = module.split(".")[0]
    found = set()
    for other in imported:
        allowed = {folder, room} | FOLDERS_BELOW[folder]
        if other.startswith(f"{room}.") and folder_of(other) not in allowed:
            found.add(other)
    return found


MODULES_IN_FOLDERS = [name for name in GRAPH if name.count(".") == 2]


@pytest.mark.parametrize("module", MODULES_IN_FOLDERS)
def test_imports_between_the_folders_of_a_room_run_downwards_only(module):
    assert not folders_above(module, GRAPH[module])


def test_an_upward_import_between_folders_is_found():
    imported = {"models.adapters.lisa", "models.lisa.config", "harness.errors"}
    assert folders_above("models.lisa.network", imported) == {"models.adapters.lisa"}


def test_every_folder_is_known_and_small_enough_to_be_read():
    sizes = Counter(folder_of(name) for name in GRAPH if name != "cli")
    assert set(sizes) == {*FOLDERS_BELOW, *ROOMS}
    assert max(sizes.values()) <= LARGEST_FOLDER
    assert min(sizes[folder] for folder in FOLDERS_BELOW) >= 3


def test_no_modules_import_each_other():
    assert circles(GRAPH) == []


def test_a_circle_is_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"d"}}
    assert circles(graph) == [["b", "c"], ["d"]]


def test_reports_import_no_torch():
    run_python("import lisabench.reports.run_report, sys; assert 'torch' not in sys.modules")


def test_one_module_imports_matplotlib_without_the_users_settings():
    importing = set()
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                imported = [node.module or ""]
            if any(other.split(".")[0] == "matplotlib" for other in imported):
                importing.add(name)
    assert importing == {"reports.plotting"}


# What starts processes, and the argument that says how. Python's own choice depends on its version.
START_METHODS = {"DataLoader": "multiprocessing_context", "ProcessPoolExecutor": "mp_context"}


def test_how_processes_are_started_is_said_wherever_they_are():
    calls = []
    for path in modules().values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in START_METHODS:
                needed = START_METHODS[ast.unparse(node.func)]
                assert needed in [keyword.arg for keyword in node.keywords], f"{path}: {needed}"
                calls.append(path.name)
            elif isinstance(node, ast.Call):
                direct = ("multiprocessing.Process", "multiprocessing.Pool", "Process", "Pool")
                assert ast.unparse(node.func) not in direct, path
    assert sorted(calls) == ["decoding.py", "subprocesses.py", "trainer.py"]


def test_the_hugging_face_package_named_datasets_is_not_hidden(tmp_path):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").write_text("REAL = True")
    run_python(
        f"import sys; sys.path.append({str(tmp_path)!r}); import datasets; assert datasets.REAL",
        cwd=ROOT,
    )


HELP = """
import sys
from lisabench.cli import main
sys.argv = ["lisabench", "--help"]
try:
    main()
except SystemExit as ended:
    assert not ended.code
print(*sys.modules, file=sys.stderr)
"""


def test_help_imports_no_heavy_library():
    """Which is what makes it instant; `benchmarks/micro` times it."""
    done = subprocess.run([sys.executable, "-c", HELP], check=True, capture_output=True, text=True)
    assert "Usage" in done.stdout
    imported = {name.partition(".")[0] for name in done.stderr.split()}
    assert {"lisabench", "typer"} <= imported
    heavy = {
        "accelerate",
        "cv2",
        "matplotlib",
        "numpy",
        "pandas",
        "pydantic",
        "scipy",
        "torch",
        "transformers",
    }
    assert not heavy & imported


def test_every_file_of_tests_may_run_beside_others_but_the_gpus():
    alone = [
        path.parent.name
        for path in (ROOT / "tests").rglob("test_*.py")
        if "pytest.mark.no_clock" not in path.read_text()
    ]
    assert set(alone) == {"cuda"}


def test_the_source_distribution_holds_the_package_and_no_tests(tmp_path):
    build = "from setuptools.build_meta import build_sdist; build_sdist('dist')"
    clone = _copy(tmp_path)
    command = [sys.executable, "-c", build]
    subprocess.run(command, cwd=clone, check=True, capture_output=True, text=True)
    (path,) = (clone / "dist").glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    expected = {*_package(), "pyproject.toml", "README.md", "LICENSE"}
    assert expected <= names
    assert not [name for name in names if name.startswith("tests")]


def test_the_citation_names_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == lisabench.__version__


def test_the_wheel_holds_the_rooms_and_nothing_else(tmp_path):
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    clone = _copy(tmp_path)
    command = [sys.executable, "-m", "pip", "wheel", *options, str(clone)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    held = {name.removeprefix("lisabench/") for name in names if name.startswith("lisabench/")}
    assert held == _package()


def _package() -> set[str]:
    """Return the tracked files that are installed: all of the rooms, but no benchmarks of ours."""
    tops = {*ROOMS, "__init__.py", "__main__.py", "cli.py", "py.typed"}
    installed = set()
    for name in _tracked():
        if name.split("/")[0] in tops and not name.startswith("benchmarks/micro/"):
            installed.add(name)
    return installed


@pytest.mark.parametrize("room", ROOMS)
def test_each_folder_of_a_room_is_in_the_package(room):
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / room).rglob("*.py")}
    expected = {"lisabench." + ".".join(folder.parts) for folder in folders}
    expected.discard("lisabench.benchmarks.micro")
    in_room = f"lisabench.{room}"
    listed = {name for name in settings["packages"] if f"{name}.".startswith(f"{in_room}.")}
    assert listed == expected


def _tracked() -> list[str]:
    command = ["git", "ls-files", "-z"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return list(filter(None, done.stdout.split("\0")))


def _copy(folder: Path) -> Path:
    """The tracked files only, as a fresh clone has them, so that no stale build folder gets in."""
    for name in _tracked():
        target = folder / "clone" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    return folder / "clone"


def run_python(code: str, cwd: Path | None = None) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# What commands print has text from outside in it, which must not act on a terminal or in CI.
PRINTING = ("print", "typer.echo", "sys.stdout.write", "sys.stderr.write", "rich.print", "Console")


def prints(source: str) -> list[str]:
    """Return the calls in a module that write to a stream by themselves."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [name for name in (ast.unparse(call.func) for call in calls) if name in PRINTING]


def test_all_that_is_printed_goes_through_one_module():
    for room in (*MAY_IMPORT, "cli.py"):
        for path in [ROOT / room] if room == "cli.py" else sorted((ROOT / room).rglob("*.py")):
            if path.relative_to(ROOT) != Path("harness/terminal.py"):
                assert not prints(path.read_text()), path


@pytest.mark.parametrize("planted", ["print(x)", "f(typer.echo(x))", "sys.stderr.write(x)"])
def test_a_print_is_found(planted):
    assert prints(planted)
