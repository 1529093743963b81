"""The scores of a run as papers report them: by the protocol of its data."""

from collections.abc import Iterator, Mapping, Sequence

from ...harness.metrics import METRICS
from ...harness.protocols import (
    ALL_QUERIES,
    PRECISIONS,
    PROTOCOLS,
    Protocol,
    protocol_of_data,
    split_of_data,
)
from ...harness.records.manifest import Manifest, RunData
from ...harness.records.query import QueryRecord
from ...harness.records.run import Run
from ...harness.text import one_line
from .. import formatting
from ..markdown import cell
from ..schema_base import HEADINGS
from .published_values import nearest_row, published_table
from .schema import Case, ProtocolColumn, ProtocolRow, ProtocolScores, Summary

# The original's validation gives each model its answer, one query at a time (`train_ds.py` of
# dvlab-research/LISA at 3cb2d43).
ORIENTATION = (
    "They are of other weights than those measured here, and for orientation only. The authors' "
    "validation takes one query at a time, with forced answers."
)

NEAREST = (
    "No published row is of a release itself: version 1 was trained on ReasonSeg's train and val "
    "together, the models of the table on train at most."
)


def protocol_scores(run: Run, cases: Sequence[Case]) -> ProtocolScores | None:
    """Return the scores by the protocol of the data; None where no protocol is known.

    Args:
        run: the records.
        cases: summaries of the models.
    """
    manifest = run.manifest
    name = manifest.data.protocol
    # A newer version may know more protocols than this one.
    protocol = PROTOCOLS.get(name or "")
    if name is None or protocol is None:
        return None
    split = split_of_data(manifest.data.split, manifest.data.source)
    rows, nearest = [], {}
    sizes: dict[str, int] = {}
    for case in cases:
        records = run.case(case.name)
        if case.has_quality is not True or not records.scored:
            continue
        groups = _groups(protocol, records.scored)
        rows.append(_row(protocol, case, groups))
        # Of an unfinished run, a case may lack queries that others have.
        for group, queries in groups.items():
            sizes[group] = max(sizes.get(group, 0), len(queries))
        row = nearest_row(records.entry.weights_source, name)
        if row is not None:
            nearest[case.name] = row
    if sizes:
        sizes[ALL_QUERIES] = sizes.pop(ALL_QUERIES)  # last
    table = published_table(name, split, manifest.data.source)
    published = []
    if table is not None:
        for model, scores in table.models.items():
            published.append(ProtocolRow(name=model, batch=None, scores=scores))
    return ProtocolScores(
        name=name,
        title=protocol.title,
        split=split,
        metrics=list(protocol.metrics),
        queries=sizes,
        departures=list(_departures(name, split, manifest)),
        cases=rows,
        published=published,
        published_in=table.source if table else None,
        nearest=nearest,
    )


def _row(
    protocol: Protocol, case: Case, groups: Mapping[str, Sequence[QueryRecord]]
) -> ProtocolRow:
    scores = {}
    for group, queries in groups.items():
        counts = [query.counts for query in queries]
        scores[group] = {metric: METRICS[metric].compute(counts) for metric in protocol.metrics}
    answer = (case.settings or {}).get("answer")  # not every adapter has the setting
    return ProtocolRow(
        name=case.name,
        batch=case.quality.batch,
        answer=answer if isinstance(answer, str) else None,
        scores=scores,
    )


def _groups(
    protocol: Protocol, queries: Sequence[QueryRecord]
) -> Mapping[str, Sequence[QueryRecord]]:
    """Return the queries of each group that the protocol reports, and last all of them."""
    groups: dict[str, list[QueryRecord]] = {name: [] for name in protocol.groups.values()}
    for query in queries:
        value = query.tags.get(protocol.tag or "")
        if value is not None:
            groups.setdefault(protocol.groups.get(value, value), []).append(query)
    known = {name: members for name, members in groups.items() if members}
    return {**known, ALL_QUERIES: list(queries)}


