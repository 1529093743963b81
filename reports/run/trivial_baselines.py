"""Whether a model is better than answers without a look, the floors: a loaded checkpoint that is not is refused.

The rule: a checkpoint is refused where its gIoU is not above that of the best floor over the same queries, about eight
images at least. With fewer, one miss would condemn a good one; a doubt is said then, and where the 95 % interval of the
difference reaches down to 0.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ...harness.metrics import iou
from ...harness.records.readings import Record, answered, counts
from ...harness.records.run import Run
from ..quality import in_both, points
from ..schema_base import AgainstFloor

FEWEST_IMAGES = 8  # below, no interval of quality holds what it says: see `harness.resampling`
WHOLE_IMAGE, EMPTY = "whole-image", "empty"


def against_floors(run: Run) -> list[AgainstFloor]:
    """Every model that has quality against the best floor, over the queries that it answered.

    The floors are the controls of the run; whole image and empty mask follow from any record's pixels, and stand in
    where the run has not asked them.
    """
    entries = [
        entry
        for entry in run.run["cases"]
        if entry["role"] == "model" and entry.get("has_quality") is True
    ]
    asked = {name: records for name in _controls(run) if (records := _records(name, run))}
    found = (_against(entry, _records(entry["name"], run), asked) for entry in entries)
    return [each for each in found if each]


def _controls(run: Run) -> list[str]:
    return [entry["name"] for entry in run.run["cases"] if entry["role"] == "control"]


def _records(case: str, run: Run) -> list[Record]:
    return answered(run.scored(case))


def _against(
    entry: Record, records: list[Record], asked: Mapping[str, list[Record]]
) -> AgainstFloor | None:
    pairs = {
        name: in_both(floor, records)
        for name, floor in {**_without_a_look(records), **asked}.items()
    }
    gaps = {name: _gIoU(model) - _gIoU(floor) for name, (floor, model) in pairs.items() if model}
    if not gaps:
        return None
    best = min(gaps, key=lambda name: (gaps[name], name not in asked))
    floor, model = pairs[best]
    gap = points(floor, model)["gIoU"]
    if gap is None:
        return None
    worse = gaps[best] <= 0
    return AgainstFloor(
        case=entry["name"],
        floor=best,
        gIoU=_gIoU(model),
        floor_gIoU=_gIoU(floor),
        gIoU_points=gap,
        verdict="not better"
        if worse
        else "doubtful"
        if gap.low is None or gap.low <= 0
        else "better",
        refused=worse and gap.clusters >= FEWEST_IMAGES and _is_checkpoint(entry),
    )


def _is_checkpoint(entry: Record) -> bool:
    return (entry.get("settings") or {}).get("weights_hash") is not None


def _without_a_look(records: Sequence[Record]) -> dict[str, list[Record]]:
    whole = (
        ("intersection_px", "target_px"),
        ("union_px", "valid_px"),
        ("predicted_px", "valid_px"),
    )
    none = {"intersection_px": 0, "predicted_px": 0}
    return {
        WHOLE_IMAGE: [record | {name: record[its] for name, its in whole} for record in records],
        EMPTY: [record | none | {"union_px": record["target_px"]} for record in records],
    }


def _gIoU(records: Sequence[Record]) -> float:
    return sum(iou(counts(record)) for record in records) / len(records)


def refused(found: Iterable[AgainstFloor]) -> Iterator[str]:
    """A sentence for each checkpoint that is refused."""
    for each in found:
        if each.refused:
            yield (
                f"refused: the checkpoint of {each.case} is no better than the floor {each.floor} "
                f"(gIoU {each.gIoU:.3f} against {each.floor_gIoU:.3f} over the same queries): its weights are broken, "
                "not those that were meant, or have learnt nothing; its quality says nothing"
            )


def floor_doubts(found: Iterable[AgainstFloor]) -> Iterator[str]:
    """A sentence for each model that is not surely better than the floors, and not refused."""
    for each in found:
        sides = (
            f"{each.case} (gIoU {each.gIoU:.3f}) is not",
            f"the floor {each.floor} (gIoU {each.floor_gIoU:.3f})",
        )
        if each.verdict == "not better" and not each.refused:
            few = (
                f"; {each.gIoU_points.clusters} images are too few to refuse it"
                if _too_few(each)
                else ""
            )
            yield f"{sides[0]} better than {sides[1]}{few}."
        elif each.verdict == "doubtful":
            yield f"{sides[0]} surely better than {sides[1]}: {_reach(each)}."


def _too_few(each: AgainstFloor) -> bool:
    return each.gIoU_points.clusters < FEWEST_IMAGES


def _reach(each: AgainstFloor) -> str:
    low, high = each.gIoU_points.low, each.gIoU_points.high
    if low is None or high is None:
        return "one image gives no interval"
    return f"the 95 % interval of their difference is [{low:+.1f}, {high:+.1f}] points"
