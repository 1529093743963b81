"""The table of which card runs what: cases or trainings of several runs, a column a card."""

from collections.abc import Sequence

from ...harness.errors import DataError
from ...harness.text import code
from ..cards import CardRow, Kind, cell
from ..markdown import Markup, Row, markdown_table
from .cells import NOT_MEASURED
from .records import PublishedRun

REGIME = {"case": "answers", "training": "optimizer"}


def cards_table(runs: Sequence[PublishedRun], kind: Kind) -> str:
    """Return a row for each case, or for each training, of some runs.

    A card that one of the runs does not have is `not measured` in its rows.

    Args:
        runs: whose suites name cards.
        kind: whether the table has cases or trainings.

    Raises:
        DataError: a run has no row of this kind.
    """
    cards: list[str] = []
    for run in runs:
        cards += [card for card in run.records.manifest.cards if card not in cards]
    rows: list[Row] = []
    for run in runs:
        of_kind = [row for row in run.summary.cards if row.kind == kind]
        if not of_kind:
            raise DataError(
                f"results/{run.folder} does not say of any {kind} which card it runs on: its suite "
                "has no key `cards`, or none of that kind"
            )
        rows += [_row(row, cards) for row in of_kind]
    return markdown_table([kind, REGIME[kind], *cards], rows, numbers=False)


def _row(row: CardRow, cards: Sequence[str]) -> Row:
    of_card = {verdict.card: cell(verdict, row.kind) for verdict in row.cards}
    cells = [of_card.get(card, NOT_MEASURED) for card in cards]
    return [Markup(code(row.name)), row.regime, *cells]
