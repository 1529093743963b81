"""The pictures of README and docs that are drawn from published records, and their command.

To draw them again after the records or the code changed, in a clone of the repository:

    python -m lisabench.reports.published.figures
    python -m lisabench.reports.published.figures --check

Each file keeps the numbers that it was drawn from. The second command draws nothing. It names the
pictures whose numbers are not those of the records, and ends with 1 if there are any. The frontier
picture is of the run and the study of README's table, which `tables` names.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from ...harness import terminal
from ...harness.errors import LisabenchError
from ..drawing import save, style
from ..frontier import Frontier, frontier_figure, numbers_of
from ..study.frontier import Costs, frontier_of, study_quality
from .documents import ROOT
from .records import RESULTS, published_run, published_study
from .tables import COSTS_OF_README, QUALITY_OF_README, VARIANTS

COMMAND = "python -m lisabench.reports.published.figures"
DESCRIPTION = "Description"  # where a PNG keeps the numbers


def frontier() -> Frontier:
    """Return what costs at 7B and the quality of tiny models are drawn from."""
    run, study = published_run(COSTS_OF_README), published_study(QUALITY_OF_README)
    costs = Costs(RESULTS / run.folder, run.records, run.summary)
    quality = study_quality(RESULTS / study.folder, study.summary)
    variants = [name for name in VARIANTS if name != run.reference.name]
    return frontier_of(costs, quality, variants)


FIGURES: Mapping[str, Callable[[], Frontier]] = {"docs/frontier.png": frontier}


def kept_numbers(path: Path) -> str | None:
    """Return the numbers that a picture was drawn from; None without a picture that has any."""
    try:
        with Image.open(path) as picture:
            return picture.info.get(DESCRIPTION)
    except (OSError, UnidentifiedImageError):
        return None


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Draw the pictures again, or check their numbers, and return the exit code."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="draw nothing; 1 if numbers differ")
    options = parser.parse_args(arguments)
    try:
        differing = _differing(root)
    except LisabenchError as error:
        terminal.note(error)
        return error.exit_code
    if options.check:
        for file in differing:
            terminal.say(f"{file}: its numbers are not those of its records")
        if differing:
            terminal.note(f"draw them again: {COMMAND}")
        return 1 if differing else 0
    for file, make in FIGURES.items():
        content = make()
        with style():
            save(frontier_figure(content), root / file, description=numbers_of(content))
        terminal.say(file)
    return 0


def _differing(root: Path) -> list[str]:
    """Return the pictures whose numbers are not those of the records."""
    return [
        file for file, make in FIGURES.items() if kept_numbers(root / file) != numbers_of(make())
    ]


if __name__ == "__main__":
    sys.exit(main())
