"""The command line: it parses, delegates and prints.

Rooms are imported inside the commands, so that ``--help`` is instant: some of them import torch.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from . import __version__
from .benchmarks import door
from .benchmarks.study import command
from .benchmarks.training import options
from .harness import terminal
from .harness.errors import UsageError, as_ours
from .harness.paths import user_path

LONGEST_SENTENCE = 1000  # characters; no first sentence of a command's help is as long


class Commands(TyperGroup):
    """The commands, whose exceptions all reach the door.

    Typer would end by itself, and with 1, after an end of input and after a closed pipe. A library
    that exits would end the command as if it were done.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (EOFError, KeyboardInterrupt, OSError, SystemExit) as error:
            raise as_ours(error) from error


class Command(TyperCommand):
    """A command whose paths may begin with ``~``, as those in suites may."""

    def get_short_help_str(self, limit: int = 0) -> str:
        """Return the first sentence of its help, whole: a longer one goes on in the next line."""
        del limit
        return super().get_short_help_str(limit=LONGEST_SENTENCE)

    def invoke(self, ctx: Any) -> Any:
        for name, value in ctx.params.items():
            if isinstance(value, Path):
                ctx.params[name] = user_path(value)
        return super().invoke(ctx)


def as_typed(name: str) -> str:
    """Return the one spelling under which the parser knows an option: ``_`` becomes ``-``.

    The original's scripts and Hugging Face's write ``--batch_size``, most programs
    ``--batch-size``.
    """
    return name.replace("_", "-")


class App(typer.Typer):
    """The commands of lisabench, each of them a `Command`."""

    def command(self, name: str | None = None, **settings: Any) -> Any:
        return super().command(name, cls=Command, **settings)


# Help is plain text: in Typer's boxes, long names of options are cut at 80 columns, and switches
# look as if they took a value.
app = App(
    cls=Commands,
    no_args_is_help=True,
    context_settings={
        "help_option_names": ["-h", "--help"],
        # For every command: --batch_size and --batch-size are one option.
        "token_normalize_func": as_typed,
    },
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
DATA_HELP = "Make, import and check data."
data_app = App(no_args_is_help=True, rich_markup_mode=None, help=DATA_HELP, short_help=DATA_HELP)
app.add_typer(data_app, name="data")

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Folder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]
SET_HELP = (
    "Change a setting of the plan, or of every case; CASE.KEY=VALUE changes one case. "
    "Can be repeated."
)
SEGMENT_SET_HELP = "A setting of `lisa`; or adapter=FILE.py for a model of your own."
COMPARE_HELP = (
    "For a run: the reference case, the candidate case, and folders of further runs. "
    "For trainings: their folders."
)
THOROUGH_PROCESSES = 8
# What Typer raises for arguments that it does not understand. Its module depends on the version of
# Typer, which brings a copy of click or uses click itself.
NOT_UNDERSTOOD = typer.BadParameter.__mro__[1]
WITHOUT_ARGUMENTS = "NoArgsIsHelpError"  # one of these, of a module that Typer keeps to itself


def _suites_beginning(incomplete: str) -> list[str]:
    """Return the shipped suites that a name may become, for the shell's completion."""
    from .benchmarks.suite_file import shipped_names

    return [name for name in shipped_names() if name.startswith(incomplete)]


# The options of `lisabench run`; the names on the command line are those of its parameters.
Suite = Annotated[
    str | None,
    typer.Argument(
        help="A shipped suite or a YAML file.",
        show_default="tiny",
        autocompletion=_suites_beginning,
    ),
]
DataSource = Annotated[
    str | None,
    typer.Option(
        metavar="SRC",
        help="Data, instead of generated scenes: a folder in ReasonSeg's format, or another layout "
        "of `lisabench list layouts`.",
    ),
]
DataArgument = Annotated[
    str,
    typer.Argument(help="A folder in ReasonSeg's format, or another source of `list layouts`."),
]
EvaluatedSplit = Annotated[
    str | None, typer.Option(help="The split to evaluate.", show_default="val")
]
DataProtocol = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="How papers evaluate the data: a name of `lisabench list protocols`.",
        show_default="by the data",
    ),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Evaluate only the first LIMIT queries.")]
