"""The listing: our own folder of queries, into which every other layout is imported.

    ROOT/data.json       facts of the source, see `ListingFacts`
    ROOT/<split>.jsonl   one line a query
    ROOT/images/...      pictures; a line may also name one by its absolute path

A line is an annotation of ReasonSeg with ``id`` and ``image`` besides. So several queries can share
one picture, which pairs of files cannot.
"""

import json
from pathlib import Path
from typing import Any

from ...harness.errors import DataError
from ...harness.json_file import stand_in
from ..image import read_bytes

SCHEMA = "lisabench.data/1"
FACTS_FILE = "data.json"


def is_listing(root: Path) -> bool:
    """Return whether a folder is a listing."""
    return (root / FACTS_FILE).is_file()


def read_facts(root: Path) -> dict[str, Any]:
    """Return what ``data.json`` says of a listing.

    Raises:
        DataError: it cannot be read, or is of another schema.
    """
    path = root / FACTS_FILE
    try:
        facts = json.loads(read_bytes(path).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        problem = stand_in(path) or f"is not JSON ({error})"
        raise DataError(f"{path}: {problem}") from error
    if not isinstance(facts, dict) or facts.get("schema") != SCHEMA:
        raise DataError(f"{path}: expected an object with schema {SCHEMA!r}")
    return facts
