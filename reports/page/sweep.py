"""What is swept in a run: a number that cases differ in alone, such as the batch.

Cases that differ in nothing but this number are a line. A case that differs from all others in
something else too, such as a control, is a line of one case.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from ..run.confounds import FOLLOWS
from ..run.schema import Case, Summary

BATCH = "batch"
NO_QUANTITIES = ("seed",)  # settings that are numbers, but count or measure nothing

Settings = dict[str, JsonValue]
Numbered = tuple[float, Case]  # the value of the swept setting, and the case that has it


@dataclass(frozen=True)
class Line:
    """Cases that differ in nothing but one number, or a single case.

    Attributes:
        name: of the line.
        cases: at least one, by their number, from the smallest on.
    """

    name: str
    cases: Mapping[float, Case]


@dataclass(frozen=True)
class Sweep:
    """What is drawn.

    Attributes:
        setting: the number that is swept.
        lines: those of several cases first.
    """

    setting: str
    lines: Sequence[Line]

    @property
    def values(self) -> list[float]:
        """The values of the setting, ascending."""
        values: set[float] = set()
        for line in self.lines:
            values.update(line.cases)
        return sorted(values)


def sweep_of(summary: Summary) -> Sweep | None:
    """Return the number that most cases differ in alone, with its lines; None without any.

    Where several numbers are swept, the batch is preferred, and each value of the others has a line
    of its own.
    """
    cases = [
        case for case in summary.cases if case.settings and case.time.end_to_end_over_processes
    ]
    numbers: dict[str, None] = {}  # as an ordered set
    for case in cases:
        for name in case.settings or {}:
            if _number(case, name) is not None and name not in NO_QUANTITIES:
                numbers[name] = None
    best, most_cases = None, 0
    for setting in sorted(numbers, key=lambda name: name != BATCH):
        lines = _lines(cases, setting)
        in_lines = sum(len(line.cases) for line in lines if len(line.cases) > 1)
        if in_lines > most_cases:
            best, most_cases = Sweep(setting, lines), in_lines
    return best


def _number(case: Case, setting: str) -> float | None:
    """Return the value of a setting if it is a number."""
    value = (case.settings or {}).get(setting)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def _lines(cases: Sequence[Case], setting: str) -> list[Line]:
    """Return the cases that have the setting, joined where they differ in nothing else."""
    alike: dict[str, list[Numbered]] = defaultdict(list)
    for case in cases:
        number = _number(case, setting)
        if number is not None:
            alike[_rest(case, setting)].append((number, case))
    lines = []
    for members in alike.values():
        if len(dict(members)) == len(members):
            lines.append(_line(members, setting))
            continue
        # Cases that are measured twice, such as `dual` and `dual-again`, have a line for each name.
        by_name: dict[str, list[Numbered]] = defaultdict(list)
        for number, case in members:
            by_name[_base_name(number, case, setting)].append((number, case))
        lines += [_line(of_one_name, setting) for of_one_name in by_name.values()]
    return sorted(lines, key=lambda line: len(line.cases) == 1)


def _line(members: Sequence[Numbered], setting: str) -> Line:
    """Return the line of some cases with their numbers.

    Cases that are not named as a sweep names them have no name in common: the first stands for all.
    """
    ascending = dict(sorted(members, key=lambda member: member[0]))
    names = {_base_name(number, case, setting) for number, case in members}
    if len(members) > 1 and len(names) == 1:
        return Line(names.pop(), ascending)
    first = next(iter(ascending.values()))
    return Line(first.name, ascending)


def _base_name(number: float, case: Case, setting: str) -> str:
    """Return the name from before the sweep: ``dual`` of ``dual-batch4``."""
    return case.name.replace(f"-{setting}{number:g}", "")


def _rest(case: Case, setting: str) -> str:
    """Return all settings but one, and but those that follow from it, as a text to compare."""
    rest: Settings = {}
    for name, value in sorted((case.settings or {}).items()):
        if name != setting and setting not in FOLLOWS.get(name, ()):
            rest[name] = value
    return repr(rest)
