"""The front door: parses, delegates, prints. Rooms are imported inside the commands, so that ``--help`` is instant."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from .benchmarks.study import command
from .benchmarks.training import options
from .harness.errors import LisabenchError, UsageError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(
    no_args_is_help=True, help="Make and check data folders in ReasonSeg's format."
)
app.add_typer(data_app, name="data")

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
SET_HELP = (
    "Change a setting of the plan or of every case (CASE.KEY=VALUE: of one). May be repeated."
)
COMPARE_HELP = "Of a run: the case compared with, the one compared, and folders of further runs. Of trainings: folders."
Folder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]


def main() -> None:
    """The console script: errors that a user can mend are one line and an exit code."""
    arguments = [a for a in sys.argv[1:] if a != "--traceback"]
    try:
        app(args=arguments, prog_name="lisabench")
    except LisabenchError as error:
        if "--traceback" in sys.argv[1:]:
            raise
        sys.stderr.write(f"lisabench: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("lisabench: interrupted; what was measured is kept\n")
        sys.exit(130)


@app.callback()
def _options(
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show a traceback instead of one line.")
    ] = False,
) -> None:
    """Is this cheaper LISA really cheaper, and is it still as good?"""
    del traceback  # read from the command line before anything can go wrong


@app.command()
def run(
    suite: Annotated[str | None, typer.Argument(help="A shipped suite or a YAML file.", show_default="tiny")] = None,
    data: Annotated[Path | None, typer.Option(help="A folder in ReasonSeg's format, not the made scenes.")] = None,
    split: Annotated[str | None, typer.Option(help="The split to ask.", show_default="val")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Ask only the first so many queries.")] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help=SET_HELP)] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder.", show_default="runs/SUITE-TIME")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Measure what is missing of the run in --out.")] = False,
    thorough: Annotated[bool, typer.Option("--thorough", help="Eight processes a case instead of three.")] = False,
    gpu_memory: Annotated[str | None, typer.Option(metavar="SIZE", help="Cap each process to such a card.")] = None,
    stop_after: Annotated[float | None, typer.Option(metavar="MINUTES", help="Begin nothing new after that.")] = None,
    save_masks: Annotated[bool, typer.Option("--save-masks", help="Keep every mask, run-length encoded.")] = False,
    against: Annotated[str | None, typer.Option(metavar="GIT_REF", help="Gate: measure that version beside.")] = None,
    python: Annotated[Path | None, typer.Option("--against-python", help="Python that runs that version.")] = None,
) -> None:  # fmt: skip
    """Run a suite and compare its cases; leaves records and a report.

    Ends with 0 where every case has its records without a failure, 5 where any failed, 2 where nothing could be begun,
    3 where --stop-after left something to --resume; with --against as `check` does, by five processes a side.
    """
    from .benchmarks.run.command import Request, carry_out

    settings = _pairs(changes or [])
    settings |= {"data.root": str(data)} if data else {}
    settings |= {"data.split": split} if split else {}
    settings |= {"data.limit": limit} if limit else {}
    settings |= {"plan.processes": 8} if thorough else {}
    settings |= {"plan.save_masks": True} if save_masks else {}
    settings |= {"plan.gpu_memory": gpu_memory} if gpu_memory else {}
    request = Request(suite, settings, out, resume, stop_after)
    if against is None and python is None:
        raise typer.Exit(carry_out(request))
    from .benchmarks.gate.against import side_by_side

    raise typer.Exit(side_by_side(request, against, python))


@app.command()
def report(folder: Folder) -> None:
    """Write the summary, figures and report of a run, of a training or of a study again from its records."""
    from .harness.records.study import is_study
    from .harness.records.training import is_training
    from .reports.run.page import write_report
    from .reports.study.page import write_study_report
    from .reports.training.page import write_training_report

    if is_study(folder):
        typer.echo(write_study_report(folder))
    else:
        typer.echo(write_training_report(folder) if is_training(folder) else write_report(folder))


@app.command()
def compare(
    folder: Folder,
    further: Annotated[
        list[str], typer.Argument(metavar="A B [RUN2 ...] | RUN2 ...", help=COMPARE_HELP)
    ],
    target_miou: Annotated[
        float | None, typer.Option(help="Of trainings: the mIoU to be reached.")
    ] = None,
    target_loss: Annotated[
        float | None, typer.Option(help="Of trainings: the loss to be reached.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare two cases of one run, or of several, or trainings; ends with 4 where nothing can be compared.

    With further runs, A of RUN is compared with B of each of them. Time and memory need the same machine, quality the
    same data. Trainings are named by their folders alone; those that differ in the seed alone are repetitions.
    """
    from .benchmarks.compare import compared

    found, text = compared(folder, further, target_miou, target_loss)
    typer.echo(found.model_dump_json(by_alias=True, indent=1) if as_json else text)


