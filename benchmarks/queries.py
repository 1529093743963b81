"""Which queries a run asks, in a form that every worker can open for itself."""

from dataclasses import dataclass
from typing import Any

from ..datasets.reasonseg import ReasonSeg
from ..datasets.scenes.cache import embedded
from .suite import Suite


@dataclass(frozen=True)
class Queries:
    """The queries of a run.

    Attributes:
        reader: arguments of `ReasonSeg`.
        count: how many there are.
        timed: how many of them, from the first on, the timed rounds take.
        scored: how many of them, from the first on, the quality pass takes; 0 where there is none.
        root: the folder as the user named it; None where the package made the scenes.
        fingerprint: of annotations and images, so that a run is never resumed over other data.
        description: one line for the report.
    """

    reader: dict[str, Any]
    root: str | None
    count: int
    timed: int
    scored: int
    fingerprint: str
    description: str

    @classmethod
    def of(cls, suite: Suite) -> "Queries":
        """Opens a suite's data; scenes are made first where no folder is named.

        Raises:
            DataError: an annotation cannot be read.
        """
        data, split = suite.data, suite.split()
        made = max(data.count, data.limit or 0)
        root = (data.root or embedded(split, made, data.seed)).resolve()
        reader = {"root": root, "split": split, "texts": data.texts, "limit": data.limit}
        samples = ReasonSeg(**reader)
        origin = (
            f"{root.name}/{split}"
            if data.root
            else f"generated scenes, split {split}, seed {data.seed}"
        )
        named = str(data.root) if data.root else None
        count, plan = len(samples), suite.plan
        scored = count if plan.quality_queries is None else min(plan.quality_queries, count)
        timed = min(plan.timed_queries, count)
        return cls(reader, named, count, timed, scored, samples.fingerprint(), origin)

    def page(self) -> dict[str, Any]:
        """As it stands in ``run.json``."""
        known = {
            "count": self.count,
            "fingerprint": self.fingerprint,
            "description": self.description,
        }
        return self.reader | {"root": self.root} | known
