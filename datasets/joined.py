"""Several sources of data as one, such as the parts of a training's mixture."""

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from ..harness.contract import Sample
from ..harness.errors import DataError
from .samples import Pixels, Samples


class Joined(Samples):
    """The queries of several sources, one source after the other.

    Args:
        sources: at least one.

    Raises:
        DataError: there is none.
    """

    def __init__(self, sources: Sequence[Samples]) -> None:
        super().__init__()
        if not sources:
            raise DataError("there is no source of data; expected at least one")
        self.sources = tuple(sources)
        # Position of the first query after each source.
        self._ends = list(accumulate(len(source) for source in self.sources))

    def __len__(self) -> int:
        return self._ends[-1]

    def _read(self, position: int, read: Pixels | None = None) -> Sample:
        number = bisect_right(self._ends, position)
        source = self.sources[number]
        within = position - (self._ends[number] - len(source))
        if read is None:
            return source[within]
        return source.with_pixels(within, read)

    def fingerprint(self) -> str:
        """Return a digest of the fingerprints of all sources; see `Samples.fingerprint`.

        Raises:
            DataError: a file cannot be read, or an annotation is broken.
        """
        fingerprints = [source.fingerprint() for source in self.sources]
        warnings: list[str] = []
        for source in self.sources:
            warnings += source.warnings
        self.warnings = tuple(warnings)
        return hashlib.sha256(" ".join(fingerprints).encode()).hexdigest()[:16]
