"""The examples of README and docs work.

What is tested follows from the language of a fenced block:

- ``yaml``: a suite, or a part of one, is validated as `lisabench run` validates it.
- ``python``: executed in a temporary folder.
- ``console``: every ``lisabench`` command line is parsed by the command line's own parser. A block
  that shows output, too, is carried out, and must print just that.
- ``json`` and ``toml``: parsed.
"""

import ast
import dataclasses
import importlib.util
import json
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import typer
import yaml
from command import lisabench
from places import ROOT
from samples import sample_of

import lisabench as package
from lisabench import cli
from lisabench.benchmarks import suite_file
from lisabench.benchmarks.run import from_python
from lisabench.datasets.layouts import known
from lisabench.harness.errors import UsageError
from lisabench.harness.probe import NullProbe
from lisabench.models import registry
from lisabench.models.lisa import packaged, weights_format
from lisabench.models.lisa.presets import PRESETS

pytestmark = pytest.mark.no_clock

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    document: Path
    language: str
    text: str
    line: int

    def __str__(self) -> str:
        return f"{self.document.name}:{self.line}"


def blocks_of(document: Path) -> list[Block]:
    text = document.read_text(encoding="utf-8")
    blocks = []
    for found in FENCED.finditer(text):
        line = text[: found.start()].count("\n") + 1
        blocks.append(Block(document, found[1], found[2], line))
    return blocks


BLOCKS = [block for document in DOCUMENTS for block in blocks_of(document)]
LANGUAGES = {"", "console", "json", "python", "toml", "yaml"}


