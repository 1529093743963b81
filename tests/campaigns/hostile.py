"""A campaign: an adapter of somebody else that misbehaves costs its own case, and nothing else.

    python tests/campaigns/hostile.py --adapters 60 --seed 1

Each run measures a sound case beside an adapter that does one harmful thing: at a random query and
in a random method, or while it is imported. The run must end with exit code 0, 2 or 5 and without a
traceback; the sound case must be measured whole; each query of the other must have a status; and
nothing may be left.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import yaml

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from disturbed import Activity, a_run, command_line, faults_at_end, start
from outside_adapter import CORNER
from sessions import QUICK, QUICK_PLAN

from lisabench.harness.contract import STAGES
from lisabench.harness.errors import LisabenchError
from lisabench.harness.records.run import read_run

SUCCESS, USAGE, FAILED = 0, 2, 5
TIME_LIMIT_S = 20  # of a query: a hung one is ended by it
# What a method does, in Python.
MISDEEDS = {
    "raises": "raise ValueError('a\\nb \\x1b[31m ::error::c')",
    "raises what cannot be shown": "raise type('E', (Exception,), {'__str__': lambda e: 1 / 0})()",
    "raises an interrupt": "raise KeyboardInterrupt",
    "leaves": "sys.exit('I leave')",
    "leaves at once": "os._exit(0)",
    "crashes": "os.kill(os.getpid(), signal.SIGSEGV)",
    "aborts": "os.abort()",
    "is killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "stops": "os.kill(os.getpid(), signal.SIGSTOP)",
    "hangs": "time.sleep(3600)",
    "hangs in native code": "re.match('(a+)+$', 'a' * 64 + 'b')",
    "recurses": "(lambda f: f(f))(lambda f: f(f))",
    "takes all memory": "raise MemoryError",
    "leaves a child": "subprocess.Popen(['sleep', '3600'])",
    "leaves a thread": "threading.Thread(target=time.sleep, args=(3600,)).start()",
    "closes its files": "os.closerange(3, 1000)",
    "closes its streams": "os.close(1); os.close(2)",
    "writes noise": "os.write(1, bytes(range(256)) * 1000); print('\\x1b[2J', file=sys.stderr)",
    "ignores signals": "[signal.signal(s, signal.SIG_IGN) for s in (15, 2, 1)]; time.sleep(3600)",
    "changes the folder": "os.chdir('/')",
    "clears the environment": "os.environ.clear()",
    "breaks a library": "sys.modules['json'].dumps = None",
    "returns nothing": "return None",
    "returns an odd thing": "return object()",
    "returns what cannot be sent": "return lambda: 0",
    "exits its thread": "import _thread; _thread.exit()",
    "warns": "import warnings; warnings.warn('\\x1b[31m' * 1000)",
    "turns numbers": "np.seterr(all='raise')",
}
METHODS = ("__init__", *STAGES, "close")
# What a module does while the command itself imports it. Nothing that harms the command in another
# way: a crash ends it, and an import has no time limit. Nor what outlives an import: programs that
# it starts, and threads (see docs/adapters.md).
IN_THE_COMMAND = (
    "raises",
    "raises what cannot be shown",
    "raises an interrupt",
    "leaves",
    "leaves at once",
    "recurses",
    "takes all memory",
    "writes noise",
    "exits its thread",
    "warns",
    "turns numbers",
)
# In a worker, it may do whatever a method may. A module returns nothing.
IN_A_WORKER = tuple(name for name in MISDEEDS if not name.startswith("returns"))
IMPORTERS = {
    "the command": ("multiprocessing.parent_process() is None", IN_THE_COMMAND),
    "a worker": ("multiprocessing.parent_process() is not None", IN_A_WORKER),
    "every process": ("True", IN_THE_COMMAND),
}
IMPORTS = 0.3  # the share of adapters that misbehave while they are imported
QUERIES, PROCESSES = 6, 2
NEEDED = "import multiprocessing, os, re, signal, subprocess, sys, threading, time\n"
HOSTILE = """
class Hostile(Corner):
    calls = 0

    def {method}(self, *given):
        Hostile.calls += 1
        if Hostile.calls > {calls}:
            {misdeed}
        return super().{method}(*given)

