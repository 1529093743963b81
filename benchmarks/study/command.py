"""The command line of ``lisabench study``. Cheap to import."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...harness import terminal

if TYPE_CHECKING:
    from .search import Result

Option = typer.Option


# The options of the command; the names on the command line are those of its parameters.
Folder = Annotated[
    Path, typer.Argument(help="The study's folder; finished trainings in it are kept.")
]
Seeds = Annotated[
    list[int] | None, Option(min=0, help="Of a dual and its variants. May be repeated.")
]
Variants = Annotated[
    list[str] | None, Option(help="Only these. May be repeated.", show_default="all")
]
Scenes = Annotated[int, Option(min=1, help="Scenes to train on.")]
TestQueries = Annotated[
    int, Option(min=3, help="Queries that every training is evaluated on at its end.")
]
ValQueries = Annotated[
    int, Option(min=3, help="Queries for validation while it trains, and for --search.")
]
DualSteps = Annotated[int, Option(min=1, help="Steps of each dual.")]
Steps = Annotated[int, Option(min=1, help="Steps of each variant.")]
Batch = Annotated[
    int, Option(min=1, help="Scenes in a step of a dual; half of them in one of a variant.")
]
Jobs = Annotated[
    int, Option(min=1, help="Trainings at once, spread over the GPUs that are visible.")
]
Search = Annotated[
    bool, Option("--search", help="Try learning rates instead; the test's queries are not used.")
]
Device = Annotated[str, Option(help="auto, cpu, cuda, or one of several GPUs, such as cuda:1.")]


def study(
    folder: Folder,
    seed: Seeds = None,
    variant: Variants = None,
    scenes: Scenes = 60_000,
    queries: TestQueries = 5_001,
    val_queries: ValQueries = 1_002,
    dual_steps: DualSteps = 6_000,
    steps: Steps = 600,
    batch: Batch = 256,
    jobs: Jobs = 1,
    search: Search = False,
    device: Device = "auto",
) -> None:
    """Train tiny LISAs from scratch, seed by seed, and evaluate them on scenes they never saw.

    With --search, each variant is trained at a third of its learning rate, at that rate and at
    three times that, and evaluated on the validation queries alone; the dual only if it is named.
    Exit code 5 if trainings failed; the others are kept, and the same command makes only what is
    missing. The defaults are those of the published study.
    """
    from ...harness.environment import resolve_device
    from ...harness.records.study import DUAL
    from .folder import Study
    from .search import search as try_rates
    from .search import table
    from .study import carry_out
    from .variants import VARIANTS

    settings = Study(
        folder=folder,
        scenes=scenes,
        test_queries=queries,
        dual_steps=dual_steps,
        steps=steps,
        batch=batch,
        jobs=jobs,
        device=resolve_device(device),
        val_queries=val_queries,
    )
    seeds = seed or [0]
    if search:
        names = variant or [name for name in VARIANTS if name != DUAL]
        terminal.say(table(try_rates(settings, seeds, names, _print)))
    else:
        carry_out(settings, seeds, variant or list(VARIANTS), _print)


def _print(result: "Result") -> None:
    """Print a line about a training that has finished, or a learning rate that was tried."""
    from ...harness.records.study import SearchTrial

    if isinstance(result, SearchTrial):
        outcome = f"lr {result.lr:g} tried"
    else:
        outcome = f"gIoU {result.scores['gIoU']:.3f}, {result.seconds:.0f} s"
    terminal.say(f"{result.name:16} seed {result.seed}: {outcome}")
