"""The summary of each published run comes out of its records again, with the same numbers."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from places import RESULTS

from lisabench.harness.records.journal import read_any_manifest
from lisabench.harness.records.run import READABLE_RUN_SCHEMAS, read_run
from lisabench.reports.run.summary import summarise

pytestmark = pytest.mark.no_clock

# Sentences may be worded better than they were; the numbers in them stay.
SENTENCES = ("reason", "not_compared")


def published_runs() -> list[Path]:
    folders = sorted(path.parent for path in RESULTS.rglob("summary.json"))
    runs = []
    for folder in folders:
        if (folder / "run.json").is_file() and read_any_manifest(folder)[
            "schema"
        ] in READABLE_RUN_SCHEMAS:
            runs.append(folder)
    return runs


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Return every number, word and null of a summary with the keys that lead to it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        yield (*path, "length"), len(value)
        for place, inner in enumerate(value):
            yield from leaves(inner, (*path, str(place)))
    else:
        yield path, value


def is_of_older_definition(published: dict[tuple[str, ...], Any], path: tuple[str, ...]) -> bool:
    """Return whether a number is a ratio of memory on a CPU by the older definition.

    It compared whole processes, and its summaries do not say how memory is defined. Since then
    the growth of memory is compared.
    """
    if path[0] != "comparisons" or path[2:3] not in (("peak_memory",), ("query_peak_memory",)):
        return False
    return (*path[:2], "memory_definition") not in published


def numbers_in(sentence: str | None) -> list[str]:
    return re.findall(r"\d[\d.,]*\d|\d", sentence or "")


def same(path: tuple[str, ...], before: Any, after: Any) -> bool:
    if isinstance(before, str) and isinstance(after, str):
        if "folders" in path:  # the published runs have been moved
            return Path(before).name == Path(after).name
        if any(key in path for key in SENTENCES):
            return numbers_in(before) == numbers_in(after)
    if isinstance(before, float) and isinstance(after, float):
        return math.isclose(before, after, rel_tol=1e-9, abs_tol=1e-12)
    return before == after


def is_in_a_warning(published: str, computed: list[str]) -> bool:
    """Return whether one of the computed warnings has all numbers of a published one.

    Warnings of one cause were sentences of their own for each case, and are one sentence now.
    """
    of_queries = re.fullmatch(r"(.+): a warning in (\d+ of \d+) records \(.*\)", published)
    if of_queries:  # its other numbers are those of an example; now their range is given
        return any(f"{of_queries[1]} {of_queries[2]}" in warning for warning in computed)
    numbers = Counter(numbers_in(published))
    return any(numbers <= Counter(numbers_in(warning)) for warning in computed)


def test_there_are_published_runs():
    assert {"claims-7b", "claims-described", "cards-7b", "h200", "h200-tiny", "training-7b"} <= {
        folder.name for folder in published_runs()
    }


@pytest.mark.parametrize("folder", published_runs(), ids=lambda folder: folder.name)
def test_a_published_summary_comes_out_of_its_records_again(folder):
    """A newer summary may have further keys; everything that the published one says is in it."""
    published_summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    computed_summary = summarise(read_run(folder)).model_dump(mode="json", by_alias=True)
    differing = []
    warnings = computed_summary.pop("warnings")
    for warning in published_summary.pop("warnings"):
        if not is_in_a_warning(warning, warnings):
            differing.append(("warnings", warning, "missing"))
    published = dict(leaves(published_summary))
    computed = dict(leaves(computed_summary))
    for path, value in published.items():
        if is_of_older_definition(published, path):
            continue
        if path not in computed or not same(path, value, computed[path]):
            differing.append(("/".join(path), value, computed.get(path, "missing")))
    assert not differing
