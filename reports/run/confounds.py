"""What a comparison compares: settings that differ, those that merely follow from them, and names without either."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .. import formatting
from .schema import Attribution, Case, Comparison

# A setting on the left is made from those on the right, so that it is no cause of its own where they differ too.
FOLLOWS: dict[str, tuple[str, ...]] = {
    "dtype": ("precision",),
    "clip_view": ("vision", "frame"),
    "sam": ("preset",),
    "clip_px": ("preset",),
    "sam_px": ("preset", "sam"),
    "mask_grid": ("preset", "sam"),
    "image_tokens": ("preset", "clip_px"),
    "vocabulary": (
        "preset",
        "weights",
        "conditioning",
    ),  # the described model adds one token, not three
    "weights_hash": ("weights", "vision"),  # of packaged weights, each variant has its own
    "tokenizer": ("weights",),
    "scripted": ("weights", "answer"),
    "quantized": ("vision",),  # a part that a variant lacks is passed over
    "quantized_compute": ("precision", "quantization", "quantized"),
    "kv_cache": ("execution",),  # upstream has none
    "attention": ("execution",),
    "head": ("execution", "answer"),
    "empty_cache": ("execution",),
}

Given = dict[str, Any]


def confounds(
    entries: Iterable[dict[str, Any]],
    comparisons: Sequence[Comparison],
    attributions: Sequence[Attribution] = (),
) -> Iterator[str]:
    """A sentence for each list of settings that sides differ in together, with all comparisons that it holds for.

    Args:
        entries: the cases of run.json, whose ``given`` says what was asked for.
        comparisons: those of the run.
        attributions: changes that are taken apart: their factors confound nothing.
    """
    apart = {found.candidate: found.levels.keys() for found in attributions if _known(found)}
    given = {entry["name"]: entry.get("given") or {} for entry in entries}
    groups: dict[tuple[str, ...], list[tuple[Comparison, dict[str, list[str]]]]] = defaultdict(list)
    for found in comparisons:
        causes = _causes(found, given.get(found.reference, {}), given.get(found.candidate, {}))
        if len(causes) > 1 and not causes.keys() <= apart.get(found.candidate, set()):
            groups[tuple(sorted(causes))].append((found, causes))
    for members in groups.values():
        settings = formatting.listed(_described([causes for _, causes in members]))
        yield (
            f"{_pairs([found for found, _ in members])} differ in more than one setting ({settings}): "
            "the ratios are of all of them together."
        )


def _known(found: Attribution) -> bool:
    """Whether both its time and its memory could be taken apart."""
    return found.time.whole.ratio is not None and found.memory.whole.bytes is not None


def _causes(found: Comparison, before: Given, after: Given) -> dict[str, list[str]]:
    """The settings that differ of themselves, each with those that follow from it.

    A setting that one side does not have at all follows from another one, too, and is not worth naming.
    """
    differing = [name for name, sides in found.differences.items() if None not in sides]
    followers = {
        name: _origin(name, found, before.get(name) == after.get(name)) for name in differing
    }
    causes = {name: [] for name in differing if followers[name] is None}
    for name, origin in followers.items():
        if origin in causes:
            causes[origin].append(name)
    return causes


def _origin(name: str, found: Comparison, asked_alike: bool) -> str | None:
    """The differing setting that this one follows from; none where the sides were asked to differ in it."""
    origins = (origin for origin in FOLLOWS.get(name, ()) if origin in found.differences)
    return next(origins, None) if asked_alike else None


def _described(found: Sequence[dict[str, list[str]]]) -> list[str]:
    """``vision (with it clip_view)``, over all comparisons of a group."""
    described = []
    for cause in found[0]:
        followers = list(dict.fromkeys(name for causes in found for name in causes[cause]))
        described.append(f"{cause} (with it {', '.join(followers)})" if followers else cause)
    return described


def _pairs(members: Sequence[Comparison]) -> str:
    """``clip, sam and dual``; with several references ``clip and dual; clip-15 and dual-15``."""
    by_reference: dict[str, list[str]] = defaultdict(list)
    for found in members:
        by_reference[found.reference].append(found.candidate)
    return "; ".join(
        formatting.listed([*candidates, reference])
        for reference, candidates in by_reference.items()
    )


def without_difference(cases: Sequence[Case], comparisons: Sequence[Comparison]) -> Iterator[str]:
    """A sentence for cases that are compared, or stand side by side, and are the same in all but their name."""
    teams: dict[str, list[str]] = defaultdict(list)
    for found in comparisons:
        teams[found.reference].append(found.candidate)
    settings = {case.name: case.settings for case in cases}
    for reference, candidates in teams.items():
        for alike in _alike([reference, *candidates], settings):
            yield f"{formatting.listed(alike)} have the same settings: any difference between them is noise."


def _alike(names: Sequence[str], settings: dict[str, Any]) -> Iterator[list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        if settings.get(name):
            groups[json.dumps(settings[name], sort_keys=True)].append(name)
    yield from (group for group in groups.values() if len(group) > 1)
