"""Each table of README and docs is what its records give, and each table is in a document."""

from collections import Counter

import pytest
from places import ROOT
from rendered_markdown import tokens_of

from lisabench.reports.published.documents import Block, blocks_of, documents, text_for
from lisabench.reports.published.tables import COMMAND, TABLES, main

pytestmark = pytest.mark.no_clock

BLOCKS = [block for document in documents() for block in blocks_of(document)]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.document.name}-{block.name}")
def test_a_block_is_what_its_records_give(block: Block) -> None:
    assert block.content == text_for(block, TABLES), f"write it again: {COMMAND}"


def test_each_table_is_in_a_document() -> None:
    assert {block.name for block in BLOCKS} == set(TABLES)


def test_a_link_of_a_table_leads_to_a_published_report() -> None:
    for block in BLOCKS:
        for target in block.content.split("](")[1:]:
            assert (block.document.parent / target.partition(")")[0]).is_file(), block.place


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_a_block_is_shown_as_one_table_and_its_comments_are_not_shown(block: Block) -> None:
    lines = block.document.read_text(encoding="utf-8").split("\n")
    kinds = Counter(
        token.type for token in tokens_of("\n".join(lines[block.first : block.last + 1]))
    )
    assert (kinds["table_open"], kinds["html_block"]) == (1, 2)
    rows = [line for line in block.content.split("\n") if line.startswith("|")]
    assert kinds["tr_open"] == len(rows) - 1  # the rule is no row


def test_the_command_says_that_nothing_differs(capsys) -> None:
    assert main(["--check"], ROOT) == 0
    assert capsys.readouterr() == ("", "")
