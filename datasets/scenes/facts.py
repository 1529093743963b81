"""What can be said about the objects of a layout without doubt: positions, sizes and distances, with margins."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from .layout import Layout, Thing
from .words import ATTRIBUTES, name

GAP = 0.05  # two positions differ if their centres are that far apart, as a share of the picture's side
LARGER = 1.3  # one object is larger than another if its area is that many times the other's
FARTHER = 1.3  # likewise for distances
COVERED = 0.08  # an object is partly hidden by another that covers that share of it
DIRECTIONS = {
    "left": (0, 1),
    "right": (0, -1),
    "top": (1, 1),
    "bottom": (1, -1),
}  # axis, and the sense of counting


@dataclass(frozen=True)
class Group:
    """All objects that some attributes name. ``given`` holds those attributes."""

    given: tuple[tuple[str, str], ...]
    members: tuple[int, ...]

    @property
    def names(self) -> tuple[str, str]:
        """Singular and plural."""
        return name(**dict(self.given))

    @property
    def fields(self) -> set[str]:
        return {field for field, _ in self.given}


@dataclass(frozen=True)
class Relation:
    """Between objects, by i and j: whether i clearly comes before j."""

    holds: list[list[bool]]

    @cached_property
    def turned(self) -> "Relation":
        """The same from the other end."""
        return Relation([list(column) for column in zip(*self.holds, strict=True)])

    @cached_property
    def _later(self) -> list[set[int]]:
        """What each clearly comes before."""
        return [{j for j, holds in enumerate(row) if holds} for row in self.holds]

    def certain(self, order: list[int]) -> list[int | None]:
        """Keeps a rank where all earlier ones clearly come before it and all later ones clearly after."""
        later, earlier = self._later, self.turned._later
        return [
            here
            if earlier[here].issuperset(order[:rank]) and later[here].issuperset(order[rank + 1 :])
            else None
            for rank, here in enumerate(order)
        ]


@dataclass(frozen=True)
class Facts:
    """Answers questions about a layout's objects, which are numbers from 0 on. "Clearly" means: with a margin."""

    layout: Layout

    @property
    def everything(self) -> range:
        return range(len(self.layout.things))

    def value(self, i: int, field: str) -> str:
        return getattr(self.layout.things[i], field)

    @cached_property
    def groups(self) -> list[Group]:
        """Every combination of attributes (none, some, all) that occurs, with the objects it names."""
        found: dict[tuple[tuple[str, str], ...], list[int]] = {}
        for i in self.everything:
            for given in _descriptions(self.layout.things[i]):
                found.setdefault(given, []).append(i)
        return [Group(given, tuple(members)) for given, members in found.items()]

    def broad_groups(self, smallest: int) -> list[Group]:
        """Groups named by at most one attribute, with at least so many members."""
        return [
            group
            for group in self.groups
            if len(group.given) <= 1 and len(group.members) >= smallest
        ]

    @cached_property
    def unique_names(self) -> dict[int, str]:
        """The shortest name that fits an object and no other, for those that have one; two attributes at most."""
        single = [
            group for group in self.groups if len(group.members) == 1 and 1 <= len(group.given) <= 2
        ]
        ordered = sorted(single, key=lambda group: (-len(group.given), "shape" in group.fields))
        return {group.members[0]: group.names[0] for group in ordered}

    @cached_property
    def centres(self) -> list[tuple[float, float]]:
        """Of the visible parts' bounding boxes, in pixels."""
        return [((x0 + x1) / 2, (y0 + y1) / 2) for x0, y0, x1, y1 in self.layout.boxes]

    @cached_property
    def _before(self) -> dict[str, Relation]:
        """By side: whether i clearly lies nearer to it than j, by the centre and by the nearest edge."""
        return {side: self._nearer(*direction) for side, direction in DIRECTIONS.items()}

    def _nearer(self, axis: int, sense: int) -> Relation:
        gap = max(GAP * (self.layout.width, self.layout.height)[axis], 12)
        centres = [sense * centre[axis] for centre in self.centres]
        edges = [sense * box[axis if sense > 0 else axis + 2] for box in self.layout.boxes]
        places = list(zip(centres, edges, strict=True))
        return Relation([[x - a > gap and y - b > gap / 2 for x, y in places] for a, b in places])

    def ranked(self, members: tuple[int, ...], side: str) -> list[int | None]:
        """The members from that side on; None in every rank that is open to doubt."""
        axis, sense = DIRECTIONS[side]
        return self._before[side].certain(
            sorted(members, key=lambda i: sense * self.centres[i][axis])
        )

    def by_size(self, members: tuple[int, ...], largest_first: bool) -> list[int | None]:
        """The members by size; None in every rank that is open to doubt."""
        order = sorted(members, key=lambda i: self.layout.full_px[i], reverse=largest_first)
        return (self._larger if largest_first else self._larger.turned).certain(order)

    @cached_property
    def _larger(self) -> Relation:
        """Larger in area, with hidden parts completed in the mind or not, and not smaller across."""
        sizes = list(zip(self.layout.full_px, self.layout.extent_px, strict=True))
        seen = zip(self.layout.visible_px, self.layout.extent_px, strict=True)
        return Relation(
            [
                [area > LARGER * full and across >= other for full, other in sizes]
                for area, across in seen
            ]
        )

    def on_side(self, i: int, ref: int, side: str) -> bool | None:
        """Whether i lies to that side of ref; None if open to doubt."""
        before = self._before[side].holds
        return before[i][ref] or (False if before[ref][i] else None)

    def extreme(self, members: tuple[int, ...], ref: int, nearest: bool) -> int | None:
        """The member whose centre is nearest to ref's, or farthest from it; None if open to doubt."""
        far = {i: math.dist(self.centres[i], self.centres[ref]) for i in members}
        first, *others = sorted(members, key=far.__getitem__, reverse=not nearest)
        pairs = ((first, i) if nearest else (i, first) for i in others)
        return first if all(far[high] > FARTHER * far[low] for low, high in pairs) else None

    def covers(self, i: int, j: int) -> bool | None:
        """Whether i hides a part of j; None if it hides so little that it may go unnoticed."""
        share = self.layout.hidden_px[i, j] / self.layout.full_px[j]
        return None if 0 < share < COVERED else share > 0


def _descriptions(thing: Thing) -> Iterator[tuple[tuple[str, str], ...]]:
    for chosen in product((False, True), repeat=len(ATTRIBUTES)):
        yield tuple(
            (field, getattr(thing, field))
            for field, take in zip(ATTRIBUTES, chosen, strict=True)
            if take
        )
