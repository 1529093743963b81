"""One loader of YAML, whose documents are bounded and whose values are those of JSON."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lisabench.harness.errors import UsageError
from lisabench.harness.yaml_file import LONGEST, read_yaml

pytestmark = pytest.mark.no_clock

SUITES = sorted(Path("benchmarks/suites").resolve().glob("*.yaml"))


def of_aliases(one: str, levels: int = 12) -> str:
    """Return a few hundred bytes, each line of which names the line before nine times."""
    lines = [f"a0: &a0 {one}"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]")
    return "\n".join(lines)


def of_merges(levels: int = 24) -> str:
    """Return mappings, each of which merges the one before twice."""
    lines = ["a0: &a0 {k: 1}"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} {{<<: [*a{level - 1}, *a{level - 1}]}}")
    return "\n".join(lines)


REFUSED = {
    "lists of aliases": (of_aliases("[x, x]"), "more than 100,000 values"),
    "texts of aliases": (of_aliases("x"), "more than 100,000 values"),
    "merges of merges": (of_merges(), "more than 100,000 values"),
    "a list in itself": ("a: &a [*a]", "contains itself"),
    "a mapping in itself": ("a: &a {b: *a}", "contains itself"),
    "deep lists": ("[" * 40 + "]" * 40, "deeper than 32"),
    "very deep lists": ("[" * 3000, "deeper than 32"),
    "deep keys": ("? " * 3000, "deeper than 32"),
    "a long file": ("#" * (LONGEST + 1), "characters; expected at most"),
    "infinity": ("a: .inf", "no finite number"),
    "a number that overflows": ("a: 1.0e+999", "no finite number"),
    "no number": ("a: .NaN", "no finite number"),
    "an integer that is too long": (f"a: {'9' * 5000}", "not YAML"),
    "an integer of more than 64 bits": (f"a: {2**63}", "an integer of more than"),
    "an escape code": ('a: "\\x1b[2J"', "character"),
    "an escape code in a key": ('"\\x1b[2J": 1', "character"),
    "half a character": ('a: "\\ud800"', "character"),
    "a direction": ('a: "\\u202e"', "character"),
    "an unknown bool": ("a: !!bool maybe", "not YAML"),
    "no integer": ("a: !!int ''", "not YAML"),
    "no float": ("a: !!float x", "not YAML"),
    "bytes": ("a: !!binary eA==", "tag"),
    "a set": ("a: !!set {x}", "tag"),
    "a date by its tag": ("a: !!timestamp 2026-13-45", "tag"),
    "an object": ("a: !!python/object/apply:os.system [x]", "tag"),
    "a list as key": ("? [a]\n: 1", "unhashable"),
    "a key twice": ("a: 1\na: 2", "'a' stands twice"),
    "two documents": ("--- 1\n--- 2", "single document"),
    "no YAML": ("a: @x", "not YAML"),
    "an unknown alias": ("a: *b", "undefined alias"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_is_one_line_that_names_the_source(what):
    text, expected = REFUSED[what]
    with pytest.raises(UsageError, match=expected) as error:
        read_yaml(text, "suite my.yaml")
    assert str(error.value).startswith("suite my.yaml: ")
    assert str(error.value).isprintable() and len(str(error.value)) < 300


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_shipped_suites_are_read_as_pyyaml_reads_them(path):
    assert read_yaml(path.read_text(), path.name) == yaml.safe_load(path.read_text())


def test_a_few_aliases_and_merges_are_fine_and_dates_stay_text():
    text = "a: &a {k: 1}\nb: {<<: *a, j: 2}\nc: {<<: *a, k: 3}\nd: 2026-11-30\ne: [*a, *a]"
    assert read_yaml(text, "x") == {
        "a": {"k": 1},
        "b": {"k": 1, "j": 2},
        "c": {"k": 3},
        "d": "2026-11-30",
        "e": [{"k": 1}, {"k": 1}],
    }
    assert read_yaml("", "x") is None and read_yaml("\ufeffa: 1", "x") == {"a": 1}


@given(st.text(alphabet="ab019.:-_[]{}&*!<>,'\"|#%@?~\\ \n\tx", max_size=40))
def test_anything_is_values_of_json_or_refused(text):
    try:
        content = read_yaml(text, "x")
    except UsageError as error:
        assert str(error).isprintable()
    else:
        json.dumps(content, allow_nan=False)
