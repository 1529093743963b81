"""A session: one suite, run into one folder.

First the trainings, where there are any. Then the memory pass, each case alone in fresh processes, and in one capped
to a card that a claim says it fits. Then the quality pass, which evaluates every query once for each case and each
control, in batches and without timing them. Then rounds for time: in each round every case has a fresh process of its
own, and the cases take turns block by block (A B C, C B A, ...; the next round the other way round), so that whatever
drifts on the machine drifts for all of them; only one process works at a time. Another session that was started beside
this one takes turns with it in all of that; only building is done by both at once; see `baton`. Everything is
journalled block by block, and a session that was killed resumes by measuring the batches and rounds that are missing.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ...harness.environment import SAME_TO_RESUME, SAME_VERSIONS, must_be_same, usable_cores
from ...harness.errors import UsageError
from ...harness.records.journal import RUN, create, holds_run, now, write_json, writing
from ...harness.records.run import GALLERY, MEMORY, SAMPLES, read_run
from ...models import registry
from ..progress import Progress
from ..queries import Queries
from ..suite import Suite
from ..training import in_suites
from . import lockstep, schedule
from .case_process import Turn
from .evaluator import Evaluator
from .journal import Journal
from .manifest import WARMUP, first_page
from .worker import Order
from .worker_pool import Lost, Pool, WorkerProcess, must

KEPT = ("started", "command", "cases", "passport", "versions", "ceilings", "gallery", "attempts", "warnings",
        "trainings")  # fmt: skip
SYNCHRONISED_QUERIES = 4  # a process; they come before the timed ones
ALTERNATE = "they alternate as fresh processes, not block by block, and their ratios are less sure"
QUALITY_PROCESSES = 2  # of a case on a CPU, side by side in the quality pass
ROOM = 0.95  # of a machine's memory that cases side by side may need


def pool_of(suite: Suite) -> Pool:
    """Return a pool whose server imports what the suite's adapters need, and begins with that at once."""
    adapters = {suite.settings(case)["adapter"] for case in suite.all_cases()}
    modules = {module for name in adapters for module in registry.preload(name)}
    return Pool(sorted(modules), suite.plan.time_limit_s)


