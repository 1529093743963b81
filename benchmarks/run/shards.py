"""Shards: parts of the quality pass that are evaluated apart, and joined by the run.

A shard is evaluated by a job of an array (``--shard I/N``), or by one of several processes that a
launcher starts. It has a folder of its own, ``shards/I-of-N`` in that of the run. The run joins
them by case and query: it takes over the batches that it does not have, each from the first shard
that has it whole, and evaluates what no shard has. So it does not matter how many shards there
were, or where one was cut short.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...harness.environment import SAME_VERSIONS, facts_of_quality, must_be_same
from ...harness.errors import UsageError
from ...harness.masks import ALL_MASKS
from ...harness.records.folder import before_writing, undone_if_refused
from ...harness.records.journal import (
    RUN,
    create,
    each_record,
    holds_run,
    is_being_written,
    read_manifest,
    writing,
)
from ...harness.records.manifest import JoinedShard
from ...harness.records.query import QueryRecord
from ...harness.records.run import (
    GALLERY,
    QUALITY,
    READABLE_RUN_SCHEMAS,
    SHARD,
    SHARD_SCHEMA,
    SHARDS,
)
from . import quality_pass
from .journal import Journal, whole_batches
from .manifest import ManifestWriter
from .run_context import RunContext
from .schedule import Share
from .worker_messages import BuiltCase
from .worker_pool import DataProcess

JOINED_AT_ONCE = 1000  # records that are in memory while shards are joined


@dataclass(frozen=True)
class Shard:
    """A shard in the folder of a run.

    Attributes:
        folder: its own.
        manifest: the content of its ``shard.json``.
    """

    folder: Path
    manifest: Mapping[str, Any]


def shard_folder(folder: Path, share: Share) -> Path:
    """Return the folder of a shard.

    Args:
        folder: of the run.
        share: which shard it is.
    """
    return folder / SHARDS / share.name


def shards_of(folder: Path) -> list[Shard]:
    """Return the shards in the folder of a run, in the order of their names.

    Raises:
        DataError: a manifest is damaged.
    """
    found = []
    for manifest in sorted((folder / SHARDS).glob(f"*/{SHARD}")):
        part = manifest.parent
        found.append(Shard(part, read_manifest(part, (SHARD_SCHEMA,), SHARD)))
    return found


def definition_of(folder: Path) -> Mapping[str, Any] | None:
    """Return the suite that the shards in a folder are of; None where there are no shards."""
    for shard in shards_of(folder):
        return shard.manifest["definition"]
    return None


# Evaluating a shard


def evaluate(run: RunContext, share: Share, is_late: Callable[[], bool]) -> bool:
    """Evaluate a share of the quality pass into its folder, or go on with it.

    Args:
        run: its folder and its manifest are those of the run that the shard is of; nothing is
            written there.
        share: which part it is.
        is_late: is called before each case; returns whether none may be begun any more.

    Returns:
        Whether the whole share is evaluated.

    Raises:
        UsageError: the run's folder holds another run, or shards of one; or another process
            evaluates this shard.
        NothingToCompare: it was begun on a machine of another kind, or with other software.
    """
    part = shard_folder(run.folder, share)
    before = before_writing(part)
    is_begun = (part / SHARD).is_file()
    if not is_begun:
        create(part, (QUALITY,))
    with writing(part), undone_if_refused(part, before):
        own = _own_context(run, part, share)
        _refuse_other_suites(run)
        if is_begun:
            own.manifest.take_over()
            own.manifest.forget_errors(own.journal.supersede_partial_batches())
        own.manifest.save()
        with run.pool.start_data(run.queries.reader) as data:
            try:
                return _evaluate(own, data, share, is_late)
            except KeyboardInterrupt:
                own.manifest.note_stop("interrupt")
                raise


def _own_context(run: RunContext, part: Path, share: Share) -> RunContext:
    """Return what the passes work with, for the folder of a shard."""
    manifest = ManifestWriter(
        part, run.suite, run.queries, run.manifest.read().command or "", share=share
    )
    batches = run.journal.batches
    elsewhere: dict[str, set[range]] = whole_batches(run.folder / QUALITY, batches)
    for shard in shards_of(run.folder):
        if shard.folder != part:
            for case, whole in whole_batches(shard.folder / QUALITY, batches).items():
                elsewhere.setdefault(case, set()).update(whole)
    journal = Journal(part, run.suite, run.queries, share, elsewhere)
    return replace(run, folder=part, manifest=manifest, journal=journal)


def _evaluate(
    run: RunContext, data: DataProcess, share: Share, is_late: Callable[[], bool]
) -> bool:
    positions = [place for batch in share.of_batches(run.journal.batches) for place in batch]
    first_machine = run.manifest.machine
    facts = () if first_machine is None else facts_of_quality(first_machine.environment)
    run.note_machine_and_check_data(data, facts, positions)
    refuse_others(run, run.folder.parent.parent)
    if run.masks_of_quality is not ALL_MASKS:
        # Which masks are kept follows the images that the run will keep.
        kept = run.queries.to_keep(run.suite.plan.gallery)
        run.manifest.note_gallery(data.save_gallery(kept, run.folder / GALLERY))
    for case in run.suite.cases:
        if is_late():
            run.manifest.note_stop("time")
            return False
        quality_pass.evaluate_case(run, data, case.name)
    run.manifest.finish(run.journal.failed_queries(run.manifest.cases_that_do_not_fit))
    return True


# Joining shards


def _refuse_other_suites(run: RunContext) -> None:
    """Check that all that is in the folder of a run is of its suite and over its data.

    Raises:
        UsageError: something is not.
    """
    if holds_run(run.folder):
        begun = read_manifest(run.folder, READABLE_RUN_SCHEMAS, RUN)
        run.manifest.refuse_other(run.folder, begun)
    for shard in shards_of(run.folder):
        run.manifest.refuse_other(shard.folder, shard.manifest)


def refuse_others(run: RunContext, folder: Path | None = None) -> None:
    """Check that the run can take over all shards in its folder. This machine is noted already.

    Args:
        run: of the run, or of one of its shards.
        folder: of the run; None: that of `run`.

    Raises:
        UsageError: a shard is of another suite or over other data.
        NothingToCompare: a shard comes from a machine of another kind, or from other software.
    """
    machine = run.manifest.machine
    assert machine is not None
    facts = facts_of_quality(machine.environment)
    for shard in shards_of(folder or run.folder):
        run.manifest.refuse_other(shard.folder, shard.manifest)
        theirs = shard.manifest
        if theirs["passport"] is not None:
            must_be_same(shard.folder, "machine", facts, theirs["passport"], machine.environment)
            must_be_same(
                shard.folder, "software", SAME_VERSIONS, theirs["versions"], machine.versions
            )


def join(run: RunContext) -> None:
    """Take over from the shards what the run's quality pass does not have yet.

    Raises:
        UsageError: a shard is just being evaluated.
    """
    for shard in shards_of(run.folder):
        if is_being_written(shard.folder):
            raise UsageError(
                f"{shard.folder} is just being evaluated by another lisabench; wait until all "
                "shards have ended, and repeat the command"
            )
        wanted = _wanted_from(run, shard)
        if not wanted:
            continue
        manifest = shard.manifest
        # Before the records: the run that is killed in between takes over no more of it.
        run.manifest.note_shard(
            JoinedShard(
                number=manifest["shard"]["number"],
                of=manifest["shard"]["of"],
                started=manifest["started"],
                finished=manifest["finished"],
                environment=manifest["passport"],
                versions=manifest["versions"],
            )
        )
        _take_notes(run, shard, set(wanted))
        _take_records(run, shard, wanted)


def _wanted_from(run: RunContext, shard: Shard) -> dict[str, set[int]]:
    """Return the positions that the run takes over from a shard, by case: whole batches only."""
    whole = whole_batches(shard.folder / QUALITY, run.journal.batches)
    wanted: dict[str, set[int]] = {}
    for case, missing in run.journal.all_missing_batches().items():
        for batch in missing:
            if batch in whole.get(case, ()):
                wanted.setdefault(case, set()).update(batch)
    return wanted


def _take_notes(run: RunContext, shard: Shard, cases: set[str]) -> None:
    """Note of some cases how they were built in a shard, and its warnings."""
    for entry in shard.manifest["cases"]:
        notes = run.manifest.notes(entry["name"])
        if entry["name"] not in cases:
            continue
        if entry["settings"] is not None:
            notes.built(BuiltCase(entry["settings"], entry["has_quality"], (), entry["parameters"]))
        if entry["error"]:
            notes.failed(entry["error"], bool(entry.get("out_of_memory")))
    for warning in shard.manifest["warnings"]:
        run.manifest.warn(warning)


def _take_records(run: RunContext, shard: Shard, wanted: dict[str, set[int]]) -> None:
    """Append a shard's records of the wanted positions to the run's journal."""
    taken = []
    for record in each_record(QueryRecord, shard.folder / QUALITY):
        if record.position not in wanted.get(record.case, ()):
            continue
        wanted[record.case].remove(record.position)
        taken.append(record)
        if len(taken) == JOINED_AT_ONCE:
            run.journal.add_quality(taken)
            taken = []
    run.journal.add_quality(taken)
