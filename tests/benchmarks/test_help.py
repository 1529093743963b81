"""What the command line says about itself: help, version, completion, the list of settings."""

import dataclasses
import json
import re

import command
import pytest
import typer

import lisabench
from lisabench import cli
from lisabench.benchmarks.catalogue import catalogue, documented_attributes, outline
from lisabench.models import registry

pytestmark = pytest.mark.no_clock

WIDTHS = [60, 80, 120]


def all_commands(group, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    """Return every command and every group of commands, by the words that name it."""
    found = {path: group}
    for name, member in getattr(group, "commands", {}).items():
        found |= all_commands(member, (*path, name))
    return found


COMMANDS = all_commands(typer.main.get_command(cli.app))
each_command = pytest.mark.parametrize("words", COMMANDS, ids=" ".join)


@each_command
@pytest.mark.parametrize("width", WIDTHS)
def test_help_cuts_nothing_and_fits_the_terminal(words, width):
    done = command.lisabench(*words, "--help", COLUMNS=str(width))
    assert done.returncode == 0, done.stderr
    # Dots stand for what may be repeated, and nowhere else for what was left out.
    text = re.sub(r"(ARGS\]|train |RUN2 |\})\s*\.\.\.", "", done.stdout)
    assert "..." not in text and "…" not in text
    for option in (option for parameter in COMMANDS[words].params for option in parameter.opts):
        assert option in text
    assert max(map(len, done.stdout.splitlines())) <= width


@each_command
def test_a_switch_takes_no_value_and_every_option_has_a_sentence(words):
    done = command.lisabench(*words, "-h")
    assert "bool" not in done.stdout
    for parameter in COMMANDS[words].params:
        assert parameter.help.strip(), parameter.name


def test_a_group_lists_its_commands_each_with_a_whole_sentence():
    text = command.lisabench("-h", COLUMNS="60").stdout
    joined = " ".join(text.split())
    for sentence in (
        "report Write summary, figures and report of a run, training or study again from its",
        "list List what can be named: suites, adapters, settings, presets, recipes, metrics,",
        "data Make, import and check data.",
    ):
        assert sentence in joined


def test_the_version_is_printed():
    done = command.lisabench("--version")
    assert (done.returncode, done.stdout) == (0, f"lisabench {lisabench.__version__}\n")


def test_the_shell_completes_commands_options_and_shipped_suites():
    def completed(words: str) -> set[str]:
        count = str(len(words.split(" ")) - 1)
        done = command.lisabench(
            _LISABENCH_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=count
        )
        assert done.returncode == 0, done.stderr
        return set(done.stdout.split())

    assert completed("lisabench se") == {"segment"}
    assert completed("lisabench run --th") == {"--thorough"}
    assert completed("lisabench run factorial") == {"factorial-tiny"}


def test_every_setting_is_listed_with_a_sentence():
    settings = catalogue("settings")["settings"]
    for name, description in settings.items():
        sentence = description.partition(" (")[0].partition(" [")[0]
        assert len(sentence.split()) >= 2, f"{name}: {description}"


@pytest.mark.parametrize("adapter", ["lisa", "fake"])
def test_the_docstring_of_an_adapters_settings_documents_each_of_them(adapter):
    case_type = registry.case_type(adapter)
    fields = {field.name for field in dataclasses.fields(case_type)}
    assert set(documented_attributes(case_type)) == fields


def test_sentences_are_read_from_a_docstring_in_googles_style():
    class Settings:
        """Something.

        Attributes:
            a, b: how far: in ``px``, and
                more of it.
            c: `word`.

        Raises:
            UsageError: never.
        """

    assert documented_attributes(Settings) == {
        "a": "how far: in px, and more of it",
        "b": "how far: in px, and more of it",
        "c": "word",
    }
    assert documented_attributes(int) == {}


@pytest.mark.parametrize("width", WIDTHS)
def test_the_list_fits_a_terminal_and_has_a_line_for_each_name_in_a_file(width):
    everything = catalogue(None)
    names = [name for entries in everything.values() for name in entries]
    assert len(outline(everything).splitlines()) == len(everything) + len(names)
    wrapped = outline(everything, width)
    assert max(map(len, wrapped.splitlines())) <= width
    assert wrapped.split() == outline(everything).split()


def test_the_list_is_wrapped_where_the_width_is_known():
    narrow = command.lisabench("list", "settings", COLUMNS="60").stdout
    assert max(map(len, narrow.splitlines())) <= 60
    as_json = command.lisabench("list", "settings", "--json", COLUMNS="60").stdout
    assert set(json.loads(as_json)) == {"settings"}