SuiteChanges = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help=SET_HELP)
]
OutFolder = Annotated[
    Path | None, typer.Option(help="The run's folder.", show_default="runs/SUITE-TIME")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Measure what is missing in the run in --out.")
]
Shard = Annotated[
    str | None,
    typer.Option(
        metavar="I/N",
        help="Evaluate only part I of N of the quality pass, for a job array; --resume joins them.",
    ),
]
Thorough = Annotated[
    bool, typer.Option("--thorough", help="Eight processes for each case instead of three.")
]
GpuMemory = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Limit each process to a card of this size, such as 8GB."),
]
StopAfter = Annotated[
    float | None,
    typer.Option(metavar="MINUTES", help="Begin nothing new after so many minutes."),
]
SaveMasks = Annotated[
    bool, typer.Option("--save-masks", help="Keep every mask, run-length encoded.")
]
Profile = Annotated[
    bool,
    typer.Option(
        "--profile", help="Write a trace of one query of each case, for Perfetto, into RUN/profile."
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Show what would be run and about how long it takes, and measure nothing.",
    ),
]
AgainstVersion = Annotated[
    str | None,
    typer.Option(
        metavar="GIT_REF",
        help="Gate: measure this commit of the repository beside the working tree.",
    ),
]
AgainstPython = Annotated[
    Path | None,
    typer.Option(
        "--against-python",
        metavar="PYTHON",
        help="The Python of the environment for that commit; alone, gate: the same code in it.",
    ),
]


TableFormat = Annotated[
    str | None,
    typer.Option("--format", metavar="FORMAT", help="Write a table: csv, latex, parquet or json."),
]
TableFile = Annotated[
    Path | None,
    typer.Option(help="The file of the table.", show_default="standard output"),
]


def main() -> None:
    """Run the command line. Any error is one line and an exit code; see `benchmarks.door`."""
    door.enter(_carry_out, sys.argv[1:])


def _carry_out(arguments: list[str]) -> None:
    """Carry out a command, and end with its exit code.

    Raises:
        UsageError: Typer does not understand the arguments. It would print them by itself, and what
            stands in them could act on the terminal.
    """
    try:
        exit_code = app(args=arguments, prog_name="lisabench", standalone_mode=False)
    except Exception as error:
        if not isinstance(error, NOT_UNDERSTOOD):
            raise
        refusal: Any = error
        if type(error).__name__ != WITHOUT_ARGUMENTS:
            problem = refusal.format_message().rstrip(".?") + _as_setting(refusal)
            command_path = refusal.ctx.command_path if refusal.ctx else "lisabench"
            raise UsageError(f"{problem}; see `{command_path} --help`") from error
        terminal.say(refusal.ctx.get_help())
        exit_code = refusal.exit_code
    # A command that returns, rather than raising `typer.Exit`, gives None.
    sys.exit(exit_code or 0)


def _as_setting(refusal: Any) -> str:
    """Return how an unknown option is given as a setting, after a semicolon.

    It is empty for all other refusals, for an option that is only misspelt, and for commands that
    have no ``--set``.
    """
    # Only the error for an unknown option has this attribute: the options that are like it.
    is_unknown = hasattr(refusal, "possibilities") and refusal.option_name.startswith("--")
    if not is_unknown or refusal.possibilities:
        return ""
    options = {name for parameter in refusal.ctx.command.params for name in parameter.opts}
    if "--set" not in options:
        return ""
    return f"; a setting is given as --set {refusal.option_name.removeprefix('--')}=VALUE"


