"""Write the manifest of a run, ``run.json``, while the run is measured; or that of a shard of it.

It is written before anything is measured, with every key that it will ever have: null where a value
is not known yet. Each time something becomes known, the file is replaced whole, so that a session
that is killed leaves a manifest that `resume` can go on from.

`harness.records.manifest.Manifest` reads it. It says what each key means, and which keys have older
names than the code: ``teams``, ``passport``, ``ceilings``, ``in_turns`` and ``paper``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...harness.environment import usable_cores
from ...harness.errors import UsageError
from ...harness.records.from_json import from_json
from ...harness.records.journal import RUN, now, read_manifest, write_json
from ...harness.records.manifest import (
    BatchTrial,
    JoinedShard,
    Manifest,
    StopReason,
    SuiteTraining,
)
from ...harness.records.run import READABLE_RUN_SCHEMAS, RUN_SCHEMA, SHARD, SHARD_SCHEMA
from ..factors import design
from ..queries import Queries
from ..resolved_suite import ResolvedCase, ResolvedSuite
from ..suite import ADAPTER, AUTO, BATCH, Plan
from ..training import in_suites
from .schedule import Share
from .worker_messages import BuiltCase, Machine, MeasuredMemory, WarmedUpCase

SHOWN_DIGITS = 12  # of a digest, among the settings of a case
MOST_DECODERS = 4  # where the plan does not say how many processes decode images
WARM_UP_KEYS = (
    "first_query_ms",
    "warmup_queries",
    "warmup_stable",
    "warmup_lengths",
    "warmup_s",
    "graphs",
    "capture_s",
    "compile_s",
    "core",
)
KNOWN_LATER = (
    "encoder_batch",
    "batch_trials",
    "settings",
    "has_quality",
    "parameters",
    "weights_source",
    "build_s",
    "clock",
    *WARM_UP_KEYS,
    "error",
    "memory_error",
    "out_of_memory",
    "weights",
    "paper",
)
KEPT_ON_RESUME = (
    "started",
    "command",
    "cases",
    "passport",
    "versions",
    "ceilings",
    "gallery",
    "attempts",
    "warnings",
    "trainings",
    "shards",
)


class ManifestWriter:
    """The manifest of a run that is being measured.

    Every method that notes something writes the file.

    Args:
        folder: of the run.
        suite: what is measured.
        queries: what it is measured on.
        command: how a user would ask for the same run; the report repeats it.
        in_lockstep: whether the run takes turns with another session.
        share: of the quality pass, where the folder is that of a shard.
    """

    def __init__(
        self,
        folder: Path,
        suite: ResolvedSuite,
        queries: Queries,
        command: str = "",
        in_lockstep: bool = False,
        share: Share | None = None,
    ) -> None:
        self._folder = folder
        self._file = RUN if share is None else SHARD
        self._schemas = READABLE_RUN_SCHEMAS if share is None else (SHARD_SCHEMA,)
        definition = suite.definition
        quality_pass = None
        if queries.scored:
            quality_pass = {"queries": queries.scored, "batch": suite.plan.quality_batch}
        claims = []
        for claim in suite.claims:
            claims.append(claim.as_recorded(suite.references_for(claim)))
        trainings = in_suites.planned(
            suite.trainings, suite.plan.training_seeds, suite.training_fits
        )
        plan = suite.plan.model_dump(mode="json")
        plan["decode_workers"] = _decode_workers(suite.plan)
        self._values: dict[str, Any] = {
            "schema": RUN_SCHEMA if share is None else SHARD_SCHEMA,
            "suite": suite.name,
            "title": definition.title,
            "reference": definition.reference,
            "teams": [asdict(group) for group in suite.groups],
            "design": design(suite),
            "metrics": list(definition.metrics),
            "claims": claims,
            "trainings": [asdict(training) for training in trainings],
            "cards": list(definition.cards),
            "status": "running",
            "stopped": None,
            "started": now(),
            "finished": None,
            "attempts": 0,
            "in_turns": in_lockstep,
            "data": queries.as_recorded(),
            "plan": plan,
            "timed_queries": queries.timed,
            "quality_pass": quality_pass,
            "definition": definition.as_recorded(),
            "cases": [_entry_before_measuring(case) for case in suite.cases],
            "passport": None,
            "versions": None,
            "ceilings": {},
            "gallery": [],
            "warnings": [
                *(suite.contaminations if queries.may_be_reasonseg else ()),
                *_warn_of_adapters(suite),
                *_warn_of_random_weights(suite),
                *_warn_of_untimed_queries(suite, queries),
                *queries.warnings,
            ],
            "command": command,
            "shards": [],
        }
        if share is not None:
            self._values["shard"] = asdict(share)

    def save(self) -> None:
        """Write the file, whole or not at all."""
        write_json(self._folder / self._file, self._values)

    def read(self) -> Manifest:
        """Return the manifest as it stands."""
        return Manifest.from_json(self._values)

    # The run

    @property
    def attempt(self) -> int:
        """How often the run was resumed."""
        return self._values["attempts"]

    @property
    def status(self) -> str:
        """``running``, ``complete`` or ``failed``."""
        return self._values["status"]

    @property
    def in_lockstep(self) -> bool:
        """Whether the run takes turns with another session."""
        return self._values["in_turns"]

    @property
    def warnings(self) -> list[str]:
        """What speaks against the measurement, as far as it is known."""
        return list(self._values["warnings"])

    def take_over(self) -> None:
        """Go on with the manifest that a run which was cut short has left in the folder.

        Raises:
            UsageError: it is the run of another suite, over other data, or of an adapter whose file
                was changed.
        """
        begun = read_manifest(self._folder, self._schemas, self._file)
        # Runs from before there were protocols lack the name of theirs.
        protocol = self._values["data"].get("protocol")
        if protocol is not None:
            begun["data"].setdefault("protocol", protocol)
        self.refuse_other(self._folder, begun)
        for entry in begun["cases"]:
            for key in KNOWN_LATER:
                entry.setdefault(key, None)  # an older version did not note it
        for key in KEPT_ON_RESUME:
            if key in begun:
                self._values[key] = begun[key]
        self._values["attempts"] += 1

    def refuse_other(self, folder: Path, begun: Mapping[str, Any]) -> None:
        """Check that a manifest is of this suite, over these data, and of the same adapters.

        Args:
            folder: that it lies in.
            begun: its content.

        Raises:
            UsageError: it is not.
        """
        for key in ("definition", "data"):
            if begun[key] != self._values[key]:
                raise UsageError(
                    f"{folder} holds a run with another {key}; repeat the command it was begun with"
                )
        for entry in begun["cases"]:
            before = entry.get("adapter_sha256")  # older runs did not note it
            if before is not None and before != self.entry(entry["name"])["adapter_sha256"]:
                raise UsageError(
                    f"the file of adapter {entry['adapter']!r} was changed since the run in "
                    f"{folder} was begun; put it back, or begin a new run"
                )

    def note_shard(self, shard: JoinedShard) -> None:
        """Note a shard whose queries the run takes over, in place of an earlier note of it."""
        place = (shard.number, shard.of)
        others = [row for row in self._values["shards"] if (row["number"], row["of"]) != place]
        self._values["shards"] = [*others, asdict(shard)]
        self.save()

    def warn(self, text: str) -> None:
        """Add a warning, once. It is written with the next thing that is noted."""
        if text not in self._values["warnings"]:
            self._values["warnings"].append(text)

    def finish(self, failed_queries: int) -> None:
        """Note that all is measured, and whether any of it failed.

        Args:
            failed_queries: how many queries have no answer.
        """
        has_failed = failed_queries > 0
        for entry in self._values["cases"]:
            # That a case does not fit the machine is a result.
            if (entry["error"] or entry["memory_error"]) and not entry["out_of_memory"]:
                has_failed = True
        for training in self._values["trainings"]:
            if training["status"] == in_suites.FAILED:
                has_failed = True
        self._values["status"] = "failed" if has_failed else "complete"
        self._values["finished"] = now()
        self.save()

    def note_stop(self, reason: StopReason) -> None:
        """Note why the run ends before all is measured. A resume takes the note back."""
        self._values["stopped"] = reason
        self.save()

    # The machine

    @property
    def machine(self) -> Machine | None:
        """The machine and software that the run was begun with; None if it begins now."""
        if not self._values["passport"]:
            return None
        return Machine(self._values["passport"], self._values["versions"])

    @property
    def environment(self) -> Mapping[str, Any]:
        """Facts about the machine. To be read when `note_machine` was called."""
        return self._values["passport"]

    def note_machine(self, machine: Machine) -> None:
        """Note the machine and the software."""
        self._values["passport"] = machine.environment
        self._values["versions"] = machine.versions
        self.save()

    def note_gallery(self, ids: list[str]) -> None:
        """Note the queries whose images are kept, by their ids."""
        self._values["gallery"] = ids
        self.save()

    @property
    def gallery(self) -> tuple[str, ...]:
        """Ids of the queries whose images are kept."""
        return tuple(self._values["gallery"])

    @property
    def devices_with_roofline(self) -> set[str]:
        """The devices whose peak rates are noted."""
        return set(self._values["ceilings"])

    def note_roofline(self, device: str, rates: Mapping[str, Any]) -> None:
        """Note the peak rates of a device."""
        self._values["ceilings"][device] = dict(rates)
        self.save()

    # The trainings

    @property
    def trainings(self) -> list[SuiteTraining]:
        """The trainings of the suite, each with one seed, in the order in which they are done."""
        return [from_json(SuiteTraining, row) for row in self._values["trainings"]]

    def note_training(self, training: SuiteTraining) -> None:
        """Note how a training with one seed has ended."""
        for row in self._values["trainings"]:
            if row["folder"] == training.folder:
                row.update(status=training.status, reason=training.reason)
        self.save()

    # The cases

    def notes(self, case: str, process: int = 0) -> "CaseNotes":
        """Return what takes notes of a case, from one of its processes."""
        return CaseNotes(self, case, process)

    def entry(self, case: str) -> dict[str, Any]:
        """Return what is noted of a case, to be changed by `CaseNotes` alone."""
        for entry in self._values["cases"]:
            if entry["name"] == case:
                return entry
        raise KeyError(case)

    def batch_of(self, case: str) -> int | None:
        """Return how many queries of a case are timed at once; None until that is chosen."""
        return self.entry(case)["batch"]

    def encoder_batch_of(self, case: str) -> int | None:
        """Return how many images of a case were chosen to be encoded at once; None without."""
        return self.entry(case)["encoder_batch"]

    @property
    def decode_workers(self) -> int | None:
        """How many processes decode images for a case; None where latency is measured."""
        return self._values["plan"]["decode_workers"]

    @property
    def measures_throughput(self) -> bool:
        """Whether the run measures throughput, and not latency."""
        return self._values["plan"]["scenario"] == "throughput"

    def may_have_quality(self, case: str) -> bool:
        """Return False if the case is known to have random weights: it then has no scores."""
        return self.entry(case)["has_quality"] is not False

    def does_not_fit(self, case: str) -> bool:
        """Return whether a case is known to need more memory than this machine has."""
        return bool(self.entry(case)["out_of_memory"])

    def why_it_failed(self, case: str) -> str:
        """Return why a case could not be measured, in one line; empty where it could."""
        entry = self.entry(case)
        return entry["memory_error"] or entry["error"] or ""

    @property
    def cases_that_do_not_fit(self) -> set[str]:
        """The cases that are known to need more memory than this machine has."""
        return {entry["name"] for entry in self._values["cases"] if entry["out_of_memory"]}

    def cases_with_costs(self) -> list[str]:
        """Return the cases whose costs by arithmetic are known."""
        return [entry["name"] for entry in self._values["cases"] if entry["paper"]]

    def forget_errors(self, cases: Iterable[str]) -> None:
        """Forget why cases could not be measured, since they are measured again.

        What does not fit the machine is not tried again: it would run out of memory again.
        """
        for case in cases:
            if not self.does_not_fit(case):
                self.entry(case).update(error=None, memory_error=None)


@dataclass(frozen=True)
class CaseNotes:
    """Notes what becomes known of a case in one of its processes.

    The notes of the first process stay. A later process that differs adds a warning.
    """

    manifest: ManifestWriter
    case: str
    process: int

    def chose_batch(
        self, batch: int, encoder_batch: int | None, trials: Sequence[BatchTrial]
    ) -> None:
        """Note the batch that was chosen, and what was tried."""
        rows = [asdict(trial) for trial in trials]
        self._note({"batch": batch, "encoder_batch": encoder_batch, "batch_trials": rows})

    def built(self, case: BuiltCase) -> None:
        """Note how the case was built."""
        entry = self.manifest.entry(self.case)
        settings = dict(case.settings)
        if self.manifest.measures_throughput:
            # Where cases differ in it, it explains their costs like any other setting.
            settings[BATCH] = entry["batch"]
        if entry["adapter_sha256"] is not None:
            # Two files, or two builders of a module, may give themselves the same settings. Their
            # cases are not two measurements of one model.
            settings[ADAPTER] = entry["adapter"]
            settings["adapter_sha256"] = entry["adapter_sha256"][:SHOWN_DIGITS]
        built = {
            "settings": settings,
            "has_quality": case.has_quality,
            "parameters": case.parameters,
            "weights_source": case.weights_source,
            "clock": case.clock,
        }
        for key in ("settings", "clock"):
            known_before = entry[key] is not None and built[key] is not None
            if known_before and entry[key] != built[key]:
                self.manifest.warn(
                    f"process {self.process + 1} of {self.case} was built with another value of "
                    f"{key} than the first"
                )
        self._warn(case.warnings)
        self._note(built)

    def warmed_up(self, case: WarmedUpCase) -> None:
        """Note how a process of the case came to speed.

        A process that is measured again, after a resume, replaces what is noted of it.
        """
        warm_up = {key: getattr(case, key) for key in WARM_UP_KEYS}
        entry = self.manifest.entry(self.case)
        others = [row for row in entry["warmups"] if row["process"] != self.process]
        entry["warmups"] = [*others, {"process": self.process} | warm_up]
        self._warn(case.warnings)
        self._note(warm_up)

    def measured_memory(self, memory: MeasuredMemory) -> None:
        """Note the result of the memory pass, but for its lines, which go to the journal."""
        self._note(
            {
                "memory_error": memory.error,
                "out_of_memory": memory.out_of_memory or None,
                "build_s": memory.build_s,
                "weights": memory.weight_bytes,
                "paper": memory.costs,
                "has_quality": memory.has_quality,
            }
        )

    def failed(self, reason: str, out_of_memory: bool) -> None:
        """Note why the case could not be measured, and whether it ran out of memory."""
        self._note({"error": reason, "out_of_memory": out_of_memory or None})

    def _warn(self, warnings: Iterable[str]) -> None:
        for warning in warnings:
            self.manifest.warn(f"{self.case}: {warning}")

    def _note(self, values: Mapping[str, Any]) -> None:
        entry = self.manifest.entry(self.case)
        for key, value in values.items():
            if entry.get(key) is None:
                entry[key] = value
        self.manifest.save()


def _decode_workers(plan: Plan) -> int | None:
    """Return how many processes decode images for a case; None where latency is measured."""
    if plan.scenario == "latency":
        return None
    if plan.decode_workers is not None:
        return plan.decode_workers
    return min(MOST_DECODERS, len(usable_cores()) - 1)  # one core is the model's


def _entry_before_measuring(case: ResolvedCase) -> dict[str, Any]:
    """Return the entry of a case of which nothing is known but what the suite says."""
    entry = {
        "name": case.name,
        "adapter": case.adapter,
        "adapter_sha256": case.adapter_sha256,
        "role": case.role,
        "given": dict(case.given),
        "batch": None if case.batch == AUTO else case.batch,
        "warmups": [],
    }
    return entry | dict.fromkeys(KNOWN_LATER)


def _warn_of_adapters(suite: ResolvedSuite) -> list[str]:
    """Return a warning for each case whose adapter cannot be loaded: it is said at once."""
    warnings = []
    for case in suite.cases:
        if case.load_error is not None:
            warnings.append(f"{case.name} cannot be measured: {case.load_error}")
    return warnings


def _warn_of_random_weights(suite: ResolvedSuite) -> list[str]:
    """Return a warning if some models have random weights and others have trained ones."""
    random = []
    has_trained = False
    for case in suite.models:
        weights = getattr(case.config, "weights", None)  # not every adapter has the setting
        if weights == "random":
            random.append(case.name)
        elif weights is not None:
            has_trained = True
    if not random or not has_trained:
        return []
    names = ", ".join(random)
    return [
        f"{names}: random weights, while other cases have trained ones; "
        "no score, and no comparison of quality"
    ]


def _warn_of_untimed_queries(suite: ResolvedSuite, queries: Queries) -> list[str]:
    """Return a warning if the last queries to be timed do not fill a batch, and are left out."""
    to_be_timed = min(suite.plan.timed_queries, queries.count)
    whole_batches = suite.common_batch(to_be_timed)
    left_out = to_be_timed - queries.timed
    if not left_out:
        return []
    return [
        f"{left_out} of {to_be_timed} queries are not timed: they do not fill a batch of "
        f"{whole_batches}"
    ]
