"""``lisabench run``, from the command line to an exit code."""

import json
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ...harness import terminal
from ...harness.errors import UsageError
from ...harness.paths import user_path
from ...harness.records.journal import holds_run
from ...harness.records.run import read_run
from ..progress import no_progress, shown
from ..queries import Queries
from ..resolve import resolve_recorded
from ..resolved_suite import ResolvedSuite
from ..suite_file import load
from . import launch, shards
from .schedule import Share
from .session import Session, pool_of
from .workload import announcement, workload_of

DEFAULT_SUITE = "tiny"
SHORTEST_MIN = 1e-6  # minutes, of a run that is late already: 0 is no limit
NO_BETTER = 1  # exit code: all is measured, and a checkpoint is no better than a trivial baseline
EXIT_CODES = {"complete": 0, "running": 3, "failed": 5}
NOT_COMPLETE = {
    "running": "not all is measured yet; go on with: lisabench run --resume --out {folder}",
    "failed": "some queries or trainings failed; the report in {folder} says which and why",
}


@dataclass(frozen=True)
class Request:
    """What the user asks for.

    Attributes:
        suite: name or file of the suite; None: the default, or that of the run to resume.
        changes: changes of the suite by key, as `suite_file.change` takes them.
        out: folder of the run; None: a new one under ``runs/``.
        resume: whether to go on with the run in `out`.
        stop_after_min: begin nothing new after so many minutes.
        share: evaluate only this share of the quality pass; None: measure all.
    """

    suite: str | None
    changes: dict[str, Any]
    out: Path | None
    resume: bool
    stop_after_min: float | None = None
    share: Share | None = None


def carry_out(request: Request) -> int:
    """Carry out a run, print its table and the path of its report, and return the exit code.

    Of a share of the quality pass, it is 0 if all of it is evaluated, whatever the answers are.

    A run in lockstep with another prints no table and writes no report: whoever started the two
    makes of them what is needed.

    Raises:
        LisabenchError: nothing could be begun, or the run cannot go on.
    """
    if request.share is not None:
        return _evaluate_share(request, request.share)
    rank = launch.rank_of_environment()
    if rank is not None:
        return _carry_out_as(rank, request)
    session = measure(request)
    if session.manifest.in_lockstep:
        return EXIT_CODES[session.manifest.status]
    return conclude(session.folder)


def show_plan(request: Request) -> None:
    """Print what a run would measure and about how long it would take. Nothing is measured.

    Scenes that the suite generates are generated, since their number is part of the plan.

    Raises:
        LisabenchError: the run would be refused.
    """
    if request.resume:
        raise UsageError(
            "--dry-run shows a new run, and --resume goes on with one: leave out either"
        )
    suite = _suite_of(request)
    with shown() as progress:
        queries = Queries.of(suite, progress)
    terminal.say(announcement(suite, queries, workload_of(suite, queries)))


def measure(request: Request) -> Session:
    """Measure what is asked for, and return the session.

    Raises:
        LisabenchError: nothing could be begun, or the run cannot go on.
    """
    with _session_of(request) as session:
        folder = session.folder
        try:
            if request.resume:
                session.resume()
            else:
                session.start()
        except KeyboardInterrupt:
            terminal.note(f"interrupted; go on with: lisabench run --resume --out {folder}")
            raise
    return session


def _evaluate_share(request: Request, share: Share) -> int:
    """Evaluate a share of the quality pass, say how to go on, and return the exit code.

    Raises:
        UsageError: the folder of the run is not named, or the suite has no quality pass.
    """
    if request.out is None:
        raise UsageError("--shard needs --out DIR, the folder of the run: the same for all shards")
    name = f"{share.number}/{share.of}"
    with _session_of(request) as session:
        suite = session.run.suite
        total = session.run.queries.scored
        if not total:
            raise UsageError(
                f"suite {suite.name} has no quality pass (quality_queries is 0): leave out --shard"
            )
        count = sum(len(batch) for batch in share.of_batches(session.run.journal.batches))
        if count == 0:
            terminal.note(
                f"shard {name} has none of the {total} queries: a batch has "
                f"{suite.plan.quality_batch} (plan.quality_batch)"
            )
        is_whole = session.evaluate_share(share)
    if not is_whole:
        terminal.note(f"not all of shard {name} is evaluated yet; go on with the same command")
        return EXIT_CODES["running"]
    terminal.note(
        f"shard {name} is evaluated ({count} of {total} queries); when all are, join them and "
        f"measure the rest: lisabench run --resume --out {request.out}"
    )
    return EXIT_CODES["complete"]


