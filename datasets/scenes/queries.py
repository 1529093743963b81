"""The queries about a scene, each of which has exactly one right answer.

Each family yields questions with their targets. A question without targets asks for something that,
without doubt, is not in the picture.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress, permutations, product, zip_longest

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
KEPT = 3  # at most so many questions with a target for each family of a scene; and one without
TEXTS = 3  # wordings of a query
SENTENCES = 0.5  # share of the queries that are whole sentences


@dataclass(frozen=True)
class Query:
    """A query about a scene.

    Attributes:
        family: attribute, relation, superlative, odd, negation or ordinal.
        texts: paraphrases, all sentences or all phrases; the first is the default.
        is_sentence: which of the two they are.
        targets: labels (object number + 1) of the target's objects; empty if there is no such
            object.
        mentioned: labels of the objects that the text refers to on the way.
    """

    family: str
    texts: tuple[str, ...]
    is_sentence: bool
    targets: tuple[int, ...]
    mentioned: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Question:
    """A query before it is put into words; objects are numbers from 0 on.

    Attributes:
        kind: key of `words.WORDINGS`.
        targets: objects of the target.
        slots: what fills the gaps of the wording.
        mentioned: objects that the slots name beside the target.
    """

    kind: str
    targets: tuple[int, ...]
    slots: dict[str, str]
    mentioned: tuple[int, ...] = field(default=())


def queries(layout: Layout, rng: np.random.Generator) -> tuple[Query, ...]:
    """Return up to three queries of each family that have a target, and up to one without.

    Args:
        layout: of the scene.
        rng: the scene's own. The order of its draws is part of the scene: all questions are chosen
            first, and then put into words.
    """
    facts = Facts(layout)
    chosen: list[tuple[str, _Question]] = []
    for family, questions_of in FAMILIES.items():
        for question in _choose(list(questions_of(facts)), rng):
            chosen.append((family, question))
    return tuple(_worded(family, question, rng) for family, question in chosen)


def _choose(candidates: list[_Question], rng: np.random.Generator) -> list[_Question]:
    """Return some questions of a family at random, of different kinds first."""
    # The first question of each kind comes before the second one of any kind, and so on. So the
    # questions are dealt into rounds, each of which has every kind at most once.
    rounds: dict[int, list[_Question]] = defaultdict(list)
    count_of_kind: Counter[str] = Counter()
    without_target: list[_Question] = []
    for place in rng.permutation(len(candidates)):
        question = candidates[place]
        if not question.targets:
            without_target.append(question)
        elif len(question.targets) <= MOST_TARGETS:
            rounds[count_of_kind[question.kind]].append(question)
            count_of_kind[question.kind] += 1
    with_target: list[_Question] = []
    for number in sorted(rounds):
        with_target += rounds[number]
    return with_target[:KEPT] + without_target[:1]


def _worded(family: str, question: _Question, rng: np.random.Generator) -> Query:
    is_sentence = bool(rng.random() < SENTENCES)
    if is_sentence:
        texts = _sentences(question, rng)
    else:
        texts = _shuffled(phrases(question.kind, question.slots), rng)
    return Query(
        family=family,
        texts=tuple(texts[:TEXTS]),
        is_sentence=is_sentence,
        targets=_labels(question.targets),
        mentioned=_labels(question.mentioned),
    )


def _labels(objects: tuple[int, ...]) -> tuple[int, ...]:
    """Return the labels of objects: 0 is the background, so that object 0 has label 1."""
    return tuple(number + 1 for number in objects)


def _sentences(question: _Question, rng: np.random.Generator) -> list[str]:
    """Return questions and requests alternately, so that each comes first half of the time.

    There are more requests than questions; shuffled together, a request would nearly always come
    first.
    """
    first = _shuffled(questions(question.kind, question.slots), rng)
    second = _shuffled(requests(question.kind, question.slots), rng)
    if not rng.random() < 0.5:
        first, second = second, first
    sentences = []
    for pair in zip_longest(first, second):
        sentences += [text for text in pair if text is not None]
    return sentences


def _shuffled(texts: list[str], rng: np.random.Generator) -> list[str]:
    return [texts[i] for i in rng.permutation(len(texts))]


def _named(group: Group) -> dict[str, str]:
    """Return the slots that name a member of a group, singular and plural."""
    what, whats = group.names
    return {"what": what, "whats": whats}


def _values(facts: Facts, attribute: str, members: Sequence[int]) -> Counter[str]:
    """Return how many of some objects have each value of an attribute."""
    return Counter(facts.value(i, attribute) for i in members)


def _attribute(facts: Facts) -> Iterator[_Question]:
    for group in facts.groups:
        if group.given and len(group.members) == 1:
            yield _Question("named", group.members, _named(group))
        elif group.given and len(group.members) < len(facts.everything):
            yield _Question("all", group.members, _named(group))
    # Without a target: a shape and a colour that both occur, but not in one object.
    shapes, colours, combinations = set(), set(), set()
    for thing in facts.layout.things:
        shapes.add(thing.shape)
        colours.add(thing.colour)
        combinations.add((thing.shape, thing.colour))
    # Sorted, since the order of a set differs from process to process.
    for shape, colour in product(sorted(shapes), sorted(colours)):
        if (shape, colour) not in combinations:
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


_KIND_OF_SIDE = {"left": "beside", "right": "beside", "top": "above", "bottom": "below"}


def _beside(
    facts: Facts, others: tuple[int, ...], ref: int, slots: dict[str, str]
) -> Iterator[_Question]:
    for side, kind in _KIND_OF_SIDE.items():
        targets = _certain(others, [facts.on_side(i, ref, side) for i in others])
        if targets is not None and len(targets) <= 1:
            yield _Question(kind, targets, slots | {"side": side}, (ref,))


def _certain(objects: tuple[int, ...], holds: Sequence[bool | None]) -> tuple[int, ...] | None:
    """Return the objects for which a fact holds; None if that is open to doubt for one of them."""
    if None in holds:
        return None
    return tuple(compress(objects, holds))


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
    """Yield questions about what hides ref, and about what ref hides.

    Only where there is a single such object, so that "in front of" and "behind" cannot mean
    anything else.
    """
    hiding = _certain(others, [facts.covers(i, ref) for i in others])
    hidden = _certain(others, [facts.covers(ref, i) for i in others])
    for kind, targets in (("hides", hiding), ("hidden", hidden)):
        if targets is not None and len(targets) == 1:
            yield _Question(kind, targets, slots, (ref,))


def _superlative(facts: Facts) -> Iterator[_Question]:
    for group in facts.broad_groups(2):
        for most, (more, amount) in SIZES.items():
            first = facts.by_size(group.members, most == "largest")[0]
            if first is not None:
                slots = _named(group) | {"most": most, "more": more, "amount": amount}
                yield _Question("size", (first,), slots)
        for side, most in EDGEMOST.items():
            first = facts.ranked(group.members, side)[0]
            if first is not None:
                slots = _named(group) | {"most": most, "side": side, "opposite": OPPOSITE[side]}
                yield _Question("edge", (first,), slots)
    # Without a target: a shape that does not occur.
    shapes = _values(facts, "shape", facts.everything)
    for what, whats in SHAPES.items():
        if what not in shapes:
            more, amount = SIZES["largest"]
            slots = {"what": what, "whats": whats}
            slots |= {"most": "largest", "more": more, "amount": amount}
            yield _Question("size", (), slots)


def _odd(facts: Facts) -> Iterator[_Question]:
    for group in facts.broad_groups(3):
        for attribute, word in ATTRIBUTES.items():
            if attribute in group.fields:
                continue
            if not group.given and len(group.members) < 4:
                continue
            counts = _values(facts, attribute, group.members)
            single = tuple(i for i in group.members if counts[facts.value(i, attribute)] == 1)
            if len(single) != 1:
                continue
            slots = _named(group) | {"attribute": word}
            if len(counts) == 2:
                yield _Question("odd", single, slots)
            elif not group.given:
                # Of a smaller group, "appears only once" could mean: in the whole picture.
                yield _Question("once", single, slots)


_VALUES_OF = {"shape": tuple(SHAPES), "colour": COLOURS, "texture": TEXTURES}


def _negation(facts: Facts) -> Iterator[_Question]:
    for group in facts.broad_groups(2):
        for attribute, values in _VALUES_OF.items():
            if attribute in group.fields:
                continue
            counts = _values(facts, attribute, group.members)
            present = [value for value in values if counts[value]]
            is_shape = attribute == "shape"  # a noun: "not a circle"; the others: "not red"
            for value in present:
                rest = _without(facts, group, attribute, (value,))
                slots = _named(group) | {"value": value}
                if len(rest) <= 1:
                    yield _Question("not a" if is_shape else "not", rest, slots)
                elif not is_shape:
                    yield _Question("all not", rest, slots)
            if is_shape:
                continue
            for value, other in permutations(present, 2):
                rest = _without(facts, group, attribute, (value, other))
                if len(rest) == 1:
                    slots = _named(group) | {"value": value, "other": other}
                    yield _Question("neither", rest, slots)


def _without(
    facts: Facts, group: Group, attribute: str, values: tuple[str, ...]
) -> tuple[int, ...]:
    """Return the members of a group that have none of some values."""
    return tuple(i for i in group.members if facts.value(i, attribute) not in values)


def _ordinal(facts: Facts) -> Iterator[_Question]:
    for group in facts.broad_groups(2):
        count = len(group.members)
        for side in OPPOSITE:
            slots = _named(group) | {"side": side, "opposite": OPPOSITE[side]}
            for rank, i in _inner_ranks(facts.ranked(group.members, side)):
                yield _Question("rank", (i,), slots | {"rank": RANKS[rank]})
            # Without a target: one more than there are.
            yield _Question("rank", (), slots | {"rank": RANKS[count]})
        for most in SIZES:
            slots = _named(group) | {"most": most}
            for rank, i in _inner_ranks(facts.by_size(group.members, most == "largest")):
                yield _Question("size rank", (i,), slots | {"rank": RANKS[rank]})
    yield from _most_common(facts)


def _inner_ranks(ranks: list[int | None]) -> Iterator[tuple[int, int]]:
    """Yield the certain ranks with their objects, but for the first and the last.

    Those two are superlatives.
    """
    for rank, i in enumerate(ranks):
        if i is not None and 0 < rank < len(ranks) - 1:
            yield rank, i


def _most_common(facts: Facts) -> Iterator[_Question]:
    for attribute, word in ATTRIBUTES.items():
        counts = _values(facts, attribute, facts.everything).most_common()
        if len(counts) < 2:
            continue
        (value, most), (_, second_most) = counts[:2]
        if most > second_most:
            targets = tuple(i for i in facts.everything if facts.value(i, attribute) == value)
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
