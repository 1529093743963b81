"""What can be said to ``lisabench study``. Cheap to import."""

from pathlib import Path
from typing import Annotated, Any

import typer

Option = typer.Option


def study(
    folder: Annotated[Path, typer.Argument(help="Where it lies; what is finished there is kept.")],
    seed: Annotated[
        list[int] | None, Option(min=0, help="Of a dual and its variants. May be repeated.")
    ] = None,
    variant: Annotated[
        list[str] | None, Option(help="Only these. May be repeated.", show_default="all")
    ] = None,
    scenes: Annotated[int, Option(min=1, help="To train on.")] = 60_000,
    queries: Annotated[int, Option(min=3, help="To judge by.")] = 5_001,
    val_queries: Annotated[
        int, Option(min=3, help="To see by how a training goes, and to choose rates by.")
    ] = 1_002,
    dual_steps: Annotated[int, Option(min=1, help="Of each dual.")] = 6_000,
    steps: Annotated[int, Option(min=1, help="Of each variant.")] = 600,
    batch: Annotated[
        int, Option(min=1, help="Scenes to a step of a dual; half of them to one of a variant.")
    ] = 256,
    jobs: Annotated[
        int, Option(min=1, help="Trainings at once, spread over the GPUs that are visible.")
    ] = 1,
    search: Annotated[
        bool, Option("--search", help="Try learning rates instead; the test is not asked.")
    ] = False,
    device: Annotated[str, Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train tiny LISAs from scratch, seed by seed, and judge them on scenes that they never saw.

    With --search, each variant is trained at a third of its learning rate, at that rate and at three times that, and
    judged by the validation split alone; the dual only if it is named. Ends with 5 where trainings failed; the others
    are kept, and the same command makes only what is missing. By default it is the study that is published.
    """
    from ...harness.environment import resolve_device
    from .folder import Study
    from .search import search as try_rates
    from .search import table
    from .study import carry_out
    from .variants import DUAL, VARIANTS

    how = Study(
        folder, scenes, queries, dual_steps, steps, batch, jobs, resolve_device(device), val_queries
    )
    if search:
        names = variant or [name for name in VARIANTS if name != DUAL]
        typer.echo(table(try_rates(how, seed or [0], names, _tell)))
    else:
        carry_out(how, seed or [0], variant or list(VARIANTS), _tell)


def _tell(row: dict[str, Any]) -> None:
    made = "scores" in row
    said = (
        f"gIoU {row['scores']['gIoU']:.3f}, {row['seconds']:.0f} s"
        if made
        else f"lr {row['lr']:g} tried"
    )
    typer.echo(f"{row['name']:16} seed {row['seed']}: {said}")
