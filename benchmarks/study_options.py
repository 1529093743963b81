"""What can be said to ``lisabench study``. Cheap to import."""

from pathlib import Path
from typing import Annotated, Any

import typer

Option = typer.Option


def study(
    folder: Annotated[Path, typer.Argument(help="Where it lies; what is finished there is kept.")],
    seed: Annotated[list[int] | None, Option(min=0, help="Of a dual and its variants. May be repeated.")] = None,
    variant: Annotated[list[str] | None, Option(help="Only these. May be repeated.", show_default="all")] = None,
    scenes: Annotated[int, Option(min=1, help="To train on.")] = 60_000,
    queries: Annotated[int, Option(min=3, help="To judge by.")] = 5_000,
    val_queries: Annotated[int, Option(min=3, help="To see by how a training goes, and to choose rates by.")] = 1_000,
    dual_steps: Annotated[int, Option(min=1, help="Of each dual.")] = 4_000,
    steps: Annotated[int, Option(min=1, help="Of each variant.")] = 1_500,
    batch: Annotated[int, Option(min=1, help="Scenes to a step.")] = 256,
    jobs: Annotated[int, Option(min=1, help="Trainings at once, spread over the GPUs that are visible.")] = 1,
    device: Annotated[str, Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train tiny LISAs from scratch, seed by seed, and judge them on scenes that they never saw.

    Ends with 5 where trainings failed; the others are kept, and the same command makes only what is missing.
    """
    from ..harness.environment import resolve_device
    from .study import VARIANTS, Study, carry_out

    how = Study(folder, scenes, queries, dual_steps, steps, batch, jobs, resolve_device(device), val_queries)
    carry_out(how, seed or [0], variant or list(VARIANTS), _tell)


def _tell(row: dict[str, Any]) -> None:
    typer.echo(f"{row['name']:16} seed {row['seed']}: gIoU {row['scores']['gIoU']:.3f}, {row['seconds']:.0f} s")
