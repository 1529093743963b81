"""Texts that are kept beside the tests, to see at a glance what users see, and when it changes.

``LISABENCH_SNAPSHOTS=write`` writes them again; the difference is then read in git.
"""

import os
from pathlib import Path


def assert_as_kept(kept: Path, text: str) -> None:
    """Compare a text with the one that is kept, apart from spaces at the ends of lines."""
    lines = [line.rstrip() for line in text.rstrip().splitlines()]
    text = "\n".join(lines) + "\n"
    if os.environ.get("LISABENCH_SNAPSHOTS") == "write":
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(text, encoding="utf-8")
    assert text == kept.read_text(encoding="utf-8")