def _print_version(is_asked: bool) -> None:
    """Print the version and end, if it is asked for."""
    if is_asked:
        terminal.say(f"lisabench {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show a traceback instead of one line.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Is this cheaper LISA really cheaper, and is it still as good?"""
    # The door has read the first option already, so that it holds for errors of the command line,
    # too; and the second has been acted on.
    del traceback, version


@app.command()
def run(
    suite: Suite = None,
    data: DataSource = None,
    split: EvaluatedSplit = None,
    limit: Limit = None,
    protocol: DataProtocol = None,
    changes: SuiteChanges = None,
    out: OutFolder = None,
    resume: Resume = False,
    shard: Shard = None,
    thorough: Thorough = False,
    gpu_memory: GpuMemory = None,
    stop_after: StopAfter = None,
    save_masks: SaveMasks = False,
    profile: Profile = False,
    dry_run: DryRun = False,
    against: AgainstVersion = None,
    python: AgainstPython = None,
) -> None:
    """Run a suite and compare its cases. Writes records and a report.

    Exit codes: 0 if every query was measured; 1 if a checkpoint is no
    better than a trivial baseline; 2 if nothing could be begun; 3 if
    --stop-after left something to --resume; 5 if something failed.
    With --against or --against-python they are those of `check`, and
    --set processes=N is the number of pairs (5).
    """
    from .benchmarks.run.command import Request, carry_out, show_plan
    from .benchmarks.run.schedule import Share

    if shard is not None and (dry_run or against is not None or python is not None):
        raise UsageError("--shard evaluates a part of a run: leave out --dry-run and --against")
    named_options = {
        "data.root": data,
        "data.split": split,
        "data.limit": limit,
        "data.protocol": protocol,
        "plan.processes": THOROUGH_PROCESSES if thorough else None,
        "plan.save_masks": save_masks or None,
        "plan.profile": profile or None,
        "plan.gpu_memory": gpu_memory,
    }
    suite_changes = _read_pairs(changes or [])
    for key, value in named_options.items():
        if value is not None:
            suite_changes[key] = value

    share = None if shard is None else Share.parse(shard)
    request = Request(suite, suite_changes, out, resume, stop_after, share)
    if dry_run:
        if against is not None or python is not None:
            raise UsageError("--dry-run shows one run, not a gate: leave out --against")
        show_plan(request)
        return
    if against is None and python is None:
        raise typer.Exit(carry_out(request))

    from .benchmarks.gate.against import side_by_side

    raise typer.Exit(side_by_side(request, against, python))


@app.command()
def report(
    folder: Folder,
    format_: TableFormat = None,
    table: Annotated[
        str | None,
        typer.Option(
            help="The table: cases, stages, queries, claims or protocol.", show_default="cases"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The file of the table, or of the picture of --quality.",
            show_default="standard output, or RUN/figures",
        ),
    ] = None,
    figures: Annotated[
        str | None,
        typer.Option(metavar="FORM", help="Write figures instead: png, pdf or svg."),
    ] = None,
    width: Annotated[
        float | None,
        typer.Option(
            metavar="INCHES",
            help="Width of these figures, such as 3.5 for a paper's column: 7 pt, no titles.",
        ),
    ] = None,
    quality: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write the picture of this run's costs against the quality of a study or run.",
        ),
    ] = None,
    case: Annotated[
        list[str] | None,
        typer.Option(help="With --quality: draw only this case. Can be repeated."),
    ] = None,
) -> None:
    """Write summary, figures and report of a run, training or study again from its records.

    With --format, write one table of a run for other programs or for a paper, and nothing else;
    with --format coco its masks, into the folder that --out names.
    With --figures or --width, write the figures for a paper or a talk, and nothing else.
    With --quality, write one picture: costs of RUN against quality that was measured elsewhere.
    """
    if quality is not None:
        if format_ is not None or table is not None:
            raise UsageError("--quality writes a picture: leave out --format and --table")
        from .benchmarks.paper_figures import FrontierRequest, write_frontier

        request = FrontierRequest(folder, quality, case or (), figures, width, out)
        terminal.say(write_frontier(request))
        return
    if case:
        raise UsageError("--case needs --quality, the folder of a study or run")
    if format_ == "coco" and table is None:
        from .reports.export.coco import export_masks

        for path in export_masks(folder, out):
            terminal.say(path)
        return
    if format_ is not None:
        from .reports.export.write import Export, export_run

        export_run(folder, Export(format_, table or "cases", out))
        return
    if table is not None or out is not None:
        raise UsageError(
            "--table and --out need --format, such as --format csv; --out also goes with --quality"
        )
    if figures is not None or width is not None:
        from .benchmarks.paper_figures import write_figures

        for path in write_figures(folder, figures or "pdf", width):
            terminal.say(path)
        return
    terminal.say(_write_report_of(folder))


def _write_report_of(folder: Path) -> Path:
    """Write the report of a run, training or study, and return its path.

    Only what the folder needs is imported: a report on a study needs no code for runs.
    """
    from .harness.records.folder import refuse_folders
    from .harness.records.study import is_study
    from .harness.records.training import is_training

    refuse_folders(folder)
    if is_study(folder):
        from .reports.study.page import write_study_report

        return write_study_report(folder)
    if is_training(folder):
        from .reports.training.page import write_training_report

        return write_training_report(folder)
    from .reports.run_report import write_report

    return write_report(folder)


@app.command()
def view(folder: Folder) -> None:
    """Open the page of a run in the browser: its verdicts, and every query with its masks."""
    from .benchmarks.view import view

    terminal.say(view(folder))