def blocks_in(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


def test_every_block_is_of_a_language_that_is_tested():
    assert {block.language for block in BLOCKS} == LANGUAGES


# The example of an adapter


def adapter_block(language: str, words: str, document: str = "adapters.md") -> Block:
    """Return the block of a document in this language that holds these words."""
    (block,) = [
        block
        for block in blocks_in(language)
        if block.document.name == document and words in block.text
    ]
    return block


@pytest.fixture
def example_folder(tmp_path, monkeypatch) -> Path:
    """The current folder, with the files and the suite that the pages say to save in it."""
    stand_in = adapter_block("python", "def build(", "gate.md")
    (tmp_path / "stand_in.py").write_text(stand_in.text)
    (tmp_path / "my_model.py").write_text(adapter_block("python", "def build(").text)
    (tmp_path / "bright.yaml").write_text(adapter_block("yaml", "my_model.py").text)
    (tmp_path / "lisa-7b").mkdir()  # data.md converts it
    packaged_weights = weights_format.read(packaged.located("tiny", "dual"))
    weights_format.write(
        tmp_path / "lisa-7b",
        dataclasses.replace(packaged_weights, preset="lisa-7b", sizes=PRESETS["lisa-7b"]),
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


FEWER = ["--limit", "4", "--set", "processes=1", "--set", "memory_processes=1"]


def test_a_file_a_suite_and_the_command_give_a_table(example_folder):
    """All three are as on the page, in a new process that knows nothing of this one."""
    (line,) = shell_lines(adapter_block("console", "bright.yaml").text)
    arguments = arguments_of(shlex.split(line))
    done = subprocess.run(
        [sys.executable, "-m", "lisabench.cli", *arguments, *FEWER],
        cwd=example_folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert " low " in done.stdout and " high " in done.stdout


@pytest.mark.parametrize("name", ["my-model", "my_package.my_module:build"])
def test_a_package_names_the_example_by_its_registered_name_and_by_its_module(
    tmp_path, monkeypatch, name
):
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "my_module.py").write_text(adapter_block("python", "def build(").text)
    points = tomllib.loads(adapter_block("toml", registry.GROUP).text)["project"]["entry-points"]
    assert points[registry.GROUP] == {"my-model": "my_package.my_module:build"}
    monkeypatch.setattr(registry, "_of_other_packages", lambda: points[registry.GROUP])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_package", raising=False)
    monkeypatch.delitem(sys.modules, "my_package.my_module", raising=False)
    assert registry.settings_of(name) == {"threshold": 128}


def test_the_line_that_registers_the_example_is_as_the_other_lines():
    text = adapter_block("", "my-model").text
    assert ast.literal_eval("{" + text + "}") == {
        "my-model": "lisabench.models.adapters.my_model:build"
    }


# Suites

WORKFLOW = "# .github/workflows/"  # `tests/benchmarks/gate/test_workflows.py` runs it
COMPLETE = {
    "name": "example",
    "title": "A suite that a part of one is put into",
    "reference": "dual",
    "defaults": {"adapter": "lisa"},
    "cases": {
        "dual": {"vision": "dual"},
        "clip": {"vision": "clip"},
        "dual-nf4": {"vision": "dual", "quantization": "nf4"},
        "clip-nf4": {"vision": "clip", "quantization": "nf4"},
        "rounded": {"precision": "bf16"},
    },
}
SUITES = [block for block in blocks_in("yaml") if not block.text.startswith(WORKFLOW)]


def validated(text: str):
    content = yaml.safe_load(text)
    base = {"name": "example"} if "cases" in content else COMPLETE
    return suite_file.validate({**base, **content})


@pytest.mark.parametrize("block", SUITES, ids=str)
@pytest.mark.usefixtures("example_folder")
def test_a_suite_or_a_part_of_one_is_valid(block):
    assert validated(block.text).models


def test_a_planted_key_is_found():
    with pytest.raises(UsageError, match="unknown key of a suite 'referense'"):
        validated("referense: dual")


# Programs


@pytest.mark.usefixtures("example_folder")
def test_the_example_of_an_adapter_answers_with_the_pixels_that_it_promises():
    name = "my_model.py"
    assert registry.settings_of(name) == {"threshold": 128}
    with pytest.raises(UsageError, match="unknown setting"):
        registry.make_case(name, {"thresold": 1})

    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    black = sample_of(np.ones((24, 32), np.uint8))
    sample = dataclasses.replace(black, pixels=lambda: image)
    adapter = registry.find(name)(registry.make_case(name, {"threshold": 100}), NullProbe())
    inputs = adapter.preprocess([sample])
    features = adapter.vision(inputs)
    answers = adapter.llm(inputs, features)
    decoded = adapter.decoder(inputs, features, answers)
    (prediction,) = adapter.postprocess(inputs, answers, decoded)
    adapter.close()
    assert np.array_equal(prediction.mask_HW, image.mean(axis=2) > 100)


def test_no_other_program_is_left_out():
    """`tests/reports/test_load.py` and `tests/reports/export/test_coco.py` run those of records,
    `tests/benchmarks/test_segmenter.py` that of one image."""
    others = [block.text for block in blocks_in("python") if "def build(" not in block.text]
    assert len(others) == 4
    assert "lisabench.run(" in others[0]
    assert "lisabench.load(" in others[1]
    assert "lisabench.masks(" in others[2]
    assert "lisabench.Segmenter(" in others[3]


def test_the_example_of_a_run_from_python_asks_for_what_the_suite_has(monkeypatch):
    (example,) = [block.text for block in blocks_in("python") if "lisabench.run(" in block.text]
    asked = []

    def measured(suite, **changes):
        asked.append(suite_file.load(suite, from_python.flat(changes)))
        return Mock()

    monkeypatch.setattr(package, "run", measured)
    exec(example, {"__name__": "__main__"})
    (suite,) = asked
    assert suite.plan.processes == 5
    assert suite.case("clip").given["precision"] == "bf16"


@pytest.mark.parametrize("block", blocks_in("json"), ids=str)
def test_json_is_json(block):
    assert json.loads(block.text)


@pytest.mark.parametrize("block", blocks_in("toml"), ids=str)
def test_toml_names_the_entry_points_that_are_read(block):
    points = tomllib.loads(block.text)["project"]["entry-points"]
    assert set(points) <= {registry.GROUP, known.GROUP}


# Command lines


def shell_lines(text: str) -> list[str]:
    """Return the lines that are typed, without the prompt; continued ones are one line."""
    joined = text.replace("\\\n", " ")
    return [line[2:] for line in joined.splitlines() if line.startswith("$ ")]


def with_first_values(line: str) -> str:
    """Return a line of the shell with each variable of a loop replaced by its first value."""
    for name, values in re.findall(r"for (\w+) in ([^;]+);", line):
        line = line.replace(f"${name}", values.split()[0])
    return line


def arguments_of(words: list[str]) -> list[str] | None:
    """Return the arguments of lisabench in a command; None where another program is called."""
    while words and (words[0] == "do" or "=" in words[0]):
        words = words[1:]
    if words and Path(words[0]).name == "lisabench":
        return words[1:]
    if "lisabench.cli" in words:  # by python -m, or by accelerate launch -m
        return words[words.index("lisabench.cli") + 1 :]
    return None


def calls_in(line: str) -> list[list[str]]:
    """Return the arguments of each call of lisabench in a shell line."""
    lexer = shlex.shlex(with_first_values(line), posix=True, punctuation_chars=";&|")
    lexer.whitespace_split = True
    commands, words = [], []
    for token in [*lexer, ";"]:
        if set(token) <= set(";&|"):
            commands.append(words)
            words = []
        else:
            words.append(token)
    arguments = [arguments_of(command) for command in commands]
    return [call for call in arguments if call is not None]


def parsed(arguments: list[str]) -> tuple[str, dict]:
    """Return the name of the command and its parameters; nothing is carried out."""
    command = typer.main.get_command(cli.app)
    context = command.make_context("lisabench", list(arguments))
    name = ""
    while hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
    return name, context.params


CALLS = [
    call
    for block in blocks_in("console")
    for line in shell_lines(block.text)
    for call in calls_in(line)
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: " ".join(call)[:80])
def test_a_command_line_is_understood(call, tmp_path, monkeypatch):
    name, parameters = parsed(call)
    assert name in COMMANDS
    if name == "run":
        suite = parameters["suite"] or "tiny"
        changes = {}
        for change in parameters["changes"] or []:
            key, _, value = change.partition("=")
            changes[key] = yaml.safe_load(value)
        if suite in suite_file.shipped_names() and "..." not in " ".join(call):
            monkeypatch.chdir(tmp_path)
            assert suite_file.load(suite, changes)
        else:
            assert suite in suite_file.shipped_names() or suite.endswith(".yaml")


def test_there_are_command_lines_of_every_command():
    named = {parsed(call)[0] for call in CALLS}
    rows = set(
        re.findall(r"`(?:lisabench |data )(?:data )?(\w+)`", (ROOT / "README.md").read_text())
    )
    assert named | rows >= set(COMMANDS)


@pytest.mark.parametrize("line", ["run tiny --limt 3", "runn tiny", "check E"])
def test_a_planted_mistake_on_a_command_line_is_found(line):
    with pytest.raises(Exception, match=r"limt|runn|against"):
        parsed(shlex.split(line))


def python_calls(option: str) -> list[str]:
    """Return what follows ``python -m`` or ``python -c`` on the command lines."""
    found = []
    for block in blocks_in("console"):
        for line in shell_lines(block.text):
            words = shlex.split(line, comments=True)
            if Path(words[0]).name.startswith("python") and words[1] == option:
                found.append(words[2])
    return found


def test_modules_on_command_lines_exist():
    modules = [name for name in python_calls("-m") if name.startswith("lisabench")]
    assert modules
    for name in modules:
        assert importlib.util.find_spec(name), name


def test_programs_on_command_lines_import_what_exists():
    for text in python_calls("-c"):
        tree = ast.parse(text)
        imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
        assert imports
        for node in imports:
            for alias in node.names:
                importlib.import_module(f"{node.module}.{alias.name}")


def commands(group, prefix: str = "") -> dict[str, object]:
    found = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= commands(command, f"{prefix}{name} ")
        else:
            found[name] = command
    return found


COMMANDS = commands(typer.main.get_command(cli.app))
WITH_OUTPUT = [
    block
    for block in blocks_in("console")
    if any(not line.startswith(("$ ", "    ")) for line in block.text.splitlines())
]


def sessions(text: str) -> list[tuple[str, str]]:
    """Return the command lines of a block, each with its output."""
    pairs = []
    for part in text.removeprefix("$ ").split("\n$ "):
        line, _, output = part.partition("\n")
        pairs.append((line, output.strip("\n")))
    return pairs


@pytest.mark.parametrize("block", WITH_OUTPUT, ids=str)
def test_a_block_that_shows_output_prints_just_that(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for line, expected in sessions(block.text):
        (call,) = calls_in(line)
        done = lisabench(*call)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip("\n") == expected


def test_blocks_with_output_are_found():
    assert len(WITH_OUTPUT) >= 2
