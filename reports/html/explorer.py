"""The queries of a run as the table and the viewer of its page take them.

A page must open quickly with a thousand queries and be small enough to send. So each image is in it
once, whatever the number of its queries, and masks are run lengths at the size of the small image.
"""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from ...harness.contract import IGNORED
from ...harness.metrics import iou
from ...harness.records.gallery import KeptQuery
from ...harness.records.query import QueryRecord
from ...harness.records.run import Run
from ...harness.text import one_line
from ..run.schema import Case, Summary
from .pictures import as_data_url, as_text, shown_size, small_masks

MASKS_AT_ONCE = 256  # so many are a megabyte or less in each step

Json = dict[str, Any]


@dataclass(frozen=True)
class Answers:
    """What one case answered.

    Attributes:
        case: its summary.
        scored: its record of each query that it evaluated, by the query's id.
        latency_ms: the median over its processes, by the query's id.
    """

    case: Case
    scored: Mapping[str, QueryRecord]
    latency_ms: Mapping[str, float]


def explorer(run: Run, summary: Summary) -> Json:
    """Return the cases, the queries and the images as `report.js` reads them."""
    answers = [_answers(run, case) for case in summary.cases]
    numbers: dict[bytes, int] = {}  # of each image in the page
    tag_line = cache(one_line)  # many queries have the same tags
    queries = []
    for record in _queries(answers):
        picture = run.kept_queries.get(record.sample_id)
        tags = {tag_line(name): tag_line(value) for name, value in record.tags.items()}
        query = _query(record, tags, picture, answers)
        if picture is not None:
            query["image"] = numbers.setdefault(picture.image.webp, len(numbers))
        queries.append(query)
    _add_masks(queries, answers)
    names = [case.name for case in summary.cases]
    cases = []
    for case in summary.cases:
        comparison = summary.comparison(case.name)
        reference = names.index(comparison.reference) if comparison else None
        cases.append({"id": case.name, "name": one_line(case.name), "reference": reference})
    return {
        "cases": cases,
        "hasQuality": any(case.has_quality is True for case in summary.cases),
        "images": [as_data_url(webp) for webp in numbers],
        "queries": queries,
    }


def _answers(run: Run, case: Case) -> Answers:
    records = run.case(case.name)
    times: dict[str, list[int]] = {}
    for (_, sample_id), latency_ns in records.end_to_end_ns.items():
        times.setdefault(sample_id, []).append(latency_ns)
    latency_ms = {}
    for sample_id, latencies_ns in times.items():
        latency_ms[sample_id] = statistics.median(latencies_ns) / 1e6
    scored = {record.sample_id: record for record in records.scored}
    return Answers(case, scored, latency_ms)


def _queries(answers: list[Answers]) -> list[QueryRecord]:
    """Return a record of each query that any case evaluated, in the order of the data."""
    records: dict[str, QueryRecord] = {}
    for answer in answers:
        for sample_id, record in answer.scored.items():
            records.setdefault(sample_id, record)
    return list(records.values())


def _query(
    record: QueryRecord, tags: Json, picture: KeptQuery | None, answers: list[Answers]
) -> Json:
    """Return one query with what is known of its target, and every case's answer but its mask."""
    size_hw = picture.image.size_hw if picture else shown_size(record.height, record.width)
    query: Json = {
        "id": record.sample_id,
        "text": one_line(record.query),
        "tags": tags,
        "size": size_hw,
        "area": round(100 * record.counts.target_px / (record.height * record.width), 2),
        "answers": [_answer(answer, record.sample_id) for answer in answers],
    }
    if picture is not None:
        query["target"] = as_text(picture.target_HW == 1, size_hw)
        ignored_HW = picture.target_HW == IGNORED
        if ignored_HW.any():
            query["ignored"] = as_text(ignored_HW, size_hw)
    return query


def _answer(answers: Answers, sample_id: str) -> Json | None:
    """Return what a case answered to a query, without its mask; None if it did not evaluate it."""
    record = answers.scored.get(sample_id)
    if record is None:
        return None
    answer: Json = {}
    if answers.case.has_quality is True:
        answer["iou"] = round(iou(record.counts), 4)
    if sample_id in answers.latency_ms:
        answer["ms"] = round(answers.latency_ms[sample_id], 2)
    if record.status != "ok":
        answer["status"] = record.status
    if record.reason:
        answer["reason"] = one_line(record.reason, longest=300)
    if record.text:
        answer["text"] = one_line(record.text)
    return answer


def _add_masks(queries: list[Json], answers: list[Answers]) -> None:
    """Add to the answers of all queries the masks that were kept and can be read."""
    kept: list[tuple[Json, Any, tuple[int, int]]] = []
    for query in queries:
        for answer, of_case in zip(query["answers"], answers, strict=True):
            if answer is not None:
                mask_rle = of_case.scored[query["id"]].mask_rle
                if mask_rle is not None:
                    kept.append((answer, mask_rle, query["size"]))
    for start in range(0, len(kept), MASKS_AT_ONCE):
        shown, rles, sizes_hw = zip(*kept[start : start + MASKS_AT_ONCE], strict=True)
        for answer, mask in zip(shown, small_masks(rles, sizes_hw), strict=True):
            if mask is not None:
                answer["mask"] = mask