def build(case: Case, probe): return Hostile(case)
"""
HOSTILE_IMPORT = """
if {condition}:
    {misdeed}
"""


@dataclass(frozen=True)
class HostileAdapter:
    """An adapter that does one harmful thing.

    Attributes:
        description: what it does, and when.
        source: of its file.
    """

    description: str
    source: str


def campaign(activity: Activity, adapters: int, seed: int, workspace: Path) -> Iterator[str]:
    """Measure so many hostile adapters, and yield a sentence for each fault."""
    random = Random(seed)
    for number in range(adapters):
        place, mark = workspace / str(number), f"{workspace.name}-{number}"
        adapter = _while_imported(random) if random.random() < IMPORTS else _in_a_method(random)
        suite = _suite(place, adapter)
        measured = replace(activity, begin=lambda folder, suite=suite: _words(suite, folder))
        run = start(measured, place / "out", mark)
        faults = list(faults_at_end(measured, run, mark, (SUCCESS, USAGE, FAILED)))
        if run.returncode in (SUCCESS, FAILED):
            faults += _faults_of_records(place / "out")
        for fault in faults:
            yield f"{adapter.description}: {fault}"


def _in_a_method(random: Random) -> HostileAdapter:
    misdeed, method = random.choice(list(MISDEEDS)), random.choice(METHODS)
    calls = 0 if method in ("__init__", "close") else random.randrange(QUERIES + 2)
    hostile = HOSTILE.format(misdeed=MISDEEDS[misdeed], method=method, calls=calls)
    description = f"{misdeed} in {method} after {calls} calls"
    return HostileAdapter(description, CORNER + NEEDED + hostile)


def _while_imported(random: Random) -> HostileAdapter:
    importer = random.choice(list(IMPORTERS))
    condition, misdeeds = IMPORTERS[importer]
    misdeed = random.choice(misdeeds)
    hostile = HOSTILE_IMPORT.format(condition=condition, misdeed=MISDEEDS[misdeed])
    description = f"{misdeed} while {importer} imports it"
    return HostileAdapter(description, CORNER + NEEDED + hostile)


def _suite(place: Path, adapter: HostileAdapter) -> Path:
    """Write an adapter, and a suite that measures it beside a sound case."""
    place.mkdir()
    file = place / "hostile.py"
    file.write_text(adapter.source)
    plan = QUICK_PLAN | {"processes": PROCESSES, "time_limit_s": TIME_LIMIT_S}
    content = {
        "title": "a sound case and a hostile one",
        "reference": "sound",
        "data": {"count": QUERIES},
        "plan": plan,
        "cases": {"sound": QUICK, "hostile": {"adapter": str(file)}},
    }
    suite = place / "suite.yaml"
    suite.write_text(yaml.safe_dump(content))
    return suite


def _words(suite: Path, folder: Path) -> tuple[object, ...]:
    return "run", suite, "--out", folder


def _faults_of_records(folder: Path) -> Iterator[str]:
    """Yield what the records of a run lack."""
    try:
        run = read_run(folder)
    except LisabenchError as error:
        yield f"its records cannot be read: {error}"
        return
    sound, hostile = run.case("sound"), run.case("hostile")
    if sound.entry.error is not None or len(sound.timed) != QUERIES * PROCESSES:
        yield f"the sound case has {len(sound.timed)} times, and the error {sound.entry.error}"
    if len(sound.scored) != QUERIES or not all(query.answered for query in sound.scored):
        yield "the sound case is not scored"
    if hostile.entry.error is None and len(hostile.queries) != QUERIES * PROCESSES:
        yield f"the hostile case has {len(hostile.queries)} records, and no error"


if __name__ == "__main__":
    activities = {"run": a_run}
    command_line(__doc__.splitlines()[0], campaign, "adapters", 10, activities)
