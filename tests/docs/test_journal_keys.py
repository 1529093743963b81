"""`docs/records.md` has a line for every key that stands in a journal, and for no other."""

import json
import re

import pytest
from places import RESULTS, ROOT
from run_factory import write_run

from lisabench.harness.records.query import BOUNDARY_COUNTS
from lisabench.harness.records.run import FITS, MEMORY, PASSES, QUALITY, SAMPLES

pytestmark = pytest.mark.no_clock

DOCUMENT = (ROOT / "docs" / "records.md").read_text(encoding="utf-8")
SECTION = DOCUMENT.partition("## The lines of the journals\n")[2].partition("\n## ")[0]
# The first part is about all journals, and each other one about those that it begins with.
SHARED, *PARTS = re.split(r"(?=^\*\*`)", SECTION, flags=re.MULTILINE)
# Runs that measured throughput and energy, that have a quality pass, and that were capped to cards.
PUBLISHED = (
    *("claims", "claims-generated", "graphs-7b", "h200-tiny", "fits-8gb", "throughput-7b"),
    "cards-7b",
)
JOURNALS = (SAMPLES, QUALITY, MEMORY, PASSES, FITS)


def keys_of_tables(text: str) -> set[str]:
    """Return what stands in code in the first column of the tables of a text."""
    first_cells = re.findall(r"^\| (.*?) \|", text, re.MULTILINE)
    return set(re.findall(r"`(\w+)`", " ".join(first_cells)))


def documented(journal: str) -> set[str]:
    (part,) = [part for part in PARTS if f"`{journal}`" in part.splitlines()[0]]
    return keys_of_tables(SHARED) | keys_of_tables(part)


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """The lines of each journal, of published runs and of one that this version writes."""
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, queries=4, size=(24, 32))
    lines = {journal: [] for journal in JOURNALS}
    for run in (folder, *(RESULTS / name for name in PUBLISHED)):
        for journal in JOURNALS:
            if (run / journal).exists():
                text = (run / journal).read_text(encoding="utf-8")
                lines[journal] += [json.loads(line) for line in text.splitlines()]
    return lines


@pytest.mark.parametrize("journal", JOURNALS)
def test_every_key_of_a_journal_is_documented_and_no_key_that_none_has(journal, lines):
    written = {key for line in lines[journal] for key in line}
    described = documented(journal)
    assert written <= described
    if journal in (SAMPLES, QUALITY):  # which share a table
        written = {key for shared in (SAMPLES, QUALITY) for line in lines[shared] for key in line}
        written |= set(BOUNDARY_COUNTS)  # no published run is recent enough to have them
    if journal == FITS:
        written |= {"process"}  # the shared table says that it is not in this one
    assert described == written
