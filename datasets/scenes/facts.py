"""What can be said about the objects of a layout without doubt: positions, sizes and distances.

Objects are numbers from 0 on. "Clearly" means with a margin, so that no one who looks at the
picture would say otherwise. Where a fact is not clear, the methods here return None, and no query
is about it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from .layout import Layout, Thing
from .words import ATTRIBUTES, name

# Two positions differ if their centres are that far apart, as a share of the picture's side.
GAP = 0.05
SMALLEST_GAP_PX = 12
LARGER = 1.3  # one object is larger than another if its area is that many times the other's
FARTHER = 1.3  # the same for distances
COVERED = 0.08  # an object is partly hidden by another that covers that share of it
# For each side of the picture: the axis (0 is x, 1 is y), and whether coordinates grow (1) or fall
# (-1) when one counts from that side.
DIRECTIONS = {"left": (0, 1), "right": (0, -1), "top": (1, 1), "bottom": (1, -1)}

Given = tuple[tuple[str, str], ...]  # pairs of an attribute and its value


@dataclass(frozen=True)
class Group:
    """All objects that have some attributes in common.

    Attributes:
        given: those attributes with their values; empty for the group of all objects.
        members: the objects.
    """

    given: Given
    members: tuple[int, ...]

    @property
    def names(self) -> tuple[str, str]:
        """The name of a member, singular and plural."""
        return name(**dict(self.given))

    @property
    def fields(self) -> set[str]:
        """The attributes that are given."""
        return {attribute for attribute, _ in self.given}


@dataclass(frozen=True)
class Relation:
    """An order of objects that leaves doubtful pairs open.

    Attributes:
        holds: by i and j, whether i clearly comes before j.
    """

    holds: list[list[bool]]

    @cached_property
    def turned(self) -> "Relation":
        """The opposite order."""
        return Relation([list(column) for column in zip(*self.holds, strict=True)])

    @cached_property
    def _later(self) -> list[set[int]]:
        """For each object, the objects that it clearly comes before."""
        later = []
        for row in self.holds:
            later.append({j for j, comes_before in enumerate(row) if comes_before})
        return later

    def certain(self, order: list[int]) -> list[int | None]:
        """Return an order of objects with None in each rank that is open to doubt.

        A rank is certain if all objects of earlier ranks clearly come before its own, and all of
        later ranks clearly after.
        """
        later_than, earlier_than = self._later, self.turned._later
        ranks: list[int | None] = []
        for rank, i in enumerate(order):
            earlier, later = order[:rank], order[rank + 1 :]
            is_certain = earlier_than[i].issuperset(earlier) and later_than[i].issuperset(later)
            ranks.append(i if is_certain else None)
        return ranks


@dataclass(frozen=True)
class Facts:
    """The facts about a layout's objects."""

    layout: Layout

    @property
    def everything(self) -> range:
        """All objects."""
        return range(len(self.layout.things))

    def value(self, i: int, attribute: str) -> str:
        """Return the value of an attribute of object i, such as ``red``."""
        return getattr(self.layout.things[i], attribute)

    @cached_property
    def groups(self) -> list[Group]:
        """A group for every combination of attributes (none, some, all) that occurs."""
        members: dict[Given, list[int]] = {}
        for i in self.everything:
            for given in _descriptions(self.layout.things[i]):
                members.setdefault(given, []).append(i)
        return [Group(given, tuple(objects)) for given, objects in members.items()]

    def broad_groups(self, smallest: int) -> list[Group]:
        """Return the groups with at most one attribute given and at least `smallest` members."""
        groups = []
        for group in self.groups:
            if len(group.given) <= 1 and len(group.members) >= smallest:
                groups.append(group)
        return groups

    @cached_property
    def unique_names(self) -> dict[int, str]:
        """For each object that has one, the shortest name that fits it and no other.

        At most two attributes are named.
        """
        single = []
        for group in self.groups:
            if len(group.members) == 1 and 1 <= len(group.given) <= 2:
                single.append(group)
        # The best name comes last, and replaces the others: fewer attributes, and then one with a
        # shape.
        single.sort(key=lambda group: (-len(group.given), "shape" in group.fields))
        return {group.members[0]: group.names[0] for group in single}

    @cached_property
    def centres(self) -> list[tuple[float, float]]:
        """The centre (x, y) of the bounding box of each object's visible part, in pixels."""
        return [((x0 + x1) / 2, (y0 + y1) / 2) for x0, y0, x1, y1 in self.layout.boxes]

    @cached_property
    def _before(self) -> dict[str, Relation]:
        """For each side, whether i clearly lies nearer to it than j."""
        relations = {}
        for side, (axis, sense) in DIRECTIONS.items():
            relations[side] = self._nearer(axis, sense)
        return relations

    def _nearer(self, axis: int, sense: int) -> Relation:
        """Return the order of objects from one side, by their centres and their nearest edges."""
        side_px = (self.layout.width, self.layout.height)[axis]
        gap_px = max(GAP * side_px, SMALLEST_GAP_PX)
        centres = [sense * centre[axis] for centre in self.centres]
        # Of a box (x0, y0, x1, y1), the edge that is nearer to the side.
        edge = axis if sense > 0 else axis + 2
        edges = [sense * box[edge] for box in self.layout.boxes]
        holds = []
        for i in self.everything:
            row = []
            for j in self.everything:
                centre_is_nearer = centres[j] - centres[i] > gap_px
                edge_is_nearer = edges[j] - edges[i] > gap_px / 2
                row.append(centre_is_nearer and edge_is_nearer)
            holds.append(row)
        return Relation(holds)

    def ranked(self, members: tuple[int, ...], side: str) -> list[int | None]:
        """Return the members in their order from a side; None in a rank that is open to doubt."""
        axis, sense = DIRECTIONS[side]
        order = sorted(members, key=lambda i: sense * self.centres[i][axis])
        return self._before[side].certain(order)

    def by_size(self, members: tuple[int, ...], largest_first: bool) -> list[int | None]:
        """Return the members by size; None in every rank that is open to doubt."""
        order = sorted(members, key=lambda i: self.layout.full_px[i], reverse=largest_first)
        relation = self._larger if largest_first else self._larger.turned
        return relation.certain(order)

    @cached_property
    def _larger(self) -> Relation:
        """The order by size, largest first.

        i is clearly larger than j if its visible part is larger than all of j, so that it does not
        matter whether one completes hidden parts in the mind, and if it is not smaller across.
        """
        visible_px, full_px = self.layout.visible_px, self.layout.full_px
        extent_px = self.layout.extent_px
        holds = []
        for i in self.everything:
            row = []
            for j in self.everything:
                has_larger_area = visible_px[i] > LARGER * full_px[j]
                row.append(has_larger_area and extent_px[i] >= extent_px[j])
            holds.append(row)
        return Relation(holds)

    def on_side(self, i: int, ref: int, side: str) -> bool | None:
        """Return whether i lies to that side of ref; None if that is open to doubt."""
        before = self._before[side].holds
        if before[i][ref]:
            return True
        if before[ref][i]:
            return False
        return None

    def extreme(self, members: tuple[int, ...], ref: int, nearest: bool) -> int | None:
        """Return the member whose centre is nearest to ref's, or farthest from it.

        None if that is open to doubt.
        """
        distance = {i: math.dist(self.centres[i], self.centres[ref]) for i in members}
        first, *others = sorted(members, key=lambda i: distance[i], reverse=not nearest)
        for i in others:
            closer, farther = (first, i) if nearest else (i, first)
            if not distance[farther] > FARTHER * distance[closer]:
                return None
        return first

    def covers(self, i: int, j: int) -> bool | None:
        """Return whether i hides a part of j; None if it hides so little that nobody may notice."""
        share = self.layout.hidden_px[i, j] / self.layout.full_px[j]
        if 0 < share < COVERED:
            return None
        return share > 0


def _descriptions(thing: Thing) -> Iterator[Given]:
    """Yield every combination of an object's attributes, from none to all."""
    for named in product((False, True), repeat=len(ATTRIBUTES)):
        given = []
        for attribute, is_named in zip(ATTRIBUTES, named, strict=True):
            if is_named:
                given.append((attribute, getattr(thing, attribute)))
        yield tuple(given)