def _carry_out_as(rank: launch.Rank, request: Request) -> int:
    """Carry out a run as one of several processes of a launcher, and return the exit code.

    That of the run is rank 0's. The others end with 0 when their share is evaluated.

    Raises:
        LisabenchError: nothing could be begun, or the run cannot go on.
    """
    begun_s = time.monotonic()
    with launch.connected(rank):
        folder = launch.agreed(request.out or _default_folder(_suite_of(request)))
        request = replace(request, out=folder)
        if holds_run(folder) and not request.resume:
            raise UsageError(
                f"{folder} holds a run already; continue it with --resume or name another folder "
                "with --out"
            )
        with _session_of(replace(request, share=rank.share), rank) as session:
            session.evaluate_share(rank.share, processes=1)
        launch.wait_for_all(rank, folder)
    if rank.number > 0:
        return EXIT_CODES["complete"]
    if request.stop_after_min:
        left_min = request.stop_after_min - (time.monotonic() - begun_s) / 60
        request = replace(request, stop_after_min=max(left_min, SHORTEST_MIN))
    return conclude(measure(request).folder)


def _default_folder(suite: ResolvedSuite) -> Path:
    return user_path(Path("runs") / f"{suite.name}-{datetime.now():%Y%m%d-%H%M%S}")


@contextmanager
def _session_of(request: Request, rank: launch.Rank | None = None) -> Iterator[Session]:
    """Yield the session that is asked for, and show its progress. Nothing is measured yet.

    Args:
        request: what the user asks for.
        rank: of this process in a launch. Only rank 0 shows anything.

    Raises:
        LisabenchError: the suite or the data cannot be read.
    """
    suite = _suite_of(request)
    folder = request.out or _default_folder(suite)
    deadline_s = None
    if request.stop_after_min:
        deadline_s = time.monotonic() + 60 * request.stop_after_min
    # Before the queries: its server imports torch for seconds while they are generated or read.
    pool = pool_of(suite, None if rank is None else rank.gpu(suite))
    is_quiet = rank is not None and rank.number > 0
    with nullcontext(no_progress) if is_quiet else shown() as progress:
        queries = Queries.of(suite, progress)
        session = Session(
            suite, queries, folder, progress, _same_command(request), deadline_s, pool
        )
        if is_quiet:
            yield session
            return
        if not session.manifest.in_lockstep:
            if request.share is None:
                terminal.note_lines(announcement(suite, queries, session.workload))
            terminal.note(f"records: {folder}")
        for warning in session.manifest.warnings:
            terminal.note(f"warning: {warning}")
        yield session


def as_arguments(changes: Mapping[str, Any]) -> list[str]:
    """Return changes of a suite as arguments of the command line."""
    return [f"--set={key}={json.dumps(value, default=str)}" for key, value in changes.items()]


def conclude(folder: Path) -> int:
    """Write the report of a run, print its table, and return the exit code."""
    # Imported here: a run in lockstep writes no report, and needs no drawing library.
    from ...reports.page.terminal import print_summary, refusals
    from ...reports.run.warnings import failures
    from ...reports.run_report import write_report

    report = write_report(folder)
    print_summary(folder)
    terminal.say(report)
    run = read_run(folder)
    status = run.manifest.status
    if status == "failed":
        for sentence in failures(run):
            terminal.note(f"lisabench: {sentence}")
    if status != "complete":
        reason = NOT_COMPLETE[status].format(folder=folder)
        terminal.note(f"lisabench: {reason}")
    refused = refusals(folder)
    for sentence in refused:
        terminal.note(f"lisabench: {sentence}")
    if status == "complete" and refused:
        return NO_BETTER
    return EXIT_CODES[status]


def _same_command(request: Request) -> str:
    """Return the command line that asks for the same run in a new folder."""
    suite = request.suite or DEFAULT_SUITE
    return shlex.join(["lisabench", "run", suite, *as_arguments(request.changes)])


def _recorded_definition(folder: Path) -> Mapping[str, Any]:
    """Return the suite of the run in a folder; before there is one, that of its shards.

    Raises:
        UsageError: the folder holds neither.
    """
    of_shards = None if holds_run(folder) else shards.definition_of(folder)
    return read_run(folder).manifest.definition if of_shards is None else of_shards


def _suite_of(request: Request) -> ResolvedSuite:
    """Return the suite that was named, or that of the run to resume if none was named."""
    if request.resume:
        if request.out is None or not request.out.is_dir():
            raise UsageError(
                f"--resume needs the folder of a run that was begun: --out DIR, not {request.out}"
            )
        if request.suite is None and not request.changes:
            return resolve_recorded(_recorded_definition(request.out))
    name = DEFAULT_SUITE if request.suite is None else request.suite
    return load(name, request.changes)
