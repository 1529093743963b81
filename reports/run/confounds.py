"""Settings that differ between compared cases: confounds, twins without any, and the table."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ...harness.records.manifest import CaseEntry
from ...harness.text import escape
from .. import formatting
from ..markdown import cell, markdown_table
from .schema import Attribution, Case, Comparison, Summary

# A setting on the left is made from those on the right, so that it is no cause of its own where
# they differ too.
FOLLOWS: dict[str, tuple[str, ...]] = {
    "dtype": ("precision",),
    "clip_view": ("vision", "frame"),
    "sam": ("preset",),
    "clip_px": ("preset",),
    "sam_px": ("preset", "sam"),
    "mask_grid": ("preset", "sam"),
    "image_tokens": ("preset", "clip_px"),
    # The described model adds one token to the vocabulary, not three.
    "vocabulary": ("preset", "weights", "conditioning"),
    "weights_hash": ("weights", "vision"),  # of packaged weights, each variant has its own
    "tokenizer": ("weights",),
    "answer": ("prompt",),  # words as they are typed are answered, unless an answer is given
    "scripted": ("weights", "answer"),
    "quantized": ("vision",),  # a part that a variant lacks is passed over
    "quantized_compute": ("precision", "quantization", "quantized"),
    "kv_cache": ("execution",),  # upstream has none
    "attention": ("execution",),
    "head": ("execution", "answer"),
    "empty_cache": ("execution",),
}

# Settings that differ of themselves, each with those that follow from it.
Causes = dict[str, list[str]]


def confounds(
    entries: Iterable[CaseEntry],
    comparisons: Sequence[Comparison],
    attributions: Sequence[Attribution] = (),
) -> Iterator[str]:
    """Return one sentence about all settings that differ together, each set with its comparisons.

    Args:
        entries: the cases of the manifest, with the settings that the suite gives.
        comparisons: those of the run.
        attributions: changes that are taken apart: their factors confound nothing.
    """
    factors = {}
    for attribution in attributions:
        if _taken_apart(attribution):
            factors[attribution.candidate] = attribution.levels.keys()
    given = {entry.name: entry.given for entry in entries}

    groups: dict[tuple[str, ...], list[tuple[Comparison, Causes]]] = defaultdict(list)
    for comparison in comparisons:
        causes = causes_of(
            comparison, given.get(comparison.reference, {}), given.get(comparison.candidate, {})
        )
        explained = causes.keys() <= factors.get(comparison.candidate, set())
        if len(causes) > 1 and not explained:
            groups[tuple(sorted(causes))].append((comparison, causes))
    clauses = []
    for members in groups.values():
        pairs = _pairs([comparison for comparison, _ in members])
        settings = formatting.listed(_with_followers([causes for _, causes in members]))
        clauses.append(f"{pairs} differ in more than one setting ({settings})")
    if clauses:
        yield f"{'; '.join(clauses)}: the ratios are of all of them together."


def _taken_apart(attribution: Attribution) -> bool:
    """Return whether both the time and the memory could be taken apart."""
    whole_time, whole_memory = attribution.time.whole, attribution.memory.whole
    return whole_time.ratio is not None and whole_memory.bytes is not None


def causes_of(
    comparison: Comparison, before: Mapping[str, Any], after: Mapping[str, Any]
) -> Causes:
    """Return the settings that differ of themselves, each with those that follow from it.

    A setting that one side does not have at all follows from another one, too, and is not named.

    Args:
        comparison: with the settings that differ.
        before, after: the settings that the suite gives to the reference and to the candidate.
    """
    origins = {}
    for name, values in comparison.differences.items():
        if None not in values:
            # A setting that the suite itself gives differently is a cause of its own.
            given_alike = before.get(name) == after.get(name)
            origins[name] = _origin(name, comparison) if given_alike else None
    causes: Causes = {name: [] for name, origin in origins.items() if origin is None}
    for name, origin in origins.items():
        if origin in causes:
            causes[origin].append(name)
    return causes


def _origin(name: str, comparison: Comparison) -> str | None:
    """Return the differing setting that this one follows from; None where there is none."""
    for origin in FOLLOWS.get(name, ()):
        if origin in comparison.differences:
            return origin
    return None


def _with_followers(causes_of_members: Sequence[Causes]) -> list[str]:
    """Return each cause with what follows from it anywhere: ``vision (with it clip_view)``."""
    texts = []
    for cause in causes_of_members[0]:
        followers: dict[str, None] = {}  # as an ordered set
        for causes in causes_of_members:
            followers.update(dict.fromkeys(causes[cause]))
        if followers:
            texts.append(f"{cause} (with it {', '.join(followers)})")
        else:
            texts.append(cause)
    return texts


def _pairs(comparisons: Sequence[Comparison]) -> str:
    """Return ``clip, sam and dual``; of several references ``clip and dual; sam and dual-15``."""
    candidates_of: dict[str, list[str]] = defaultdict(list)
    for comparison in comparisons:
        candidates_of[comparison.reference].append(comparison.candidate)
    pairs = []
    for reference, candidates in candidates_of.items():
        pairs.append(formatting.listed([*candidates, reference]))
    return "; ".join(pairs)


def without_difference(cases: Sequence[Case], comparisons: Sequence[Comparison]) -> Iterator[str]:
    """Return a sentence for compared cases that are the same in all but their name."""
    groups: dict[str, list[str]] = defaultdict(list)
    for comparison in comparisons:
        groups[comparison.reference].append(comparison.candidate)
    settings = {case.name: case.settings for case in cases}
    for reference, candidates in groups.items():
        same_settings: dict[str, list[str]] = defaultdict(list)
        for name in (reference, *candidates):
            if settings.get(name):
                same_settings[json.dumps(settings[name], sort_keys=True)].append(name)
        for names in same_settings.values():
            if len(names) > 1:
                yield (
                    f"{formatting.listed(names)} have the same settings: any difference between "
                    "them is noise."
                )


def settings_that_differ(summary: Summary) -> str:
    """Return tables of the settings in which a candidate differs from its reference, by group."""
    texts = []
    for group in summary.groups:
        names: dict[str, None] = {}  # as an ordered set
        for comparison in summary.comparisons:
            if comparison.candidate in group.cases:
                names.update(dict.fromkeys(comparison.differences))
        if not names:
            continue
        header = ["setting"]
        settings_of_cases = []
        for case in summary.in_group(group):
            if case.settings is not None:  # it was built
                header.append(case.name)
                settings_of_cases.append(case.settings)
        rows = []
        for name in names:
            cells = [cell(settings.get(name)) for settings in settings_of_cases]
            rows.append([name, *cells])
        if group.name:
            texts.append(f"### {escape(group.name)}")
        texts.append(markdown_table(header, rows, numbers=False))
    return "\n\n".join(texts)