def _departures(name: str, split: str, manifest: Manifest) -> Iterator[str]:
    """Yield in what a run does not follow its protocol, so that its scores are others.

    Args:
        name: of the protocol.
        split: of the data set.
        manifest: of the run.
    """
    protocol = PROTOCOLS[name]
    data, quality_pass = manifest.data, manifest.quality_pass
    size = protocol.sizes.get(split)
    has_more_texts = protocol.texts == "first" and data.texts == "all"
    if has_more_texts:
        yield "each wording is a query of its own (`texts: all`), and not the first alone"
    if data.limit is not None:
        yield f"at most the first {data.limit} queries of the split were taken (`limit`)"
    elif size is not None and size != data.count and not has_more_texts:
        yield f"the data have {data.count} queries, and {protocol.title} {split} has {size}"
    elif size is None and not _may_be(name, data):
        yield f"it is not known whether the data are {protocol.title}"
    scored = quality_pass.queries if quality_pass else manifest.timed_queries
    if scored is not None and scored < data.count:
        yield f"scores are of {scored} of {data.count} queries"
    if protocol.has_ignored and (data.ignored or "").startswith("none"):
        yield "this copy of the data marks no ignored pixels"


def _may_be(name: str, data: RunData) -> bool:
    """Return whether a protocol is that of the data's own layout or name."""
    # The description names the folder where the user has written a dot.
    folder = data.description.rsplit("/", 1)[0]
    sources = [data.source] if data.source else [data.root or "", folder]
    return any(protocol_of_data(data.layout, source) == name for source in sources)


def protocol_in_a_sentence(summary: Summary) -> str:
    """Return by which protocol and in which batches scores were computed; empty without one."""
    protocol = summary.protocol
    if protocol is None or not protocol.cases:
        return ""
    sizes = sorted({row.batch for row in protocol.cases if row.batch is not None})
    batches = formatting.listed([str(size) for size in sizes])
    of_data = f"{protocol.title} {protocol.split}"
    sentence = f"Quality is by the protocol {protocol.name}: {of_data}, in batches of {batches}"
    if protocol.departures:
        sentence += f", but {'; '.join(protocol.departures)}"
    return one_line(f"{sentence}.")


def protocol_scores_in_a_sentence(summary: Summary) -> str:
    """Return the scores of each case of all queries, without precisions; empty without a protocol.

    Such as ``By the protocol, dual has cIoU 0.612 and mIoU 0.598.``
    """
    protocol = summary.protocol
    if protocol is None or not protocol.cases:
        return ""
    columns = []
    for metric in protocol.metrics:
        if metric not in PRECISIONS:
            columns.append(ProtocolColumn(ALL_QUERIES, metric))
    of_cases = []
    for row in protocol.cases:
        scores = [f"{column.heading} {formatting.score(column.score(row))}" for column in columns]
        of_cases.append(f"{row.name} has {formatting.listed(scores)}")
    return one_line(f"By the protocol, {'; '.join(of_cases)}.")


def protocol_table(summary: Summary, protocol: ProtocolScores) -> tuple[list[str], list[list[str]]]:
    """Return the heading of each column, and a row for each model, published ones last."""
    columns = protocol.columns
    headings = ["", "batch", "answer", *[column.heading for column in columns]]
    boundary_ious = {case.name: case.quality.boundary_IoU for case in summary.cases}
    has_boundaries = any(score is not None for score in boundary_ious.values())
    if has_boundaries:
        headings.append(HEADINGS["boundary_IoU"])
    rows = []
    for row in protocol.cases:
        cells = [row.name, *_cells(row, columns)]
        if has_boundaries:
            cells.append(formatting.score(boundary_ious[row.name]))
        rows.append(cells)
    for row in protocol.published:
        cells = [f"{row.name}, published", *_cells(row, columns)]
        if has_boundaries:
            cells.append(formatting.NOT_AVAILABLE)
        rows.append(cells)
    return headings, rows


def _cells(row: ProtocolRow, columns: Sequence[ProtocolColumn]) -> list[str]:
    scores = [formatting.score(column.score(row)) for column in columns]
    return [cell(row.batch), cell(row.answer), *scores]


def published_note(protocol: ProtocolScores) -> str:
    """Return what the published rows are; empty without any."""
    if not protocol.published:
        return ""
    sentences = [f"Published rows: {protocol.published_in}.", ORIENTATION]
    if protocol.nearest:
        rows = [f"{case} to {row}" for case, row in protocol.nearest.items()]
        sentences += [f"The nearest rows: {formatting.listed(rows)}.", NEAREST]
    return " ".join(sentences)