@app.command()
def baseline(
    folder: Folder, out: Annotated[Path, typer.Option(help="The file to commit; replaced.")]
) -> None:
    """Reduce a finished run to the file that later runs are checked against."""
    from .benchmarks.gate.check import keep_baseline

    keep_baseline(folder, out)
    typer.echo(out)


@app.command()
def check(
    folder: Folder,
    against: Annotated[
        Path, typer.Option("--baseline", metavar="FILE", help="What `lisabench baseline` made.")
    ],
    junit: Annotated[Path | None, typer.Option(help="Write JUnit's XML there.")] = None,
    comment: Annotated[
        Path | None, typer.Option(help="Write the body of a comment there, in Markdown.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Hold a run against a baseline: nothing slower, larger or worse. A regression is measured again before it counts.

    Ends with 0 where the gate holds, 1 at a regression or a missing case, 2 without a sound baseline, 3 where it is
    inconclusive, 4 where something that is gated cannot be compared.
    """
    from .benchmarks.gate.check import Outputs, check

    raise typer.Exit(check(folder, against, Outputs(junit, comment, as_json)))


@app.command()
def convert(
    src: Annotated[
        Path, typer.Argument(help="A folder or hub id: the original's, a LLaVA, an adapter.")
    ],
    dst: Annotated[Path, typer.Argument(help="A new folder.")],
    vision_tower: Annotated[
        Path | None, typer.Option(help="A folder with CLIP, where SRC leaves it out.")
    ] = None,
    sam: Annotated[
        Path | None, typer.Option(help="SAM's checkpoint, where SRC is a LLaVA to train from.")
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Of what is new: rows of added tokens, a projection of [SEG].")
    ] = 0,
    conditioning: Annotated[
        str, typer.Option(help="Of a start from a LLaVA: original, or described.")
    ] = "original",
) -> None:
    """Convert a checkpoint of the original into a folder for `weights`."""
    from .benchmarks.progress import shown
    from .models.checkpoints.convert import convert
    from .models.lisa.weights_format import fetched

    with shown() as progress:
        done = convert(
            fetched(src),
            dst,
            vision_tower,
            sam,
            lambda name, n, total: progress(n, total, name),
            seed,
            conditioning,
        )
    for warning in done.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"{done.folder}: {done.parameters:,} parameters, {done.total_bytes / 2**30:.2f} GiB")


def _train(said: dict[str, Any]) -> None:
    """Train a LISA, the original or a modified one; leaves checkpoints and a run's folder.

    Starts by `accelerate launch -m lisabench.cli train ...` too, on several GPUs.
    """
    from .benchmarks.training.command import carry_out

    carry_out(said | ({"changes": _pairs(said["changes"])} if "changes" in said else {}))


app.command("train")(options.command(_train))
app.command("study")(command.study)


@app.command()
def segment(
    image: Annotated[Path, typer.Argument(help="A picture.")],
    query: Annotated[
        str,
        typer.Argument(help="A sentence with its full stop or question mark, or a noun phrase."),
    ],
    out: Annotated[Path, typer.Option(help="The mask, a PNG; an overlay is written beside it.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of `lisa`.")
    ] = None,
    allow_random: Annotated[
        bool, typer.Option("--allow-random", help="Take random weights all the same.")
    ] = False,
) -> None:
    """Ask one LISA about one picture: the packaged tiny dual, or `--set weights=FOLDER` names it."""
    from .benchmarks.segment import case_of, segment

    found = segment(image, query, case_of(_pairs(changes or []), allow_random), out, allow_random)
    said = [] if found.text is None else [f"answer: {found.text}"]
    typer.echo(
        "\n".join(
            [
                *said,
                f"mask: {found.mask} ({found.covered:.1%} of the image)",
                f"overlay: {found.overlay}",
            ]
        )
    )


@app.command("list")
def list_(
    what: Annotated[str | None, typer.Argument(help="One of these; all when left out.")] = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """List what can be named: suites, adapters, settings, presets, recipes, metrics."""
    from .benchmarks.catalogue import catalogue, outline

    listed = catalogue(what)
    typer.echo(json.dumps(listed, indent=1) if as_json else outline(listed))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check this machine. Ends with 1 if something must be fixed."""
    from .benchmarks import doctor

    checks = doctor.check_machine()
    if as_json:
        typer.echo(json.dumps(doctor.as_json(checks), indent=1))
    else:
        typer.echo(doctor.as_text(checks))
    raise typer.Exit(1 if doctor.has_problem(checks) else 0)


@data_app.command("make")
def data_make(
    folder: Annotated[Path, typer.Argument(help="Where the split's folder is made.")],
    split: Annotated[str, typer.Option(help="Name of the split.")] = "val",
    count: Annotated[int, typer.Option(min=1, help="Queries to make.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same scenes.")] = 0,
) -> None:
    """Make reasoning scenes in ReasonSeg's format."""
    from .datasets.scenes.generator import make

    make(folder, split, count, seed)
    typer.echo(folder / split)


@data_app.command("verify")
def data_verify(
    folder: Annotated[Path, typer.Argument(help="A folder in ReasonSeg's format.")],
    split: Annotated[str | None, typer.Option(help="Only this split.", show_default="all")] = None,
) -> None:
    """List every problem of a data folder; ends with 1 where there is one."""
    from .datasets.verify import verify

    problems = verify(folder, split)
    for problem in problems:
        typer.echo(problem)
    typer.echo(f"{len(problems)} problems" if problems else "no problems", err=True)
    raise typer.Exit(1 if problems else 0)


@data_app.command("ceiling")
def data_ceiling(
    folder: Annotated[Path, typer.Argument(help="A folder in ReasonSeg's format.")],
    split: Annotated[str | None, typer.Option(help="Only this split.", show_default="all")] = None,
    as_json: Json = False,
) -> None:
    """Say what an encoder's grid alone leaves of a folder's true masks, without any model."""
    from .benchmarks.data_ceiling import ceilings, table
    from .benchmarks.progress import shown

    with shown() as progress:
        found = ceilings(folder, split, progress)
    typer.echo(json.dumps([asdict(one) for one in found], indent=1) if as_json else table(found))


def _pairs(changes: list[str]) -> dict[str, Any]:
    """``KEY=VALUE`` arguments; values are read as YAML, so that 3 is a number and [a, b] a list."""
    import yaml

    pairs = [change.partition("=") for change in changes]
    for key, equals, _ in pairs:
        if not equals:
            raise UsageError(f"--set {key}: expected KEY=VALUE, such as --set precision=bf16")
    try:
        return {key: yaml.safe_load(value) for key, _, value in pairs}
    except yaml.YAMLError as error:
        raise UsageError(f"--set: not a value: {' '.join(str(error).split())}") from error


if __name__ == "__main__":
    main()
