"""``python -m lisabench.benchmarks.ship``: packs trainings of a study as the tiny LISAs that come with the package.

Of no use to anybody but the makers of a release, and so no command of `lisabench`. What it writes is committed; the
cards say by which commands it is made again.
"""

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ...harness.errors import DataError, LisabenchError, UsageError
from ...models.checkpoints.pack import CARD, MIB, Member, pack
from ...models.lisa import packaged, weights_format
from .study import TRAINING

MOST_MIB = 32


def ship(study: Path, seed: int, cases: Sequence[str], out: Path = packaged.FAMILY) -> int:
    """Packs one training a variant.

    Args:
        study: its folder.
        seed: of the trainings.
        cases: their names in the study.
        out: the folder to make.

    Returns:
        Bytes of the weights together.

    Raises:
        UsageError: two trainings are of one variant, the folder exists, or the weights are too large.
        DataError: a training is not finished, or not as a study leaves it.
    """
    members: dict[str, Member] = {}
    for case in cases:
        folder = study / f"{case}-{seed}"
        known = weights_format.read(folder)
        if known.vision in members:
            raise UsageError(
                f"{case} and {members[known.vision].folder.name} are both of vision={known.vision}: name one"
            )
        members[known.vision] = Member(folder, _card(folder, known, _command(seed, cases)))
    return pack(members, out, MOST_MIB)


def _command(seed: int, cases: Sequence[str]) -> str:
    named = [word for case in cases for word in ("--case", case)]
    return shlex.join(
        ["python", "-m", "lisabench.benchmarks.study.package", "DIR", "--seed", str(seed), *named]
    )


def _card(folder: Path, known: weights_format.Saved, command: str) -> str:
    """That of the training, with its scores and what packing added."""
    training = _training(folder / TRAINING)
    scores = ", ".join(
        f"{name} {training['scores'][name]:.3f}" for name in ("gIoU", "cIoU", "mIoU")
    )
    axes = ", ".join(f"`{axis}={value}`" for axis, value in known.settings.items())
    return f"""{(folder / CARD).read_text(encoding="utf-8").rstrip()}

## As packaged

- one of the tiny LISAs that come with lisabench: `weights=packaged` with {axes}
- on {training["queries"]} queries about scenes that it was not trained on: {scores}
- tensors that are those of other variants bit for bit lie in one file with theirs, in `../weights`
- packed again from the study's folder by: `{command}`
"""


def _training(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DataError(
            f"there is no {file}: the training is not finished, or the folder is no study's"
        ) from None


def _main(
    study: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a study.")],
    case: Annotated[
        list[str],
        typer.Option(help="A training's name; the dual's is dual. One a variant, repeated."),
    ],
    seed: Annotated[int, typer.Option(min=0, help="Of the trainings.")] = 0,
    out: Annotated[Path, typer.Option(help="The folder to make.")] = packaged.FAMILY,
) -> None:
    """Pack trainings of a study as the tiny LISAs that come with the package."""
    try:
        size = ship(study, seed, case, out)
    except LisabenchError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    print(f"{out}: {size / MIB:.2f} MiB")


if __name__ == "__main__":
    typer.run(_main)
