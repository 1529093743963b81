"""What the original's authors report of their models, by protocol and split.

Values are copied from the tables of Lai et al., "LISA: Reasoning Segmentation via Large Language
Model", CVPR 2024 (arXiv 2308.00692, version 3), whose captions say: "ft" is fine-tuned on the 239
training samples of ReasonSeg, and without "LLaVA1.5" the base is LLaVA v1. On gRefCOCO and on
ReasonSeg's successors the authors report nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ...harness.protocols import ALL_QUERIES, LISA

# Scores of one model, by group of queries and by metric.
Scores = dict[str, dict[str, float | None]]


@dataclass(frozen=True)
class PublishedTable:
    """The rows of a published table that are of one split.

    Attributes:
        source: where it is published.
        models: the scores of each model, as shares, by the name that the table gives it.
    """

    source: str
    models: Mapping[str, Scores]


# Table 1, in percent: gIoU and cIoU of val, and of the short, the long and all queries of test.
REASONSEG = {
    "LISA-7B": ((44.4, 46.0), (37.6, 34.4), (36.6, 34.7), (36.8, 34.1)),
    "LISA-7B (ft)": ((52.9, 54.0), (40.6, 40.6), (49.4, 51.0), (47.3, 48.4)),
    "LISA-13B": ((48.9, 46.9), (39.9, 43.3), (46.4, 46.5), (44.8, 45.8)),
    "LISA-13B (ft)": ((56.2, 62.9), (44.3, 42.0), (54.0, 54.3), (51.7, 51.1)),
    "LISA-7B-LLaVA1.5": ((53.6, 52.3), (47.1, 48.5), (49.2, 48.9), (48.7, 48.8)),
    "LISA-7B-LLaVA1.5 (ft)": ((61.3, 62.9), (48.3, 46.3), (57.9, 59.7), (55.6, 56.9)),
    "LISA-13B-LLaVA1.5": ((57.7, 60.3), (50.8, 50.0), (54.7, 50.9), (53.8, 50.8)),
    "LISA-13B-LLaVA1.5 (ft)": ((65.0, 72.9), (55.4, 50.6), (63.2, 65.3), (61.3, 62.2)),
}
REASONSEG_COLUMNS = (
    ("val", ALL_QUERIES),
    ("test", "short"),
    ("test", "long"),
    ("test", ALL_QUERIES),
)

# Table 2, in percent: cIoU.
REFERRING = {
    "LISA-7B": (74.1, 76.5, 71.1, 62.4, 67.4, 56.5, 66.4, 68.5),
    "LISA-7B (fine-tuned on ReferSeg)": (74.9, 79.1, 72.3, 65.1, 70.8, 58.1, 67.9, 70.6),
}
REFERRING_COLUMNS = (
    ("refcoco", "val"),
    ("refcoco", "testA"),
    ("refcoco", "testB"),
    ("refcoco+", "val"),
    ("refcoco+", "testA"),
    ("refcoco+", "testB"),
    ("refcocog", "val"),
    ("refcocog", "test"),
)
OTHER_SPLITTER = "refs(google)"  # the authors evaluate by UNC, and refCOCOg by UMD

# The row that comes nearest to a released model, by the last part of its id and by the protocol.
# None is of a release itself: v1 was trained on ReasonSeg's train and val together (README of
# dvlab-research/LISA at 3cb2d43). LISA-13B-llama2-v1 has no row: its base is another one.
NEAREST_ROWS = {
    ("lisa-7b-v1", "reasonseg"): "LISA-7B (ft)",
    ("lisa-7b-v1", "refcoco"): "LISA-7B",
    ("lisa-7b-v1", "refcoco+"): "LISA-7B",
    ("lisa-7b-v1", "refcocog"): "LISA-7B",
}


def published_table(protocol: str, split: str, source: str | None) -> PublishedTable | None:
    """Return what is published of a split; None where nothing is.

    Args:
        protocol: its name.
        split: of the data set, in any case.
        source: where the data come from, which may name who split them; None: not imported.
    """
    if OTHER_SPLITTER in (source or ""):
        return None
    models: dict[str, Scores] = {}
    if protocol == "reasonseg":
        for model, columns in REASONSEG.items():
            scores: Scores = {}
            for (of_split, group), (gIoU, cIoU) in zip(REASONSEG_COLUMNS, columns, strict=True):
                if of_split == split.lower():
                    scores[group] = {"gIoU": _share(gIoU), "cIoU": _share(cIoU)}
            if scores:
                models[model] = scores
        return PublishedTable(f"{LISA}, table 1", models) if models else None
    for model, columns in REFERRING.items():
        for (data, of_split), cIoU in zip(REFERRING_COLUMNS, columns, strict=True):
            if (data, of_split.lower()) == (protocol, split.lower()):
                models[model] = {ALL_QUERIES: {"cIoU": _share(cIoU)}}
    return PublishedTable(f"{LISA}, table 2", models) if models else None


def _share(percent: float) -> float:
    return round(percent / 100, 3)  # as many digits as are printed


def nearest_row(weights_source: str | None, protocol: str) -> str | None:
    """Return the published row that comes nearest to a released model; None if none does.

    Args:
        weights_source: where a case's weights come from: the id of a release, or anything else.
        protocol: its name.
    """
    release = (weights_source or "").rsplit("/", 1)[-1].lower()
    return NEAREST_ROWS.get((release, protocol))
