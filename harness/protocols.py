"""The protocols of the field: which queries a data set asks, and which scores papers report of it.

A protocol belongs to a data set. It is found by the data's layout or name, or named by the user
(``data.protocol``). The scores themselves are those of `metrics`. `published.py` has what the
original's authors report by these protocols.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Literal

from .errors import unknown

NONE = "none"  # the name that says: by no protocol
ALL_QUERIES = "overall"  # the group of all queries
PRECISIONS = ("precision_0.5", "precision_0.6", "precision_0.7", "precision_0.8", "precision_0.9")


@dataclass(frozen=True)
class Protocol:
    """How a data set is evaluated.

    Attributes:
        title: name of the data set.
        texts: which wordings of a query are asked: the first, or each as a query of its own.
        metrics: what is reported, names in `metrics.METRICS`.
        source: where that is said.
        tag: of the queries, by whose values the scores are reported besides; None: of all alone.
        groups: what papers call the queries that share a value of the tag, by the value; empty: as
            the values are called.
        has_ignored: whether the data mark pixels that no score counts.
        sizes: how many queries each split has, where the authors say it.
    """

    title: str
    texts: Literal["first", "all"]
    metrics: tuple[str, ...]
    source: str
    tag: str | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    has_ignored: bool = False
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """The protocol in one line."""
        texts = "all texts" if self.texts == "all" else "the first text"
        metrics = ", ".join(self.metrics).replace(", ".join(PRECISIONS), "precision_0.5 to 0.9")
        line = f"{self.title}: {texts} of each query; {metrics}"
        if self.groups:
            line += f" of {', '.join(self.groups.values())} and all queries"
        elif self.tag:
            line += f" of all queries, and by {self.tag}"
        return f"{line} ({self.source})"


LISA = "Lai et al., LISA, CVPR 2024"
STAR = "Yun et al., StAR, arXiv 2603.14382"


def _referring(title: str) -> Protocol:
    """Return the protocol of one of the three data sets of referring expressions."""
    return Protocol(
        title=title,
        texts="all",
        metrics=("cIoU", "mIoU", *PRECISIONS),
        source=f"cIoU as in {LISA}, table 2; precision as in Yang et al., LAVT, CVPR 2022",
    )


# The two successors of ReasonSeg are evaluated as `evaluation_scripts` of StAR do, which also
# reports ReasonSeg-X by the type of reasoning.
PROTOCOLS: dict[str, Protocol] = {
    "reasonseg": Protocol(
        title="ReasonSeg",
        texts="first",
        metrics=("gIoU", "cIoU"),
        source=f"{LISA}, table 1",
        tag="form",
        groups={"phrase": "short", "sentence": "long"},
        has_ignored=True,
        sizes={"train": 239, "val": 200, "test": 779},  # README of dvlab-research/LISA
    ),
    "reasonseg-r": Protocol(
        title="ReasonSeg-R", texts="first", metrics=("gIoU", "cIoU"), source=STAR
    ),
    "reasonseg-x": Protocol(
        title="ReasonSeg-X",
        texts="first",
        metrics=("gIoU", "cIoU"),
        source=STAR,
        tag="reasoning_type",
        sizes={"train": 240, "val": 156, "test": 773},  # README of StAR
    ),
    "refcoco": _referring("refCOCO"),
    "refcoco+": _referring("refCOCO+"),
    "refcocog": _referring("refCOCOg"),
    "grefcoco": Protocol(
        title="gRefCOCO",
        texts="all",
        metrics=("gIoU", "cIoU", "N_acc", "T_acc"),
        source="Liu et al., GRES, CVPR 2023",
    ),
}

# Other names of the data, without blanks, hyphens and underscores.
OTHER_NAMES = {
    "reasonsegr": "reasonseg-r",
    "reasonsegrefine": "reasonseg-r",  # sj9909/ReasonSeg_refine on the Hub
    "reasonsegx": "reasonseg-x",  # sj9909/ReasonSegX_test
    "refcocoplus": "refcoco+",  # lmms-lab/RefCOCOplus
}
SEPARATORS = re.compile(r"[\s_-]")
SPLIT_IN_NAME = re.compile(r"(train|val|testa|testb|test)$")


def protocol_named(name: str | None) -> Protocol | None:
    """Return a protocol by its name; None for ``none`` and for no name.

    Raises:
        UsageError: there is no such protocol.
    """
    if name is None or name == NONE:
        return None
    if name not in PROTOCOLS:
        raise unknown("protocol", name, [*PROTOCOLS, NONE])
    return PROTOCOLS[name]


def protocol_of_data(layout: str | None, source: str) -> str | None:
    """Return the name of the protocol that data are evaluated by; None if none is known.

    Args:
        layout: that the data were imported from, such as ``refcoco``; None for a folder of pairs.
        source: a folder or an id on the Hub, whose last part may be the data set's name, with or
            without the split: ``ReasonSeg``, ``hf://Ricky06662/ReasonSeg_test``.
    """
    if layout in PROTOCOLS:
        return layout
    name, _ = _name_and_split(source)
    name = OTHER_NAMES.get(name, name)
    return name if name in PROTOCOLS else None


def split_of_data(split: str, source: str | None) -> str:
    """Return which split of a data set is evaluated.

    Copies on the Hub have it in their names, and one split of their own, whatever that is called:
    the only split of ``ReasonSeg_val`` is ``test``.

    Args:
        split: as the data name it.
        source: of imported data; None for a folder of pairs.
    """
    _, split_in_name = _name_and_split(source or "")
    return split_in_name or split


def _name_and_split(source: str) -> tuple[str, str]:
    """Return the last part of a source, without separators, and the split that it ends with."""
    name = SEPARATORS.sub("", PurePath(source).name.lower())
    found = SPLIT_IN_NAME.search(name)
    if found is None or found.start() == 0:
        return name, ""
    return name[: found.start()], found.group()
