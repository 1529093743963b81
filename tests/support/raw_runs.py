"""A run's files as they are on the disk, for tests of the formats themselves."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lisabench.harness.records.journal import current_lines, read_any_manifest
from lisabench.harness.records.run import (
    FITS,
    MEMORY,
    PASSES,
    QUALITY,
    SAMPLES,
    Run,
    run_from_json,
)

Lines = list[dict[str, Any]]


@dataclass(frozen=True)
class RawRun:
    """The manifest and the lines of each journal; `typed` has what the code makes of them."""

    folder: Path
    run: dict[str, Any]
    samples: Lines
    memory: Lines
    passes: Lines
    fits: Lines
    quality: Lines

    @property
    def typed(self) -> Run:
        journals = {
            SAMPLES: self.samples,
            MEMORY: self.memory,
            PASSES: self.passes,
            FITS: self.fits,
            QUALITY: self.quality,
        }
        return run_from_json(self.folder, self.run, journals)


def raw_run(folder: Path) -> RawRun:
    """Read a run's files, without superseded lines."""
    names = (SAMPLES, MEMORY, PASSES, FITS, QUALITY)
    return RawRun(
        folder, read_any_manifest(folder), *(current_lines(folder / name) for name in names)
    )
