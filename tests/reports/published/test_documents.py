"""Blocks of documents: they are found, written and checked, and a broken one is refused."""

import pytest

from lisabench.harness.errors import DataError, UsageError
from lisabench.reports.published.documents import blocks_of, write_blocks
from lisabench.reports.published.records import published_run, published_study
from lisabench.reports.published.tables import main

pytestmark = pytest.mark.no_clock

TEXT = """# Title

<!-- table: one -->
old
<!-- end of table -->

Between.

<!-- table: two -->
<!-- end of table -->
Last line
"""
TABLES = {
    "one": lambda: "| a |\n| --- |\n| 1 |",
    "two": lambda: "See [run](results/run/report.md).",
}


@pytest.fixture
def root(tmp_path):
    """Return a repository with a README and a page that have the same two blocks."""
    (tmp_path / "docs").mkdir()
    for name in ("README.md", "docs/page.md"):
        (tmp_path / name).write_text(TEXT)
    return tmp_path


def written(root, text):
    (root / "README.md").write_text(text)
    return root / "README.md"


def test_blocks_are_written_and_what_is_around_them_stays(root):
    assert write_blocks(root, TABLES) == [root / "README.md", root / "docs" / "page.md"]
    assert (root / "README.md").read_text() == (
        "# Title\n\n<!-- table: one -->\n| a |\n| --- |\n| 1 |\n<!-- end of table -->\n\nBetween.\n"
        "\n<!-- table: two -->\nSee [run](results/run/report.md).\n<!-- end of table -->\n"
        "Last line\n"
    )


def test_a_link_is_seen_from_its_document(root):
    write_blocks(root, TABLES)
    assert "See [run](../results/run/report.md).\n" in (root / "docs" / "page.md").read_text()


def test_a_second_time_nothing_changes(root):
    write_blocks(root, TABLES)
    assert write_blocks(root, TABLES) == []


def test_the_command_prints_which_documents_changed(root, capsys):
    assert main([], root, TABLES) == 0
    assert capsys.readouterr().out.splitlines() == ["README.md", "docs/page.md"]


def test_the_check_names_each_block_that_differs_and_writes_nothing(root, capsys):
    write_blocks(root, TABLES)
    page = root / "docs" / "page.md"
    page.write_text(page.read_text().replace("| 1 |", "| 2 |"))
    assert main(["--check"], root, TABLES) == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == ["docs/page.md:3: the table one is not that of its records"]
    assert "lisabench.reports.published.tables" in err
    assert "| 2 |" in page.read_text()
    main([], root, TABLES)
    assert main(["--check"], root, TABLES) == 0


def test_what_a_code_block_shows_is_no_block(root):
    text = "```html\n<!-- table: one -->\n<!-- end of table -->\n```\n"
    assert blocks_of(written(root, text)) == []


BEGIN, END = "<!-- table: one -->", "<!-- end of table -->"


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([BEGIN, "text"], r"README\.md:1: the table 'one' does not end; write '<!-- end of"),
        (["text", END], r"README\.md:2: the end of a table that does not begin"),
        (
            [BEGIN, "<!-- table: two -->", END],
            r"README\.md:2: a table begins inside of the table 'one', which begins in line 1",
        ),
        ([BEGIN, END, END], r"README\.md:3: the end of a table that does not begin"),
    ],
)
def test_a_broken_block_is_refused_with_its_line(root, lines, problem):
    with pytest.raises(DataError, match=problem):
        blocks_of(written(root, "\n".join(lines)))


def test_an_unknown_name_is_refused_with_the_known_ones(root, capsys):
    written(root, "<!-- table: three -->\n<!-- end of table -->\n")
    assert main(["--check"], root, TABLES) == 2
    err = capsys.readouterr().err
    assert "README.md:1: no table is named 'three'; there are: one, two" in err


def unpublished():
    raise UsageError("results/lost has no run.json")


def test_a_table_that_cannot_be_made_changes_no_document(root, capsys):
    assert main([], root, TABLES | {"two": unpublished}) == 2
    assert "README.md:9: the table 'two': results/lost has no run.json" in capsys.readouterr().err
    assert (root / "README.md").read_text() == TEXT
    assert (root / "docs" / "page.md").read_text() == TEXT


@pytest.mark.parametrize("read", [published_run, published_study])
def test_a_folder_that_is_not_published_is_named(tmp_path, read):
    with pytest.raises(
        DataError, match=r"results/lost has no (run|study)\.json: publish the records"
    ):
        read("lost", tmp_path)
