"""README and docs are complete, short where they should be, and every link leads somewhere."""

import dataclasses
import re
from pathlib import Path

import pytest
import typer
from places import ROOT

from lisabench import cli
from lisabench.benchmarks.claim import Claim
from lisabench.benchmarks.suite import Data, Plan
from lisabench.benchmarks.suite_file import KEYS
from lisabench.harness import errors
from lisabench.harness.metrics import METRICS
from lisabench.harness.protocols import PROTOCOLS
from lisabench.models import registry
from lisabench.models.lisa.config import LisaConfig
from lisabench.models.lisa.presets import PRESETS
from lisabench.models.training.recipes import LOSSES, RECIPES
from lisabench.reports.gate.thresholds import Gate
from lisabench.reports.run.claims import QUANTITIES

pytestmark = pytest.mark.no_clock

DOCS = sorted((ROOT / "docs").glob("*.md"))
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "results" / "README.md",
    *DOCS,
]
by_name = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)


def test_the_readme_has_at_most_180_lines():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 180


# Links


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def links(text: str) -> list[str]:
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    return [target for target in targets if not re.match(r"https?:|mailto:", target)]


def anchors(document: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a document."""
    headings = re.findall(r"^#+ (.*)$", without_blocks(document.read_text()), re.MULTILINE)
    lowered = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in lowered}


def broken(text: str, document: Path) -> list[str]:
    problems = []
    for target in links(without_blocks(text)):
        path, _, anchor = target.partition("#")
        file = (document.parent / path) if path else document
        if not file.exists() or (anchor and anchor not in anchors(file)):
            problems.append(target)
    return problems


@by_name
def test_every_relative_link_leads_somewhere(document):
    assert broken(document.read_text(), document) == []


def test_planted_broken_links_are_found():
    readme = ROOT / "README.md"
    text = "[a](docs/nowhere.md) [b](docs/gate.md#nothing) [c](docs/gate.md#in-ci)"
    assert broken(text, readme) == ["docs/nowhere.md", "docs/gate.md#nothing"]


def missing_paths(text: str) -> list[str]:
    """Return the paths in backticks that look like files of this repository and do not exist."""
    top_level = {path.name for path in ROOT.iterdir()} - {"runs"}
    problems = []
    for path in re.findall(r"`([\w.*-]+(?:/[\w.*-]*)*)`", text):
        is_of_a_folder = "/" in path and path.split("/")[0] in top_level
        is_at_the_top = re.fullmatch(r"[\w-]+\.(toml|yml)|cli\.py|Makefile|[A-Z]+\.md", path)
        if (is_of_a_folder or is_at_the_top) and not any(ROOT.glob(path)):
            problems.append(path)
    return problems


@by_name
def test_every_path_in_backticks_exists(document):
    assert missing_paths(without_blocks(document.read_text())) == []


def test_a_planted_path_is_found():
    text = "`harness/mesure.py`, `harness/measure.py`, `action.yml`, `acton.yml`, `DIR/val/x.jpg`"
    assert missing_paths(text) == ["harness/mesure.py", "acton.yml"]


def test_every_page_of_docs_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text()
    for page in DOCS:
        assert page.name == "README.md" or f"]({page.name})" in index, page.name


# Every name has a sentence


def section(document: str, heading: str = "") -> str:
    text = (ROOT / "docs" / document).read_text()
    if not heading:
        return text
    (body,) = re.findall(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, re.M | re.S)
    return body


def described(text: str) -> dict[str, list[str]]:
    """Return the cells of each table row by each name in its first cell."""
    rows = {}
    for line in text.splitlines():
        first, *rest = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            for name in re.findall(r"`([^`]+)`", first):
                assert rest[-1], f"{name} has no sentence"
                rows[name] = rest
    return rows


TABLES = {
    "keys of a suite": ("suites.md", "Keys", KEYS),
    "keys of a claim": ("suites.md", "Claims", Claim.model_fields),
    "quantities": ("suites.md", "Quantities of claims", QUANTITIES),
    "plan": ("settings.md", "`plan`", Plan.model_fields),
    "data": ("settings.md", "`data`", Data.model_fields),
    "gate": ("settings.md", "`gate`", Gate.model_fields),
    "lisa": ("settings.md", "Adapter `lisa`", registry.settings_of("lisa")),
    "fake": ("settings.md", "Adapter `fake`", registry.settings_of("fake")),
    "adapters": ("adapters.md", "Shipped adapters", registry.ADAPTERS),
    "metrics": ("metrics.md", "Metrics", METRICS),
    "protocols": ("metrics.md", "Protocols", PROTOCOLS),
    "recipes": ("training.md", "Training", RECIPES),
    "presets": ("data.md", "Presets", PRESETS),
}


@pytest.mark.parametrize("table", TABLES)
def test_each_name_has_a_row_and_no_row_is_of_another_name(table):
    document, heading, names = TABLES[table]
    assert set(described(section(document, heading))) == set(names)


def test_every_shipped_suite_has_a_row():
    shipped = {path.stem for path in (ROOT / "benchmarks" / "suites").glob("*.yaml")}
    assert set(described(section("suites.md", "Shipped suites"))) == shipped


def test_every_loss_is_named():
    options = described(section("training.md", "Options"))
    assert set(re.findall(r"`([\w-]+)`", options["--losses"][-1])) == set(LOSSES)


def test_no_adapter_with_settings_is_without_a_table():
    with_settings = {name for name in registry.ADAPTERS if registry.settings_of(name)}
    assert with_settings == {"lisa", "fake"}


def shown(default: object) -> str | None:
    """Return a default as the tables show it; None where they use words."""
    if default is None or default == {} or isinstance(default, bool):
        return None
    return f"{default:g}" if isinstance(default, float) else str(default)


@pytest.mark.parametrize(
    ("heading", "column", "defaults"),
    [
        ("Adapter `lisa`", 1, registry.settings_of("lisa")),
        ("Adapter `fake`", 0, registry.settings_of("fake")),
        ("`plan`", 0, {name: field.default for name, field in Plan.model_fields.items()}),
        ("`data`", 0, {name: field.default for name, field in Data.model_fields.items()}),
        ("`gate`", 0, {name: field.default for name, field in Gate.model_fields.items()}),
    ],
)
def test_the_defaults_are_those_of_the_code(heading, column, defaults):
    rows = described(section("settings.md", heading))
    for name, default in defaults.items():
        if shown(default) is not None:
            assert rows[name][column].strip("`") == shown(default), name


def test_the_values_of_lisa_are_those_of_the_code():
    rows = described(section("settings.md", "Adapter `lisa`"))
    for name, values in LisaConfig.KNOWN.items():
        named = set(re.findall(r"`([\w:-]+)`", rows[name][0]))
        joined = {part for value in values for part in value.split("+")}
        assert named == joined, name


# Commands and exit codes


def all_commands(group=None, path: str = "lisabench") -> dict[str, object]:
    """Return every command by the words that start it."""
    found = {}
    for name, command in (group or typer.main.get_command(cli.app)).commands.items():
        words = f"{path} {name}"
        found |= all_commands(command, words) if hasattr(command, "commands") else {words: command}
    return found


WRITTEN = "\n".join(document.read_text() for document in DOCUMENTS)


@pytest.mark.parametrize("command", all_commands())
def test_every_command_is_in_the_readme(command):
    readme = (ROOT / "README.md").read_text()
    assert f"`{command}`" in readme or f"`{command.removeprefix('lisabench ')}`" in readme


@pytest.mark.parametrize(("words", "command"), all_commands().items(), ids=str)
def test_every_option_is_in_the_documents(words, command):
    for parameter in command.params:
        for option in parameter.opts:
            if option.startswith("--") and option != "--help":
                assert re.search(rf"{option}(?![\w-])", WRITTEN), f"{words} {option}"


@pytest.mark.parametrize(("words", "command"), all_commands().items(), ids=str)
def test_every_option_may_be_spelled_with_hyphens_or_underscores(words, command):
    # As the group hands its settings to each command.
    context = typer.main.get_command(cli.app).make_context("lisabench", [], resilient_parsing=True)
    own_context = command.context_class(command, parent=context)
    parser = command.make_parser(own_context)
    for parameter in command.params:
        for option in [option for option in parameter.opts if option.startswith("--")]:
            value = [] if parameter.is_flag or parameter.count else ["1"]
            name = option.removeprefix("--")
            for spelling in (name.replace("_", "-"), name.replace("-", "_")):
                values, rest, _ = parser.parse_args([f"--{spelling}", *value])
                assert values.get(parameter.name) and not rest, f"{words} --{spelling}"


def test_every_exit_code_is_in_its_table():
    rows = set(re.findall(r"^\| (\d+) \|", section("gate.md", "Exit codes"), re.MULTILINE))
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    of_errors = {kind.exit_code for kind in kinds if issubclass(kind, errors.LisabenchError)}
    others = {0, 1, 3, 130}  # fine, a problem was found, inconclusive or unfinished, interrupted
    assert rows == {str(code) for code in of_errors | others}


def test_every_setting_of_the_dataclasses_is_checked():
    """`registry.settings_of` gives every field, so that a new one needs a sentence."""
    fields = {field.name for field in dataclasses.fields(LisaConfig)}
    assert fields == set(registry.settings_of("lisa"))
