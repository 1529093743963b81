"""Every word of the scenes: attributes, names of objects, and wordings of each kind of query."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from string import Formatter

SHAPES = {
    "circle": "circles",
    "square": "squares",
    "triangle": "triangles",
    "star": "stars",
    "cross": "crosses",
    "heart": "hearts",
    "moon": "moons",
}
COLOURS = ("red", "yellow", "green", "blue", "purple", "white", "black")
TEXTURES = ("plain", "striped", "dotted", "checked")
ATTRIBUTES = {"shape": "shape", "colour": "colour", "texture": "pattern"}  # as a field, as a word
RANKS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
# For each side of the picture, the opposite one, and what the object nearest to it is called.
OPPOSITE = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
EDGEMOST = {"left": "leftmost", "right": "rightmost", "top": "topmost", "bottom": "lowest"}
# For each extreme of size, the words for "... than any other" and "takes up the ... space".
SIZES = {"largest": ("larger", "most"), "smallest": ("smaller", "least")}

# Sentences around a noun phrase, for one target and for several.
SINGULAR = (
    "Where is {np}?",
    "Please segment {np}.",
    "Can you find {np}?",
    "Please show me {np}.",
    "I am looking for {np}, where is it?",
)
PLURAL = (
    "Where are {np}?",
    "Please segment {np}.",
    "Can you find {np}?",
    "Please show me {np}.",
    "I am looking for {np}, where are they?",
)


@dataclass(frozen=True)
class Wording:
    """How one kind of query is worded.

    Attributes:
        phrases: noun phrases, which also go into the sentences above.
        questions: questions of this kind alone.
        plural: whether the phrases are in the plural.
    """

    phrases: tuple[str, ...]
    questions: tuple[str, ...]
    plural: bool = False


WORDINGS = {
    "named": Wording(
        ("the {what}",), ("Where in the picture is the {what}?", "Do you see the {what}?")
    ),
    "all": Wording(
        ("all the {whats}", "the {whats}"), ("Where in the picture are the {whats}?",), plural=True
    ),
    "beside": Wording(
        ("the {what} to the {side} of the {ref}", "the {what} that lies {side} of the {ref}"),
        (
            "Which {what} lies to the {side} of the {ref}?",
            "Starting at the {ref} and going {side}, which {what} is there?",
        ),
    ),
    "above": Wording(
        ("the {what} above the {ref}", "the {what} that is higher up than the {ref}"),
        (
            "Which {what} is above the {ref}?",
            "Which {what} is higher up in the picture than the {ref}?",
        ),
    ),
    "below": Wording(
        ("the {what} below the {ref}", "the {what} that is lower down than the {ref}"),
        (
            "Which {what} is below the {ref}?",
            "Which {what} is lower down in the picture than the {ref}?",
        ),
    ),
    "nearest": Wording(
        ("the {what} nearest to the {ref}", "the {what} closest to the {ref}"),
        (
            "Which {what} is nearest to the {ref}?",
            "Of all the {whats}, which one is closest to the {ref}?",
        ),
    ),
    "farthest": Wording(
        (
            "the {what} farthest from the {ref}",
            "the {what} at the greatest distance from the {ref}",
        ),
        (
            "Which {what} is farthest from the {ref}?",
            "Of all the {whats}, which one is farthest from the {ref}?",
        ),
    ),
    "hides": Wording(
        ("the {what} that partly hides the {ref}", "the {what} in front of the {ref}"),
        ("Which {what} covers a part of the {ref}?", "Which {what} lies in front of the {ref}?"),
    ),
    "hidden": Wording(
        ("the {what} partly hidden by the {ref}", "the {what} behind the {ref}"),
        ("Which {what} is partly covered by the {ref}?", "Which {what} lies behind the {ref}?"),
    ),
    "size": Wording(
        ("the {most} {what}", "the {what} that is {more} than any other {what}"),
        ("Which {what} is the {most}?", "Which of the {whats} takes up the {amount} space?"),
    ),
    "edge": Wording(
        ("the {most} {what}", "the {what} closest to the {side} edge of the picture"),
        (
            "Which {what} is closest to the {side} edge?",
            "Going from {side} to {opposite}, which {what} comes first?",
        ),
    ),
    "odd": Wording(
        (
            "the {what} whose {attribute} differs from that of all the other {whats}",
            "the odd one out among the {whats} by {attribute}",
        ),
        (
            "Which {what} does not match the other {whats} in {attribute}?",
            "All the {whats} but one have the same {attribute}, which one is different?",
        ),
    ),
    "once": Wording(
        (
            "the {what} whose {attribute} appears only once",
            "the only {what} that shares its {attribute} with no other",
        ),
        (
            "Which {what} shares its {attribute} with no other {what}?",
            "Which {what} is the only one of its {attribute}?",
        ),
    ),
    "not": Wording(
        ("the {what} that is not {value}", "the only {what} that is not {value}"),
        ("Which {what} is not {value}?", "Leaving out everything {value}, which {what} remains?"),
    ),
    "not a": Wording(
        ("the {what} that is not a {value}", "the only {what} that is not a {value}"),
        ("Which {what} is not a {value}?", "Leaving out every {value}, which {what} remains?"),
    ),
    "neither": Wording(
        (
            "the {what} that is neither {value} nor {other}",
            "the {what} that is not {value} and not {other}",
        ),
        (
            "Which {what} is neither {value} nor {other}?",
            "Leaving out everything {value} or {other}, which {what} remains?",
        ),
    ),
    "all not": Wording(
        ("all the {whats} that are not {value}", "the {whats} that are not {value}"),
        ("Which {whats} are not {value}?",),
        plural=True,
    ),
    "rank": Wording(
        ("the {rank} {what} from the {side}", "the {what} that comes {rank} from the {side}"),
        (
            "Counting from the {side}, which {what} is the {rank}?",
            "Going from {side} to {opposite}, which {what} comes {rank}?",
        ),
    ),
    "size rank": Wording(
        ("the {rank} {most} {what}", "the {what} that is {rank} {most}"),
        (
            "Which {what} is the {rank} {most}?",
            "Ordered by size, which {what} is the {rank} {most}?",
        ),
    ),
    "most common": Wording(
        (
            "all the {whats} of the most common {attribute}",
            "the {whats} whose {attribute} appears most often",
        ),
        ("Counting each {attribute}, which {whats} have the most common one?",),
        plural=True,
    ),
}


@cache
def name(
    shape: str | None = None, colour: str | None = None, texture: str | None = None
) -> tuple[str, str]:
    """Return the name of what has some attributes: ("striped circle", "striped circles")."""
    adjectives = [word for word in (texture, colour) if word]
    singular, plural = (shape, SHAPES[shape]) if shape else ("object", "objects")
    return " ".join([*adjectives, singular]), " ".join([*adjectives, plural])


def phrases(kind: str, slots: dict[str, str]) -> list[str]:
    """Return every noun phrase for a query.

    Args:
        kind: key of `WORDINGS`.
        slots: what fills the gaps of the wording.
    """
    return [template.format(**slots) for template in WORDINGS[kind].phrases]


def questions(kind: str, slots: dict[str, str]) -> list[str]:
    """Return every question that is particular to this kind; see `phrases`."""
    return [template.format(**slots) for template in WORDINGS[kind].questions]


def requests(kind: str, slots: dict[str, str]) -> list[str]:
    """Return every sentence around one of the noun phrases; see `phrases`."""
    sentences = PLURAL if WORDINGS[kind].plural else SINGULAR
    return [
        sentence.format(np=phrase) for sentence, phrase in product(sentences, phrases(kind, slots))
    ]


def words(text: str) -> list[str]:
    """Split a query into lower-case words and punctuation marks."""
    return re.findall(r"[a-z]+|[^\sa-z]", text.lower())


def vocabulary() -> list[str]:
    """Return every word and punctuation mark that a query can hold, sorted."""
    vocabulary: set[str] = set()
    for text in _texts():
        vocabulary.update(words(text))
    return sorted(vocabulary)


def _texts() -> Iterator[str]:
    """Yield the templates without their slots, and everything that can fill a slot."""
    templates = [*SINGULAR, *PLURAL]
    for wording in WORDINGS.values():
        templates += [*wording.phrases, *wording.questions]
    for template in templates:
        for literal, *_ in Formatter().parse(template):
            yield literal
    yield from (*SHAPES, *SHAPES.values(), "object", "objects")
    yield from (*COLOURS, *TEXTURES, *ATTRIBUTES.values())
    # No rank is the first: that is the leftmost, say, or the largest.
    yield from (*RANKS[1:], *OPPOSITE, *EDGEMOST.values())
    for most, comparatives in SIZES.items():
        yield from (most, *comparatives)
