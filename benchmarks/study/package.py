"""Packs trainings of a study as the tiny LISAs that come with the package.

``python -m lisabench.benchmarks.study.package`` is for makers of a release only, and so not a
command of `lisabench`. What it writes is committed; the cards have the commands that make it again.
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ...harness import terminal
from ...harness.errors import LisabenchError, UsageError
from ...harness.records.study import read_training_manifest
from ...models.checkpoints.pack import CARD, MIB, Member, pack
from ...models.lisa import packaged, weights_format

MOST_MIB = 32  # of all weights together: they are part of every installation


def ship(study: Path, seed: int, cases: Sequence[str], out: Path = packaged.FAMILY) -> int:
    """Pack one training of each variant.

    Args:
        study: its folder.
        seed: of the trainings.
        cases: their names in the study.
        out: the folder to make.

    Returns:
        Bytes of the weights together.

    Raises:
        UsageError: two trainings are of one variant, the folder exists, or the weights are too
            large.
        DataError: a training is not finished, or its folder was not written by a study.
    """
    command = _command(seed, cases)
    members: dict[str, Member] = {}
    for case in cases:
        folder = study / f"{case}-{seed}"
        saved = weights_format.read(folder)
        if saved.vision in members:
            raise UsageError(
                f"{case} and {members[saved.vision].folder.name} are both of "
                f"vision={saved.vision}: name one"
            )
        members[saved.vision] = Member(folder, _card(folder, saved, command))
    return pack(members, out, MOST_MIB)


def _command(seed: int, cases: Sequence[str]) -> str:
    """Return the command line that packs these trainings again."""
    words = ["python", "-m", "lisabench.benchmarks.study.package", "DIR", "--seed", str(seed)]
    for case in cases:
        words += ["--case", case]
    return shlex.join(words)


def _card(folder: Path, saved: weights_format.Saved, command: str) -> str:
    """Return the card of the training, with its scores and what packing added."""
    manifest = read_training_manifest(folder)
    scores = [f"{name} {manifest.scores[name]:.3f}" for name in ("gIoU", "cIoU", "mIoU")]
    return f"""{(folder / CARD).read_text(encoding="utf-8").rstrip()}

## As packaged

- one of the tiny LISAs that come with lisabench: `weights=packaged` with \
{weights_format.settings_on_card(saved)}
- on {manifest.queries} queries about scenes that it was not trained on: {", ".join(scores)}
- tensors that are those of other variants bit for bit lie in one file with theirs, in `../weights`
- packed again from the study's folder by: `{command}`
"""


def _main(
    study: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a study.")],
    case: Annotated[
        list[str],
        typer.Option(help="Name of a training, such as dual. One of each variant; repeat it."),
    ],
    seed: Annotated[int, typer.Option(min=0, help="Of the trainings.")] = 0,
    out: Annotated[Path, typer.Option(help="The folder to make.")] = packaged.FAMILY,
) -> None:
    """Pack trainings of a study as the tiny LISAs that come with the package."""
    try:
        size_bytes = ship(study, seed, case, out)
    except LisabenchError as error:
        terminal.note(error)
        sys.exit(error.exit_code)
    terminal.say(f"{out}: {size_bytes / MIB:.2f} MiB")


if __name__ == "__main__":
    typer.run(_main)
