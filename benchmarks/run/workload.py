"""What a run will do, pass by pass, and about how long each takes.

The times are rough. They come from a table of two numbers for each size of model, one of a CPU and
one of a GPU, and are told before anything was measured. While the run goes on, only their
proportions count: what is left is told from what has been done.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ...harness import nvml
from ...models.lisa.weights_format import RANDOM
from ...reports.formatting import listed
from ..progress import duration
from ..queries import Queries
from ..resolved_suite import ResolvedCase, ResolvedSuite
from ..suite import AUTO

KNOWN_ADAPTERS = ("lisa", "fake")
QUALITY_PASS = "quality"
MOST_NAMES = 6  # of more cases, it is said how many they are
NEED_GPU = "an NVIDIA GPU (device: cuda), and this machine has none"
TRAINING_S = 30.0  # of a training; how long it takes depends on its options
TRIED_SHARE = 0.25  # of the cards, about: on the others the peak decides
# Generated answers have some tens of tokens, each of which passes the language model once.
TOKENS_FACTOR = 10.0
TOKENS_OF_A_QUERY = 4  # so many further tokens take as long as a teacher-forced query


@dataclass(frozen=True)
class Cost:
    """About how long a case takes.

    Attributes:
        start_s: seconds of a fresh process until it is warm: imports, build, warm-up.
        query_s: seconds of a query.
    """

    start_s: float
    query_s: float


# They give the durations of the published runs (results/) within a factor of two. Cases that take
# turns are built at the same time, so a start counts less than its own seconds.
TINY_ON_CPU = Cost(start_s=4.0, query_s=0.05)
TINY_ON_GPU = Cost(start_s=2.0, query_s=0.02)
LARGE_ON_CPU = Cost(start_s=300.0, query_s=60.0)
LARGE_ON_GPU = Cost(start_s=6.0, query_s=0.08)
# Of an adapter that is not ours, nothing is known; the fake is about as fast.
UNKNOWN = Cost(start_s=3.0, query_s=0.1)
BASELINE = Cost(start_s=2.0, query_s=0.01)


@dataclass(frozen=True)
class Pass:
    """One pass of a run.

    Attributes:
        name: such as ``memory``.
        text: what it consists of, such as ``3 models x 2 processes``.
        steps: how many steps it counts in the progress: queries, or processes.
        seconds: about how long it takes.
    """

    name: str
    text: str
    steps: int
    seconds: float


@dataclass(frozen=True)
class Workload:
    """The passes of a run, in the order in which they are carried out."""

    passes: tuple[Pass, ...]

    @property
    def steps(self) -> int:
        """All steps."""
        return sum(one.steps for one in self.passes)

    @property
    def seconds(self) -> float:
        """About how long all passes take."""
        return self.seconds_until(self.steps)

    def seconds_until(self, steps: int) -> float:
        """Return about how long the first so many steps take."""
        seconds = 0.0
        for one in self.passes:
            done = min(steps, one.steps)
            seconds += one.seconds * done / one.steps
            steps -= done
        return seconds


def workload_of(suite: ResolvedSuite, queries: Queries) -> Workload:
    """Return the passes of a suite. A pass without any step is left out.

    Args:
        suite: what is measured.
        queries: what it is measured on.
    """
    plan = suite.plan
    on_gpu = nvml.count() > 0
    costs = {case.name: _cost(case, on_gpu) for case in suite.cases}
    of_models = [costs[case.name] for case in suite.models]
    starts_s = sum(cost.start_s for cost in of_models)
    query_s = sum(cost.query_s for cost in of_models)
    models = _counted(len(suite.models), "model", "models")
    in_turn = ", taking turns" if len(suite.models) > 1 else ""

    searches = sum(case.batch == AUTO for case in suite.models)
    trials = f"trials to choose it, for {searches} of {models}"
    passes = [_training_pass(suite), Pass("batch", trials, searches, starts_s)]

    processes = _counted(plan.memory_processes, "process", "processes")
    memory_queries = queries.count
    if plan.memory_queries != "all":
        memory_queries = min(plan.memory_queries, queries.count)
    seconds = plan.memory_processes * (starts_s + memory_queries * query_s)
    steps = plan.memory_processes * len(suite.models)
    passes.append(Pass("memory", f"{models} x {processes}", steps, seconds))

    passes.append(_fits_pass(suite, costs, memory_queries))
    passes.append(_quality_pass(suite, costs, queries.scored))
    profiled = len(suite.models) if plan.profile else 0
    passes.append(Pass("profile", models, profiled, starts_s))

    rounds = _counted(plan.processes, "process", "processes")
    timed = _counted(queries.timed, "query", "queries")
    seconds = plan.processes * (starts_s + queries.timed * query_s)
    steps = plan.processes * queries.timed * len(suite.models)
    if suite.evaluates_baselines_in_rounds(queries.scored):
        steps += queries.timed * len(suite.baselines)
    passes.append(Pass("timed", f"{models} x {rounds} x {timed}{in_turn}", steps, seconds))
    return Workload(tuple(one for one in passes if one.steps))


def _training_pass(suite: ResolvedSuite) -> Pass:
    """Return the trainings, and those that are limited to a card."""
    trainings = len(suite.trainings) * suite.plan.training_seeds
    seconds = trainings * TRAINING_S
    text = f"{trainings} trainings"
    on_cards = len(suite.training_fits)
    if on_cards:
        # The peak of the training decides for most cards.
        seconds += TRIED_SHARE * on_cards * TRAINING_S
        text += f", {on_cards} times one on a card, tried where its peak is near the size"
    return Pass("training", text, trainings + on_cards, seconds)


def _fits_pass(suite: ResolvedSuite, costs: Mapping[str, Cost], memory_queries: int) -> Pass:
    """Return the processes that are limited to a card; on most cards the peak decides."""
    seconds = 0.0
    for case, _ in suite.fits:
        cost = costs[case]
        seconds += TRIED_SHARE * (cost.start_s + memory_queries * cost.query_s)
    fits = len(suite.fits)
    text = f"{fits} times a model on a card, tried where its peak is near the size"
    return Pass("fits", text, fits, seconds)


def _quality_pass(suite: ResolvedSuite, costs: Mapping[str, Cost], scored_queries: int) -> Pass:
    """Return the quality pass. Cases with random weights have no quality: they are skipped."""
    with_quality = [case for case in suite.cases if _has_weights(case)]
    seconds = 0.0
    for case in with_quality:
        seconds += costs[case.name].start_s + scored_queries * costs[case.name].query_s
    text = "none: the weights are random"
    if with_quality:
        cases = _counted(len(with_quality), "case", "cases")
        text = f"{cases} x {_counted(scored_queries, 'query', 'queries')}, each once"
    return Pass(QUALITY_PASS, text, scored_queries * len(suite.cases), seconds)


def announcement(suite: ResolvedSuite, queries: Queries, workload: Workload) -> str:
    """Return what will be run and about how long it takes, in a few lines."""
    names = [case.name for case in suite.models]
    baselines = [case.name for case in suite.baselines]
    beside = f", with the trivial baselines {listed(baselines)}" if baselines else ""
    lines = [
        f"{suite.name}: {_named(names)}{beside}",
        f"  data     {_counted(queries.count, 'query', 'queries')} of {queries.description}",
    ]
    lines += [f"  {one.name:8} {one.text}" for one in workload.passes]
    about = duration(workload.seconds)
    on_gpu = nvml.count() > 0
    need_gpu = [case.name for case in suite.models if case.device.startswith("cuda")]
    if need_gpu and not on_gpu:
        takes = "takes" if len(need_gpu) == 1 else "take"
        lines.append(f"cannot run here: {_named(need_gpu)} {takes} {NEED_GPU}")
    elif any(case.adapter not in KNOWN_ADAPTERS for case in suite.models):
        lines.append(f"about {about}, if a query takes {UNKNOWN.query_s} s")
    else:
        lines.append(f"about {about}, a rough estimate: more on a slow or a busy machine")
    compiled = sum(_is_compiled(case, on_gpu) for case in suite.models)
    if compiled:
        models = _counted(compiled, "model", "models")
        lines.append(f"compiles {models} first, unless an earlier run did: about 30 s each")
    return "\n".join(lines)


def _named(cases: Sequence[str]) -> str:
    return f"{len(cases)} cases" if len(cases) > MOST_NAMES else listed(cases)


def _is_compiled(case: ResolvedCase, on_gpu: bool) -> bool:
    """Return whether a case's layers are compiled, once for all runs on this machine."""
    if case.adapter != "lisa" or not on_gpu or case.device == "cpu":
        return False
    return case.config.execution in ("auto", "graphed", "compiled")


def _cost(case: ResolvedCase, on_gpu: bool) -> Cost:
    """Return about how long a case takes.

    Args:
        case: a model or a trivial baseline.
        on_gpu: whether there is a GPU.
    """
    if case.role != "model":
        return BASELINE
    if case.adapter != "lisa":
        return UNKNOWN
    is_on_gpu = on_gpu and case.device != "cpu"
    is_tiny = case.config.preset == "tiny"
    if is_tiny:
        cost = TINY_ON_GPU if is_on_gpu else TINY_ON_CPU
    else:
        cost = LARGE_ON_GPU if is_on_gpu else LARGE_ON_CPU
    if case.config.answer == "generated":
        factor = TOKENS_FACTOR
        if not _has_weights(case):  # random weights hardly ever end an answer
            factor = max(factor, case.config.max_new_tokens / TOKENS_OF_A_QUERY)
        return replace(cost, query_s=factor * cost.query_s)
    return cost


def _has_weights(case: ResolvedCase) -> bool:
    return getattr(case.config, "weights", None) != RANDOM  # other adapters may have no weights


def _counted(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"
