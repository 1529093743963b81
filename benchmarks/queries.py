"""Which queries a run asks, in a form that every worker can open for itself."""

import hashlib
from dataclasses import dataclass
from typing import Any

from ..datasets.embedded import embedded
from ..datasets.reasonseg import ReasonSeg
from .suite import Data


@dataclass(frozen=True)
class Queries:
    """The queries of a run.

    Attributes:
        reader: arguments of `ReasonSeg`.
        count: how many there are.
        root: the folder as the user named it; None where the package made the scenes.
        fingerprint: of their ids and words, so that a run is never resumed over other data.
        description: one line for the report.
    """

    reader: dict[str, Any]
    root: str | None
    count: int
    fingerprint: str
    description: str

    @classmethod
    def of(cls, data: Data) -> "Queries":
        """Opens a suite's data; scenes are made first where no folder is named.

        Raises:
            DataError: an annotation cannot be read.
        """
        made = max(data.count, data.limit or 0)
        root = (data.root or embedded(data.split, made, data.seed)).resolve()
        reader = {"root": root, "split": data.split, "texts": data.texts, "limit": data.limit}
        words = hashlib.sha256()
        samples = ReasonSeg(**reader)
        for sample in samples:
            words.update(f"{sample.id}\0{sample.query}\0".encode())
        origin = f"{root.name}/{data.split}" if data.root else f"generated scenes, split {data.split}, seed {data.seed}"
        named = str(data.root) if data.root else None
        return cls(reader, named, len(samples), words.hexdigest()[:16], origin)

    def page(self) -> dict[str, Any]:
        """As it stands in ``run.json``."""
        known = {"count": self.count, "fingerprint": self.fingerprint, "description": self.description}
        return self.reader | {"root": self.root} | known