class Session:
    """Runs a suite into a folder; `report` is told how far it is: steps done, steps in all, what is being done.

    `command` is how a user would ask for the same run; the report repeats it. From `deadline_s` on, by the monotonic
    clock, no memory pass or round is begun any more; `resume` goes on from there. `pool` is that of `pool_of`, and is
    made here where none is given.
    """

    def __init__(
        self,
        suite: Suite,
        queries: Queries,
        folder: Path,
        report: Progress,
        command: str = "",
        deadline_s: float | None = None,
        pool: Pool | None = None,
    ) -> None:
        self.suite, self.queries, self.folder, self.report, self.deadline_s = (
            suite,
            queries,
            folder,
            report,
            deadline_s,
        )
        self.baton = lockstep.of_environment(suite)
        self.page: dict[str, Any] = first_page(suite, queries) | {
            "command": command,
            "in_turns": not self.baton.alone,
        }
        self.journal = Journal(folder, suite, queries)
        self.done = 0
        self.pool = pool or pool_of(suite)

    def start(self) -> None:
        """A new run. The folder is tried before anything is loaded."""
        create(self.folder, (SAMPLES, MEMORY))
        with writing(self.folder):
            self._save()
            self._measure()

    def resume(self) -> None:
        """Goes on with a run that was cut short: only what is missing is measured, and that is all where nothing was.

        Raises:
            UsageError: the folder's run is another suite's, or over other data.
            NothingToCompare: it was begun on another machine.
        """
        if holds_run(self.folder):
            with writing(self.folder):
                self._take_over(read_run(self.folder).run)
                self._measure()
        else:
            self.start()

    def _take_over(self, begun: dict[str, Any]) -> None:
        for what in ("definition", "data"):
            if begun[what] != self.page[what]:
                raise UsageError(
                    f"{self.folder} holds a run with another {what}; repeat the command it was begun with"
                )
        self.page |= {key: begun[key] for key in KEPT if key in begun}
        self.page["attempts"] += 1
        for name in self.journal.half_written():
            self._warn(f"the last line of {name} was cut short, and dropped when the run went on")
        for case in self.journal.supersede_unfinished():
            self._entry(case).update(error=None, memory_error=None)

    def _measure(self) -> None:
        with self.pool.clerk(self.queries.reader) as clerk:
            self._prepare(clerk)
            with self.baton.round():
                finished = all(map(self._done_in_time, map(self.baton.turn(), self._passes(clerk))))
            if finished and all(map(self._done_in_time, self._rounds(clerk))):
                self._conclude()

    def _passes(self, clerk: WorkerProcess) -> Iterator[Callable[[], None]]:
        """Trainings and memory passes: each done whole or, after a resume, anew, with the machine to itself."""
        for row in self.page["trainings"]:
            yield partial(self._training, row)
        for process in range(self.suite.plan.memory_processes):
            for case in self.suite.cases:
                yield partial(self._memory_pass, process, case)
        for case, card in self.suite.fits():
            yield partial(self._fit_pass, case, card)
        yield partial(self._measure_ceilings, clerk)
        for case in self.suite.all_cases() if self.queries.scored else ():
            yield partial(self._quality_pass, clerk, case)

    def _rounds(self, clerk: WorkerProcess) -> Iterator[Callable[[], None]]:
        """Those for time, and controls where no quality pass has them."""
        for process in range(self.suite.plan.processes):
            for team in self.suite.all_teams():
                yield partial(self._round, clerk, process, team.cases)
        for control in self.suite.controls if not self.queries.scored else ():
            yield partial(self._round, clerk, 0, (control,))

    def _done_in_time(self, step: Callable[[], None]) -> bool:
        if self.deadline_s is not None and time.monotonic() >= self.deadline_s:
            return False
        step()
        return True

    def _conclude(self) -> None:
        broken = self.journal.failures() or any(
            entry["error"] or entry["memory_error"] for entry in self.page["cases"]
        )
        broken = broken or any(row["status"] == in_suites.FAILED for row in self.page["trainings"])
        self.page |= {"status": "failed" if broken else "complete", "finished": now()}
        self._save()

    def _prepare(self, clerk: WorkerProcess) -> None:
        """The machine, the data and the gallery: what must be known before any case is built."""
        self._advance(0, "reading the machine and the data")
        here = must(clerk, "passport")
        if self.page["passport"]:
            must_be_same(
                self.folder, "machine", SAME_TO_RESUME, self.page["passport"], here["passport"]
            )
            must_be_same(
                self.folder, "software", SAME_VERSIONS, self.page["versions"], here["versions"]
            )
        must(clerk, "check_devices", self._devices())
        must(clerk, "check_data")
        # Of these queries every case has an answer, also one with random weights, which is only timed.
        common = min(self.queries.timed, self.queries.scored or self.queries.timed)
        wanted = min(self.suite.plan.gallery, common)
        positions = [i * common // wanted for i in range(wanted)]
        shown = must(clerk, "gallery", positions, str(self.folder / GALLERY))
        self.page |= here | {"gallery": shown}
        self._save()

    def _devices(self) -> list[str]:
        return sorted(
            {getattr(self.suite.make(case), "device", "cpu") for case in self.suite.all_cases()}
        )

    def _measure_ceilings(self, clerk: WorkerProcess) -> None:
        """Of the devices of the cases that say on paper what they take, in a process without a model."""
        wanted = self.page["cases"] if self.suite.plan.beside else []
        named = {self.suite.make(entry["name"]).device for entry in wanted if entry["paper"]}
        devices = set(must(clerk, "check_devices", sorted(named)))
        for device in sorted(devices - self.page["ceilings"].keys()):
            self._advance(0, f"ceilings of the {device}")
            with self.pool.clerk(self.queries.reader) as worker:
                self.page["ceilings"] |= {device: must(worker, "ceilings", device)}
            self._save()

    def _training(self, row: dict[str, Any]) -> None:
        """One training with one seed. That it fails, or does not fit, keeps nothing else from being measured."""
        if row["status"] not in in_suites.DONE:
            self._advance(0, f"training {row['name']} with seed {row['seed']}")
            gpu = self.page["passport"].get("device") == "cuda"
            row.update(
                in_suites.carry_out(self.folder, row, self.suite.trainings[row["name"]], gpu)
            )
            self._save()
        self._advance(1, f"training {row['name']}")

    def _memory_pass(self, process: int, case: str) -> None:
        if not self.journal.has_memory(process, case):
            with self.pool.start(self._order(case, process)) as worker:
                found, beside = self._examined(
                    worker, profiled=process == 0 and self.suite.plan.beside
                )
            rows = found.pop("rows")
            self._note(case, process, **found)
            who = {"case": case, "process": process, "attempt": self.page["attempts"]}
            self.journal.add_passes(who | row for row in beside)
            self.journal.add_memory(who | row for row in rows)
        self._advance(1, f"memory of {case}")

    def _examined(
        self, worker: WorkerProcess, profiled: bool
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """What the memory pass and the profiled one find; a failure of the second takes nothing from the first."""
        queries, found = self.suite.plan.memory_queries, {}
        try:
            found = worker.ask("memory", queries)
            return found, worker.ask("gpu_busy") if profiled and not found["memory_error"] else []
        except Lost as lost:
            return found or {"rows": [], "memory_error": lost.reason}, []

    def _fit_pass(self, case: str, card: str) -> None:
        """Whether a case fits a card. That it does not is a result of the run, and no failure."""
        if not self.journal.has_fit(case, card):
            with self.pool.start(replace(self._order(case), gpu_memory=card)) as worker:
                try:
                    found = worker.ask("fit", self.suite.plan.memory_queries)
                except (
                    Lost,
                    UsageError,
                ) as error:  # a process that broke, or a card that cannot be imitated here
                    found = {"status": "error", "reason": str(error)}
            self.journal.add_fit(
                {"case": case, "card": card, "attempt": self.page["attempts"]} | found
            )
        self._advance(1, f"{case} on a card of {card}")

    def _quality_pass(self, clerk: WorkerProcess, case: str) -> None:
        """Evaluate every query of a case once, in batches: those that are missing. Random weights have no quality."""
        what, missing = f"quality of {case}", self.journal.missing_batches(case)
        self._advance(self.queries.scored - sum(map(len, missing)), what)
        processes = self._quality_processes(case) if len(missing) > 1 else 1
        threads = None if processes == 1 else max(1, len(usable_cores()) // processes)
        with ExitStack() as stack:
            evaluators = []
            for _ in range(
                processes if missing and self._entry(case)["has_quality"] is not False else 0
            ):
                evaluator = Evaluator(
                    partial(self.pool.start, self._order(case)),
                    clerk,
                    partial(self._note, case, 0),
                    threads,
                )
                evaluators.append(stack.enter_context(evaluator))
                evaluator.build()
            for start in range(0, len(missing), processes):
                batches = missing[start : start + processes]
                if self._entry(case)["has_quality"] is not False:
                    self._evaluate(case, evaluators, batches)
                self._advance(sum(map(len, batches)), what)

    def _evaluate(
        self, case: str, evaluators: Sequence[Evaluator], batches: Sequence[Sequence[int]]
    ) -> None:
        """Evaluate batches side by side, a process each, and write down their records in the order of the queries."""
        pairs = list(zip(evaluators, batches, strict=False))
        for evaluator, batch in pairs:
            evaluator.begin(batch)
        place = {"case": case, "process": 0, "attempt": self.page["attempts"]}
        for evaluator, batch in pairs:
            rows = evaluator.finish(batch)
            self.journal.add_quality(
                place | {"position": p} | row for p, row in zip(batch, rows, strict=True)
            )

    def _quality_processes(self, case: str) -> int:
        """Return how many processes evaluate a case side by side: one on a GPU, several on a CPU where they fit.

        A second thread made the tiny models 1.4 times as fast; a second process has a core to itself.
        """
        if (
            getattr(self.suite.make(case), "device", "cpu") != "cpu"
            and self.page["passport"].get("device") == "cuda"
        ):
            return 1
        processes = min(QUALITY_PROCESSES, len(usable_cores()))
        needed, on_gpu = self.journal.memory_needed([case])
        has = self.page["passport"].get("memory_bytes")
        fits = has is None or processes * needed <= ROOM * has
        return processes if fits and not on_gpu else 1

    def _round(self, clerk: WorkerProcess, process: int, cases: Sequence[str]) -> None:
        """A fresh process per case, taking turns; nothing where all of its records are there already.

        Cases that do not fit side by side take their turns one after the other, each with all of its queries.
        """
        if self.journal.has_round(process, cases):
            self._advance(self.queries.timed * len(cases), "already measured")
            return
        for warning in must(clerk, "surroundings", self._devices()) if self.baton.alone else ():
            self._warn(warning)
        core = self.baton.core()
        if (why := self._why_apart(cases)) is None:
            self._take_turns(clerk, process, cases, core)
        else:
            self._warn(f"{', '.join(cases)} {why}: {ALTERNATE}")
            for case in schedule.turns(cases, process, block=0):
                self._take_turns(clerk, process, (case,), core)

    def _why_apart(self, cases: Sequence[str]) -> str | None:
        """By what the memory pass found; a machine that does not tell its size is trusted to be large enough.

        A process that is capped to a card has it to itself: the whole GPU is asked what lies beside its allocator.
        """
        if len(cases) == 1:
            return None
        if self.suite.plan.gpu_memory:
            return f"have a card of {self.suite.plan.gpu_memory} each"
        needed, gpu = self.journal.memory_needed(cases)
        needed *= 1 if self.baton.alone else 2  # the other session's cases are beside them
        has = self.page["passport"].get("gpu_memory_bytes" if gpu else "memory_bytes")
        if has is None or needed <= ROOM * has:
            return None
        return f"do not fit side by side ({needed / 2**30:.1f} of {has / 2**30:.1f} GiB)"

    def _take_turns(
        self, clerk: WorkerProcess, process: int, cases: Sequence[str], core: int | None
    ) -> None:
        with ExitStack() as stack:
            turns = {case: self._turn(stack, clerk, case, process) for case in cases}
            for case, turn in turns.items():
                self._advance(0, f"process {process + 1}: building and warming up {case}")
                turn.await_build()
            with self.baton.round():
                self._ask_all(turns, process, core)

    def _ask_all(self, turns: dict[str, Turn], process: int, core: int | None) -> None:
        for case, turn in turns.items():
            with self.baton.turn():
                turn.warm_up(self.suite.plan.warmup if case in self.suite.cases else 0, core)
        place = {"process": process, "attempt": self.page["attempts"]}
        blocks = partial(schedule.blocks_in_turn, list(turns), process, self.suite.plan.block)
        for _, positions, case in blocks(min(SYNCHRONISED_QUERIES, self.queries.timed)):
            with self.baton.turn():
                self.journal.add_passes(
                    {"case": case} | place | r for r in turns[case].synchronised(positions)
                )
        for block, positions, case in blocks(self.queries.timed):
            with self.baton.turn():
                here, rows = {"case": case} | place | {"block": block}, turns[case].block(positions)
                self.journal.add_queries(
                    here | {"position": p} | r for p, r in zip(positions, rows, strict=True)
                )
                self._advance(len(positions), f"process {process + 1}: {case}")

    def _turn(self, stack: ExitStack, clerk: WorkerProcess, case: str, process: int) -> Turn:
        worker = stack.enter_context(self.pool.start(self._order(case, process)))
        return Turn(worker, clerk, partial(self._note, case, process))

    def _order(self, case: str, process: int = 0) -> Order:
        keep = (
            None
            if self.suite.plan.save_masks
            else tuple(self.page["gallery"])
            if process == 0
            else ()
        )
        return Order(
            adapter=self.suite.settings(case)["adapter"],
            case=self.suite.make(case),
            data=self.queries.reader,
            process=process,
            keep_masks_of=keep,
            gpu_memory=self.suite.plan.gpu_memory,
            timed=self.queries.timed,
        )

    def _note(self, case: str, process: int, **known: Any) -> None:
        """Writes down what has become known of a case; what its first process said of how it was built stands."""
        entry = self._entry(case)
        for warning in known.pop("warnings", ()):
            self._warn(f"{case}: {warning}")
        if "warmup_queries" in known:
            entry["warmups"].append({"process": process} | {key: known[key] for key in WARMUP})
        for key in ("settings", "clock"):
            if entry[key] is not None and key in known and known[key] != entry[key]:
                self._warn(
                    f"process {process + 1} of {case} was built with another value of {key} than the first"
                )
        entry.update({key: value for key, value in known.items() if entry.get(key) is None})
        self._save()

    def _entry(self, case: str) -> dict[str, Any]:
        return next(entry for entry in self.page["cases"] if entry["name"] == case)

    def _warn(self, text: str) -> None:
        if text not in self.page["warnings"]:
            self.page["warnings"].append(text)

    def _save(self) -> None:
        write_json(self.folder / RUN, self.page)

    def _advance(self, steps: int, what: str) -> None:
        self.done += steps
        cases = len(self.suite.cases)
        passes = (
            cases * self.suite.plan.memory_processes
            + len(self.suite.fits())
            + len(self.page["trainings"])
        )
        timed = self.queries.timed * cases * self.suite.plan.processes
        scored = self.queries.scored * len(self.suite.all_cases())
        if not self.queries.scored:
            timed += self.queries.timed * len(self.suite.controls)
        self.report(self.done, passes + timed + scored, what)
