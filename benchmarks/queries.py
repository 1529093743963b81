"""Which queries a run evaluates, in a form that every worker process can open for itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..datasets.opening import located, open_samples
from ..datasets.samples import Samples
from ..datasets.scenes.cache import embedded
from ..harness.errors import UsageError
from ..harness.protocols import protocol_named, protocol_of_data
from .progress import Progress, no_progress
from .resolved_suite import ResolvedSuite
from .suite import Data, Gallery

# Layouts whose data are none of ReasonSeg's, so that a split of the same name is another one.
OTHER_DATA = ("refcoco", "refcoco+", "refcocog", "grefcoco", "coco")


@dataclass(frozen=True)
class Queries:
    """The queries of a run.

    Attributes:
        reader: arguments of `open_samples`. Samples hold images, so a worker is sent these and
            opens the data itself.
        root: the data as the user named them; None for generated scenes.
        count: how many queries there are.
        timed: how many of them, from the first on, the timed rounds take: whole batches only, since
            a query has another time in a smaller batch. All cases time the same queries.
        scored: how many of them, from the first on, the quality pass takes; 0 where there is none.
        fingerprint: digest of annotations and images, so that a run is never resumed over other
            data.
        description: one line for the report.
        warnings: what a reader of the results must know of the data.
        origin: of data that were imported from another layout, see `Samples.origin`.
        protocol: name of the protocol that the data are evaluated by; None where none is known.
    """

    reader: dict[str, Any]
    root: str | None
    count: int
    timed: int
    scored: int
    fingerprint: str
    description: str
    warnings: tuple[str, ...] = ()
    origin: Mapping[str, str | None] = field(default_factory=dict)
    protocol: str | None = None

    @classmethod
    def of(cls, suite: ResolvedSuite, progress: Progress = no_progress) -> "Queries":
        """Return the queries of a suite.

        Scenes are generated first if it names no data; data in another layout are imported first.

        Args:
            suite: what is run.
            progress: is called now and then while data are imported.

        Raises:
            DataError: the data are not known, or an annotation cannot be read.
            UsageError: the queries to be timed do not fill a batch of every case.
        """
        data, plan, split = suite.data, suite.plan, suite.split
        if data.root is None:
            count = max(data.count, data.limit or 0)
            root = embedded(split, count, data.seed, data.image_px).resolve()
            description = f"generated scenes, split {split}, seed {data.seed}"
            if data.image_px is not None:
                description += f", of {data.image_px[0]} x {data.image_px[1]} pixels"
        else:
            root = located(data.root, split, progress).resolve()
            description = f"{root.name}/{split}"
        reader = {"root": root, "split": split, "texts": data.texts, "limit": data.limit}
        samples = open_samples(**reader)
        if samples.origin:
            description = f"{_name_of(str(samples.origin['source']))}/{split}"

        protocol = _protocol(data, samples)
        count = len(samples)
        timed = min(plan.timed_queries, count)
        whole_batches = suite.common_batch(timed)
        if timed < whole_batches:
            raise UsageError(
                f"whole batches of every case take {whole_batches} queries, but only {timed} are "
                "to be timed; make the batches smaller, or provide more queries "
                "(plan.timed_queries, and the data)"
            )
        scored = count if plan.quality_queries is None else min(plan.quality_queries, count)
        return cls(
            reader=reader,
            root=data.root,
            count=count,
            timed=timed - timed % whole_batches,
            scored=scored,
            fingerprint=samples.fingerprint(),
            description=description,
            warnings=(*samples.warnings, *_warn_of_texts(protocol, reader, count)),
            origin=samples.origin,
            protocol=protocol,
        )

    @property
    def may_be_reasonseg(self) -> bool:
        """Whether the split may be one of ReasonSeg's, which weights may have been trained on."""
        return self.origin.get("layout") not in OTHER_DATA

    def to_keep(self, gallery: Gallery) -> list[int]:
        """Return the positions of the queries whose images are kept, in the order of the data.

        Of so many queries each is both timed and scored: a case with random weights has only timed
        ones. They are spread over the data.
        """
        if gallery == "none":
            return []
        if gallery == "all":
            return list(range(max(self.timed, self.scored)))
        shared = min(self.timed, self.scored or self.timed)
        shown = min(gallery, shared)
        return [number * shared // shown for number in range(shown)]

    def as_recorded(self) -> dict[str, Any]:
        """Return the queries as ``run.json`` holds them."""
        protocol = {} if self.protocol is None else {"protocol": self.protocol}
        return self.reader | {
            "root": self.root,
            "count": self.count,
            "fingerprint": self.fingerprint,
            "description": self.description,
            **self.origin,
            **protocol,
        }


def _protocol(data: Data, samples: Samples) -> str | None:
    """Return the name of the protocol that is asked for, or else of that of the data."""
    if data.protocol is not None:
        return data.protocol if protocol_named(data.protocol) else None
    if data.root is None:
        return None
    layout = samples.origin.get("layout")
    # Imported data lie in a folder of another name. A folder of pairs may be named by a link, or by
    # a dot.
    source = samples.origin.get("source") or str(Path(data.root).absolute())
    return protocol_of_data(layout, source)


def _warn_of_texts(name: str | None, reader: Mapping[str, Any], count: int) -> list[str]:
    """Return a warning if a protocol asks for more wordings than are evaluated.

    Args:
        name: of the protocol.
        reader: arguments of `open_samples`.
        count: how many queries there are with these.
    """
    protocol = protocol_named(name)
    if protocol is None or protocol.texts == reader["texts"] or protocol.texts == "first":
        return []
    every_wording = len(open_samples(**{**reader, "texts": "all"}))
    if every_wording == count:
        return []  # each query has one wording
    return [
        f"the protocol {name} asks all texts of each query, and only the first were asked: "
        "--set texts=all"
    ]


def _name_of(source: str) -> str:
    """Return the short name of a source: what follows ``://``, or the last step of a path."""
    if "://" in source:
        return source.partition("://")[2]
    return Path(source).name