@app.command()
def runs(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder with runs below it.")
    ] = Path("runs"),
    format_: TableFormat = None,
    out: TableFile = None,
) -> None:
    """List all runs and trainings below a folder, newest first.

    The ratio is that of the fastest variant to the reference, with its 95 % interval.
    """
    from .reports.export.runs import runs_table, shown_runs
    from .reports.export.write import show_or_write

    table = runs_table(folder)
    show_or_write(table, shown_runs(table), format_, out)


@app.command()
def history(
    source: Annotated[
        Path,
        typer.Argument(help="A history, a file with a line for each run; or a folder with runs."),
    ],
    add: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="First append the line of this run to the history."),
    ] = None,
    commit: Annotated[
        str | None, typer.Option(help="With --add: the commit that the run measured.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="COMMIT", help="Leave out runs before this commit."),
    ] = None,
    case: Annotated[str | None, typer.Option(help="Only this case.")] = None,
    metric: Annotated[
        str | None, typer.Option(help="Only this metric, such as time.end_to_end.")
    ] = None,
    values: Annotated[
        bool, typer.Option("--values", help="Show the value of every run, with its interval.")
    ] = False,
    comment: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Append a line with the newest runs to a gate's comment.md."
        ),
    ] = None,
    format_: TableFormat = None,
    out: TableFile = None,
) -> None:
    """Show how the numbers of a suite changed over commits, and look for slow drift.

    Exit code 1 if a number drifts: the newest five runs are worse than five
    earlier ones by more than the gate accepts of a single change.
    """
    from .reports.export.history import add_run, add_to_comment, read_source
    from .reports.export.series import (
        drifts,
        newest_runs,
        series_of,
        shown_series,
        shown_values,
        values_table,
    )
    from .reports.export.write import show_or_write

    if add is not None:
        add_run(source, add, commit)
    elif commit is not None:
        raise UsageError("--commit needs --add RUN")
    series = series_of(read_source(source), since, case, metric)
    shown = shown_values(series) if values or format_ is not None else shown_series(series)
    if comment is not None:
        add_to_comment(comment, newest_runs(series))
    show_or_write(values_table(series), shown, format_, out)
    found = drifts(series)
    for sentence in found:
        terminal.note(sentence)
    raise typer.Exit(1 if found else 0)


