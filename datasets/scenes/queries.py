"""What can be asked about a scene, so that exactly one answer is right.

Each family yields questions with their targets. A question whose targets are empty asks for something that, without
doubt, is not there.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import permutations, product, zip_longest

import numpy as np

from .facts import Facts, Group
from .layout import Layout
from .words import (
    ATTRIBUTES,
    COLOURS,
    EDGEMOST,
    OPPOSITE,
    RANKS,
    SHAPES,
    SIZES,
    TEXTURES,
    name,
    phrases,
    questions,
    requests,
)

MOST_TARGETS = 4
KEPT = 3  # questions with a target that a family contributes to a scene, at most; and one without
TEXTS = 3  # wordings of a query
SENTENCES = 0.5  # share of the queries that are whole sentences


@dataclass(frozen=True)
class Query:
    """A question about a scene.

    Attributes:
        family: attribute, relation, superlative, odd, negation or ordinal.
        texts: paraphrases, all sentences or all phrases; the first is the default.
        targets: labels (object number + 1) of the objects asked for; empty if there is no such object.
        mentioned: labels of the objects that the words refer to on the way.
    """

    family: str
    texts: tuple[str, ...]
    is_sentence: bool
    targets: tuple[int, ...]
    mentioned: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Question:
    """A query before it is put into words; objects are numbers from 0 on."""

    kind: str
    targets: tuple[int, ...]
    slots: dict[str, str]
    mentioned: tuple[int, ...] = field(default=())


def queries(layout: Layout, rng: np.random.Generator) -> tuple[Query, ...]:
    """Up to three questions of each family that have a target, of different kinds first, and up to one without."""
    facts = Facts(layout)
    chosen = [
        (family, q) for family, ask in FAMILIES.items() for q in _choose(list(ask(facts)), rng)
    ]
    return tuple(_worded(family, question, rng) for family, question in chosen)


def _choose(asked: list[_Question], rng: np.random.Generator) -> list[_Question]:
    shuffled = [asked[i] for i in rng.permutation(len(asked))]
    found = [q for q in shuffled if 1 <= len(q.targets) <= MOST_TARGETS]
    turns: Counter[str] = Counter()
    turn = {}
    for question in found:
        turn[id(question)] = turns[question.kind]
        turns[question.kind] += 1
    found.sort(key=lambda question: turn[id(question)])
    return found[:KEPT] + [q for q in shuffled if not q.targets][:1]


def _worded(family: str, question: _Question, rng: np.random.Generator) -> Query:
    is_sentence = bool(rng.random() < SENTENCES)
    texts = (
        _sentences(question, rng)
        if is_sentence
        else _shuffled(phrases(question.kind, question.slots), rng)
    )
    return Query(
        family=family,
        texts=tuple(texts[:TEXTS]),
        is_sentence=is_sentence,
        targets=tuple(i + 1 for i in question.targets),
        mentioned=tuple(i + 1 for i in question.mentioned),
    )


def _sentences(question: _Question, rng: np.random.Generator) -> list[str]:
    """Questions and requests in turn, so that each comes first half of the time although there are more requests."""
    pools = [_shuffled(put(question.kind, question.slots), rng) for put in (questions, requests)]
    first, second = pools if rng.random() < 0.5 else reversed(pools)
    return [text for pair in zip_longest(first, second) for text in pair if text]


def _shuffled(texts: list[str], rng: np.random.Generator) -> list[str]:
    return [texts[i] for i in rng.permutation(len(texts))]


def _named(group: Group) -> dict[str, str]:
    what, whats = group.names
    return {"what": what, "whats": whats}


def _attribute(facts: Facts) -> Iterator[_Question]:
    for group in facts.groups:
        if group.given and len(group.members) == 1:
            yield _Question("named", group.members, _named(group))
        elif group.given and len(group.members) < len(facts.everything):
            yield _Question("all", group.members, _named(group))
    seen = {(facts.value(i, "shape"), facts.value(i, "colour")) for i in facts.everything}
    shapes, colours = sorted({shape for shape, _ in seen}), sorted({colour for _, colour in seen})
    for shape, colour in product(shapes, colours):
        if (shape, colour) not in seen:
            what, whats = name(shape, colour)
            yield _Question("named", (), {"what": what, "whats": whats})


def _relation(facts: Facts) -> Iterator[_Question]:
    for ref, ref_name in facts.unique_names.items():
        for group in facts.broad_groups(2):
            others = tuple(i for i in group.members if i != ref)
            if len(others) >= 2:
                slots = _named(group) | {"ref": ref_name}
                yield from _beside(facts, others, ref, slots)
                yield from _near(facts, others, ref, slots)
                yield from _covering(facts, others, ref, slots)


def _beside(
    facts: Facts, others: tuple[int, ...], ref: int, slots: dict[str, str]
) -> Iterator[_Question]:
    for side, kind in (
        ("left", "beside"),
        ("right", "beside"),
        ("top", "above"),
        ("bottom", "below"),
    ):
        answers = {i: facts.on_side(i, ref, side) for i in others}
        hits = tuple(i for i in others if answers[i])
        if None not in answers.values() and len(hits) <= 1:
            yield _Question(kind, hits, slots | {"side": side}, (ref,))


def _near(
    facts: Facts, others: tuple[int, ...], ref: int, slots: dict[str, str]
) -> Iterator[_Question]:
    for kind in ("nearest", "farthest"):
        first = facts.extreme(others, ref, kind == "nearest")
        if first is not None:
            yield _Question(kind, (first,), slots, (ref,))


def _covering(
    facts: Facts, others: tuple[int, ...], ref: int, slots: dict[str, str]
) -> Iterator[_Question]:
    """Only where a single object touches ref at all, so that "behind" and "in front of" cannot mean anything else."""
    for kind, covers in (("hides", facts.covers), ("hidden", lambda i, j: facts.covers(j, i))):
        answers = {i: covers(i, ref) for i in others}
        hits = tuple(i for i in others if answers[i])
        if None not in answers.values() and len(hits) == 1:
            yield _Question(kind, hits, slots, (ref,))


def _superlative(facts: Facts) -> Iterator[_Question]:
    for group in facts.broad_groups(2):
        for most, (more, amount) in SIZES.items():
            first = facts.by_size(group.members, most == "largest")[0]
            if first is not None:
                yield _Question(
                    "size", (first,), _named(group) | {"most": most, "more": more, "amount": amount}
                )
        for side, most in EDGEMOST.items():
            first = facts.ranked(group.members, side)[0]
            if first is not None:
                slots = {"most": most, "side": side, "opposite": OPPOSITE[side]}
                yield _Question("edge", (first,), _named(group) | slots)
    for what, whats in SHAPES.items():
        if not any(facts.value(i, "shape") == what for i in facts.everything):
            slots = {
                "what": what,
                "whats": whats,
                "most": "largest",
                "more": "larger",
                "amount": "most",
            }
            yield _Question("size", (), slots)


def _odd(facts: Facts) -> Iterator[_Question]:
    for group in facts.broad_groups(3):
        for attribute, word in ATTRIBUTES.items():
            if attribute in group.fields or (not group.given and len(group.members) < 4):
                continue
            counts = Counter(facts.value(i, attribute) for i in group.members)
            single = tuple(i for i in group.members if counts[facts.value(i, attribute)] == 1)
            if len(single) == 1 and len(counts) == 2:
                yield _Question("odd", single, _named(group) | {"attribute": word})
            elif (
                len(single) == 1 and not group.given
            ):  # of a group, "appears only once" could mean: in the picture
                yield _Question("once", single, _named(group) | {"attribute": word})


def _negation(facts: Facts) -> Iterator[_Question]:
    for group in facts.broad_groups(2):
        for attribute, values in (
            ("shape", tuple(SHAPES)),
            ("colour", COLOURS),
            ("texture", TEXTURES),
        ):
            if attribute in group.fields:
                continue
            kind = "not a" if attribute == "shape" else "not"
            of = {
                value: [i for i in group.members if facts.value(i, attribute) == value]
                for value in values
            }
            present = [value for value in values if of[value]]
            for value in present:
                rest = tuple(i for i in group.members if i not in of[value])
                if len(rest) <= 1:
                    yield _Question(kind, rest, _named(group) | {"value": value})
                elif kind == "not":
                    yield _Question("all not", rest, _named(group) | {"value": value})
            for value, other in permutations(present, 2):
                rest = tuple(i for i in group.members if i not in of[value] + of[other])
                if kind == "not" and len(rest) == 1:
                    yield _Question(
                        "neither", rest, _named(group) | {"value": value, "other": other}
                    )


def _ordinal(facts: Facts) -> Iterator[_Question]:
    for group in facts.broad_groups(2):
        count = len(group.members)
        for side in OPPOSITE:
            slots = _named(group) | {"side": side, "opposite": OPPOSITE[side]}
            for rank, i in enumerate(facts.ranked(group.members, side)):
                if i is not None and 0 < rank < count - 1:
                    yield _Question("rank", (i,), slots | {"rank": RANKS[rank]})
            yield _Question("rank", (), slots | {"rank": RANKS[count]})
        for most in SIZES:
            for rank, i in enumerate(facts.by_size(group.members, most == "largest")):
                if i is not None and 0 < rank < count - 1:
                    yield _Question(
                        "size rank", (i,), _named(group) | {"most": most, "rank": RANKS[rank]}
                    )
    yield from _most_common(facts)


def _most_common(facts: Facts) -> Iterator[_Question]:
    for attribute, word in ATTRIBUTES.items():
        counts = Counter(facts.value(i, attribute) for i in facts.everything).most_common()
        if len(counts) > 1 and counts[0][1] > counts[1][1] and counts[0][1] > 1:
            targets = tuple(
                i for i in facts.everything if facts.value(i, attribute) == counts[0][0]
            )
            slots = {"what": "object", "whats": "objects", "attribute": word}
            yield _Question("most common", targets, slots)


FAMILIES: dict[str, Callable[[Facts], Iterator[_Question]]] = {
    "attribute": _attribute,
    "relation": _relation,
    "superlative": _superlative,
    "odd": _odd,
    "negation": _negation,
    "ordinal": _ordinal,
}