@app.command()
def compare(
    folder: Folder,
    further: Annotated[
        list[str], typer.Argument(metavar="A B [RUN2 ...] | RUN2 ...", help=COMPARE_HELP)
    ],
    target_miou: Annotated[
        float | None, typer.Option(help="For trainings: the mIoU to reach.")
    ] = None,
    target_loss: Annotated[
        float | None, typer.Option(help="For trainings: the loss to reach.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare two cases of one run or of several, or trainings.

    With further runs, A of RUN is compared with B of each of them. Time and
    memory need the same machine; quality needs the same data. Trainings that
    differ only in the seed count as repetitions of one. Exit code 4 if nothing
    can be compared.
    """
    from .benchmarks.compare import compare_folders
    from .reports.document import show

    comparison, sections = compare_folders(folder, further, target_miou, target_loss)
    if as_json:
        terminal.say_json(comparison.model_dump_json(by_alias=True, indent=1))
    else:
        show(sections)


@app.command()
def baseline(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="The file to write; it is meant to be committed.")],
) -> None:
    """Reduce a finished run to a baseline, the file that later runs are checked against."""
    from .benchmarks.gate.check import keep_baseline

    keep_baseline(folder, out)
    terminal.say(out)


@app.command()
def check(
    folder: Folder,
    against: Annotated[
        Path,
        typer.Option("--baseline", metavar="FILE", help="A file that `lisabench baseline` wrote."),
    ],
    junit: Annotated[
        Path | None, typer.Option(help="Write the result as JUnit XML to this file.")
    ] = None,
    comment: Annotated[
        Path | None, typer.Option(help="Write the result as a comment in Markdown to this file.")
    ] = None,
    baseline_only: Annotated[
        bool,
        typer.Option(
            "--baseline-only",
            help="Only see whether the baseline can be read, before RUN is measured.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check that no case of a run is slower, larger or worse than its baseline.

    A regression is measured again before it counts. Exit codes: 0 if the gate
    holds; 1 for a regression or a missing case; 2 if the baseline cannot be
    used; 3 if the gate is inconclusive; 4 if something cannot be compared.
    """
    from .benchmarks.gate.check import Outputs, check, check_baseline

    outputs = Outputs(junit, comment, as_json)
    if baseline_only:
        check_baseline(folder, against, outputs)
        return
    raise typer.Exit(check(folder, against, outputs))


@app.command()
def convert(
    src: Annotated[
        Path,
        typer.Argument(
            help="A folder or hub id: a checkpoint of the original, a LLaVA, or a LoRA adapter; "
            "or the modified LISA's best_model_epoch_N.pt."
        ),
    ],
    dst: Annotated[Path, typer.Argument(help="A new folder to write.")],
    vision_tower: Annotated[
        Path | None,
        typer.Option(help="CLIP, if SRC neither contains nor names it: a folder or hub id."),
    ] = None,
    sam: Annotated[
        Path | None,
        typer.Option(
            help="SAM, if SRC is a LLaVA to start training from: a .pth, a folder or hub id."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of new weights: rows of added tokens, a projection of [SEG].")
    ] = 0,
    conditioning: Annotated[
        str, typer.Option(help="For a start from a LLaVA: original or described.")
    ] = "original",
    template: Annotated[
        str | None,
        typer.Option(help="The words around a query that the weights were trained with."),
    ] = None,
    trained_on_val: Annotated[
        bool | None,
        typer.Option(
            help="Whether the weights were trained on ReasonSeg's val.",
            show_default="what the id of the release says",
        ),
    ] = None,
) -> None:
    """Convert a checkpoint of the original LISA into a folder that `weights` can name."""
    from .benchmarks.progress import shown
    from .models.checkpoints.convert import convert

    with shown() as progress:
        converted = convert(
            src,
            dst,
            vision_tower,
            sam,
            progress,
            seed,
            conditioning,
            template,
            trained_on_val,
        )
    for fact in converted.facts:
        terminal.note(fact)
    for warning in converted.warnings:
        terminal.note(f"warning: {warning}")
    size_gib = converted.total_bytes / 2**30
    terminal.say(f"{converted.folder}: {converted.parameters:,} parameters, {size_gib:.2f} GiB")


def _train(given: dict[str, Any]) -> None:
    """Train a LISA, the original or a modified one. Writes checkpoints and a run's folder.

    To train on several GPUs, start it with `accelerate launch -m lisabench train ...`.
    """
    from .benchmarks.training.setup import resolve_setup

    if "changes" in given:
        given = given | {"changes": _read_pairs(given["changes"])}
    setup = resolve_setup(given)
    # Only now: it imports torch and transformers, which takes seconds.
    from .benchmarks.training.command import carry_out

    carry_out(setup)


app.command("train")(options.command(_train))
app.command("study")(command.study)


@app.command()
def segment(
    image: Annotated[Path, typer.Argument(help="An image file.")],
    query: Annotated[
        str | None,
        typer.Argument(
            help="A sentence that ends in . ? or !, or a noun phrase.", show_default=False
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            metavar="WORDS",
            help="In place of QUERY: words that the model gets as typed, as in the original's "
            "chat.py. It answers in words.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The mask to write, a PNG. An overlay is written next to it.",
            show_default="IMAGE's name with -mask.png, in the current folder",
        ),
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help=SEGMENT_SET_HELP)
    ] = None,
    allow_random: Annotated[
        bool, typer.Option("--allow-random", help="Allow random weights.")
    ] = False,
) -> None:
    """Segment one image with one model.

    It is the packaged tiny dual, or the one that `--set weights=FOLDER` or
    `--set adapter=FILE.py` names.
    """
    from .benchmarks.segment import LISA, segment

    settings = _read_pairs(changes or [])
    adapter = settings.pop("adapter", LISA)
    if prompt is not None:
        settings["prompt"] = "as_typed"
    words = query if prompt is None else prompt
    if words is None or (query is not None and prompt is not None):
        raise UsageError("give either a QUERY or --prompt WORDS")
    written = segment(image, words, settings, out, allow_random, adapter)
    segmentation = written.segmentation
    for warning in segmentation.warnings:
        terminal.note(f"warning: {warning}")
    if segmentation.text is not None:
        terminal.say(f"answer: {segmentation.text}")
    if not segmentation.has_seg:
        terminal.note("warning: the answer has no [SEG], so the mask is empty")
    elif segmentation.covered == 0:
        terminal.note("warning: nothing was found: the mask is empty")
    terminal.say(f"mask: {written.mask} ({segmentation.covered:.1%} of the image)")
    for path, mask_HW in zip(written.separate, segmentation.masks, strict=False):
        terminal.say(f"mask of one [SEG]: {path} ({mask_HW.mean():.1%} of the image)")
    terminal.say(f"overlay: {written.overlay}")


@app.command("list")
def list_(
    what: Annotated[
        str | None,
        typer.Argument(
            help="What to list; an adapter's file, for its settings; or a folder of weights, for "
            "what they say of themselves.",
            show_default="everything",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List what can be named: suites, adapters, settings, presets, recipes, metrics, layouts."""
    from .benchmarks.catalogue import catalogue, outline

    listed = catalogue(what)
    if as_json:
        terminal.say_json(json.dumps(listed, indent=1))
    else:
        terminal.say(outline(listed, terminal.width()))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check this machine. Ends with 1 if something must be fixed."""
    from .benchmarks import doctor

    checks = doctor.check_machine()
    if as_json:
        terminal.say_json(json.dumps(doctor.as_json(checks), indent=1))
    else:
        terminal.say(doctor.as_text(checks))
    raise typer.Exit(1 if doctor.has_problem(checks) else 0)


@data_app.command("make")
def data_make(
    folder: Annotated[Path, typer.Argument(help="The folder that gets the split's folder.")],
    split: Annotated[str, typer.Option(help="Name of the split.")] = "val",
    count: Annotated[int, typer.Option(min=1, help="Number of queries.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same scenes.")] = 0,
) -> None:
    """Generate synthetic scenes with queries, in ReasonSeg's format."""
    from .datasets.scenes.generator import make

    make(folder, split, count, seed)
    terminal.say(folder / split)


@data_app.command("import")
def data_import(
    src: Annotated[
        str, typer.Argument(help="Data in a layout that `lisabench list layouts` shows.")
    ],
    dst: Annotated[Path, typer.Argument(help="A new folder to write.")],
    split: Annotated[str | None, typer.Option(help="Only this split.", show_default="all")] = None,
) -> None:
    """Import data into a folder of our own, with copies of all images.

    Every command reads it, on machines without the source, too.
    """
    from .benchmarks.progress import shown
    from .datasets.opening import import_data
    from .harness.paths import user_source

    with shown() as progress:
        count = import_data(user_source(src), dst, split, progress)
    terminal.note(f"{count:,} queries; evaluate them with: lisabench run SUITE --data {dst}")
    terminal.say(dst)


@data_app.command("verify")
def data_verify(
    source: DataArgument,
    split: Annotated[str | None, typer.Option(help="Only this split.", show_default="all")] = None,
) -> None:
    """List every problem of a data folder. Exit code 1 if there is one."""
    from .benchmarks.progress import shown
    from .datasets.verify import verify
    from .harness.paths import user_source

    with shown() as progress:
        found = verify(user_source(source), split, progress)
    for problem in found:
        terminal.say(problem)
    problems = [problem for problem in found if not problem.is_note]
    terminal.note(f"{len(problems)} problems" if problems else "no problems")
    raise typer.Exit(1 if problems else 0)


@data_app.command("ceiling")
def data_ceiling(
    source: DataArgument,
    split: Annotated[str | None, typer.Option(help="Only this split.", show_default="all")] = None,
    as_json: Json = False,
) -> None:
    """Compute how good masks can be at best on an encoder's grid.

    This is computed from the true masks, without any model.
    """
    from .benchmarks.data_ceiling import compute_ceilings, table
    from .benchmarks.progress import shown
    from .harness.paths import user_source

    with shown() as progress:
        ceilings = compute_ceilings(user_source(source), split, progress)
    if as_json:
        terminal.say_json(json.dumps([asdict(ceiling) for ceiling in ceilings], indent=1))
    else:
        terminal.say(table(ceilings))


def _read_pairs(changes: list[str]) -> dict[str, Any]:
    """Return ``KEY=VALUE`` arguments as a mapping.

    Values are YAML, so that 3 is a number and [a, b] a list. The name of a setting may be spelled
    with ``-`` in place of ``_``; a case's name, which may come before it, stays as it is.

    Raises:
        UsageError: an argument has no ``=``, or a value is not YAML.
    """
    from .harness.yaml_file import read_yaml

    pairs = {}
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise UsageError(f"--set {key}: expected KEY=VALUE, such as --set precision=bf16")
        case, dot, setting = key.rpartition(".")
        name = case + dot + setting.replace("-", "_")
        pairs[name] = read_yaml(value, f"--set {key}")
    return pairs


if __name__ == "__main__":
    main()
