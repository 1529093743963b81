"""A campaign: gates of trees with a known change, to see what `run --against` finds.

    python tests/campaigns/planted_gates.py --out runs/planted

It copies this package into a git repository of its own for each plant (`tests/support/plants.py`),
commits it, plants the change into the working tree, and runs ``lisabench run gate-gpu --against
HEAD`` there, twice. What is planted has a known size. The products of matrices are timed alone, as
a CUDA graph on a GPU, and there are as many of them as take the share of a query that the first
gate of the unchanged tree has measured. What the stage takes more, in the pass that waits for the
GPU, is printed beside it.

    OUT/calibration.json      how long a query and a product take, and so how many are planted
    OUT/PLANT/1, OUT/PLANT/2  the folders of the gates, and gate.json: the exit code and the seconds

Gates that have come to a verdict are not run again. With ``--minutes 9`` none is begun that would
not end within nine minutes; the same command goes on later.

Exit code 0: all gates have come to a verdict; 3: some are left; 5: one broke, and is left.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from places import ROOT
from plants import PLANTS, UNCHANGED, WORK, Plant
from small_clone import write_clone

GATE, CALIBRATION = "gate.json", "calibration.json"
DONE, LEFT, BROKEN = 0, 3, 5
# A gate that ends with one of these has come to a verdict.
VERDICTS = (0, 1, 3)
MEASUREMENT_S = 180.0  # of the first gate, before any has ended
PRODUCTS_TIMED = 200
# The first third is left out: an idle GPU takes some tenths of a second to reach its clock.
TIMES = 300
# Prints the milliseconds of a product; its argument is how many are timed at once.
TIME_PRODUCTS = f"""
import statistics, sys, time
{WORK}
products = int(sys.argv[1])
device = "cuda" if torch.cuda.is_available() else "cpu"
work = PlantedWork(device, products)
wait = torch.cuda.synchronize if device == "cuda" else lambda: None
work.do()
wait()
again = work.do
if device == "cuda":
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work.do()
    again = graph.replay
seconds = []
for _ in range({TIMES}):
    wait()
    start = time.perf_counter()
    again()
    wait()
    seconds.append(time.perf_counter() - start)
print(1e3 * statistics.median(seconds[{TIMES} // 3 :]) / products)
"""


@dataclass(frozen=True)
class Calibration:
    """How large the planted work is.

    Attributes:
        query_ms: a query of the unchanged tree, at the median.
        product_ms: one product of matrices, alone.
    """

    query_ms: float
    product_ms: float

    def products(self, plant: Plant) -> int:
        """Return how many products take the planted share of a query; none of a plant without."""
        if not plant.work:
            return 0
        return max(1, round(plant.work * self.query_ms / self.product_ms))

    def share(self, plant: Plant) -> float:
        """Return the share of a query that the products take, timed alone."""
        return self.products(plant) * self.product_ms / self.query_ms


@dataclass(frozen=True)
class Gate:
    """A gate of the campaign, and its folder.

    Attributes:
        plant: what is changed.
        number: of the gate, from 1.
        folder: of its records.
    """

    plant: Plant
    number: int
    folder: Path

    @property
    def has_ended(self) -> bool:
        """Whether it has come to a verdict."""
        return (self.folder / GATE).exists()

    @property
    def ended(self) -> dict[str, Any]:
        """What is known of a gate that has ended."""
        return json.loads((self.folder / GATE).read_text())

    def measurements(self) -> list[Path]:
        """Return the folders of its measurements: the first, and the one that was made again."""
        folders = [self.folder, *sorted(self.folder.glob("again/*"))]
        return [folder for folder in folders if (folder / "head" / "run.json").exists()]


class Campaign:
    """Runs the gates that are missing.

    Args:
        out: the folder of the campaign.
        workspace: for the trees, which are removed with it.
        suite: name or file.
        changes: of the suite, as ``--set`` takes them.
        plants: in the order in which they are tried.
        repeats: gates of each.
    """

    def __init__(
        self,
        out: Path,
        workspace: Path,
        suite: str,
        changes: Sequence[str],
        plants: Sequence[Plant],
        repeats: int,
    ) -> None:
        self._out = out
        self._workspace = workspace
        self._suite = suite
        self._changes = changes
        self._clone: Path | None = None
        self.gates = []
        for number in range(1, repeats + 1):
            for plant in plants:
                self.gates.append(Gate(plant, number, out / plant.name / str(number)))

    @property
    def left(self) -> list[Gate]:
        """The gates that have not ended."""
        return [gate for gate in self.gates if not gate.has_ended]

    def measurement_s(self) -> float:
        """Return how long the longest measurement up to now has taken."""
        seconds = []
        for gate in self.gates:
            if gate.has_ended:
                seconds += seconds_of_measurements(gate)
        return max(seconds, default=MEASUREMENT_S)

    def run(self, gate: Gate) -> int:
        """Run a gate, note its verdict if it has one, and return its exit code."""
        if gate.folder.exists():
            shutil.rmtree(gate.folder)  # it was cut short
        products, share = 0, 0.0
        if gate.plant.work:
            calibration = self._calibration()
            products, share = calibration.products(gate.plant), calibration.share(gate.plant)
        tree = self._tree(gate.plant, products)
        begun_s = time.monotonic()
        words = ["run", self._suite, *self._set(), "--against", "HEAD", "--out", gate.folder]
        code = lisabench(tree, *words)
        if code not in VERDICTS:
            return code
        ended = {
            "plant": asdict(gate.plant),
            "number": gate.number,
            "exit_code": code,
            "seconds": round(time.monotonic() - begun_s, 1),
            "products": products,
            "share_of_a_query": round(share, 6),
        }
        (gate.folder / GATE).write_text(json.dumps(ended, indent=1) + "\n")
        return code

    def _set(self) -> list[str]:
        words = []
        for change in self._changes:
            words += ["--set", change]
        return words

    def _tree(self, plant: Plant, products: int) -> Path:
        """Return a repository with the package, into whose working tree the plant was put."""
        if self._clone is None:
            self._clone = write_clone(self._workspace / "clone")
        tree = self._workspace / plant.name / "tree"
        if not tree.exists():
            shutil.copytree(self._clone, tree)
            plant.apply(tree, products)
        return tree

    def _calibration(self) -> Calibration:
        """Return how long a query and a product take; measure it if that is not noted yet."""
        file = self._out / CALIBRATION
        if not file.exists():
            calibration = Calibration(self._query_ms(), time_product(self._tree(UNCHANGED, 0)))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(asdict(calibration), indent=1) + "\n")
        return Calibration(**json.loads(file.read_text()))

    def _query_ms(self) -> float:
        """Return a query's median of an unchanged tree: of a gate of it, or of a short run."""
        folder = self._out / UNCHANGED.name / "1" / "base"
        if not (folder.parent / GATE).exists() or not (folder / "samples.jsonl").exists():
            folder = self._workspace / "query"
            few = ["--set", "plan.processes=1", "--set", "plan.memory_processes=0"]
            tree = self._tree(UNCHANGED, 0)
            code = lisabench(tree, "run", self._suite, *self._set(), *few, "--out", folder)
            if code != 0:
                raise SystemExit(f"a run of the unchanged tree ended with exit code {code}")
        lines = (folder / "samples.jsonl").read_text().splitlines()
        times_ns = [json.loads(line)["latency_ns"] for line in lines]
        return statistics.median(times_ns) / 1e6


def lisabench(tree: Path, *words: object) -> int:
    """Run the lisabench of a tree in it, and return its exit code; what it prints is shown."""
    home = tree.parent / "home"
    if not home.exists():
        home.mkdir()
        (home / "lisabench").symlink_to(tree)
    # PYTHONSAFEPATH keeps Python from putting the tree itself first, which has a folder `datasets`.
    paths = [str(home)]
    if os.environ.get("PYTHONPATH"):
        paths.append(os.environ["PYTHONPATH"])
    variables = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}
    line = [sys.executable, "-m", "lisabench.cli", *map(str, words)]
    done = subprocess.run(line, cwd=tree, env=os.environ | variables, check=False)
    return done.returncode


def time_product(tree: Path) -> float:
    """Return the milliseconds of one product of matrices, in a process of its own."""
    line = [sys.executable, "-c", TIME_PRODUCTS, str(PRODUCTS_TIMED)]
    done = subprocess.run(line, cwd=tree.parent, capture_output=True, text=True, check=True)
    return float(done.stdout)


# What came of it


def seconds_of_measurements(gate: Gate) -> list[float]:
    """Return how long each measurement of a gate took, from its first process to its last."""
    seconds = []
    for measurement in gate.measurements():
        times = []
        for side in ("base", "head"):
            manifest = json.loads((measurement / side / "run.json").read_text())
            times += [manifest["started"], manifest["finished"]]
        moments = [datetime.fromisoformat(text) for text in times if text]
        seconds.append((max(moments) - min(moments)).total_seconds())
    return seconds


def described(gate: Gate) -> str:
    """Return what came of a gate, in one line."""
    ended = gate.ended
    seconds = " and ".join(f"{number:.0f}" for number in seconds_of_measurements(gate))
    parts = [
        f"{gate.plant.name} {gate.number}: exit code {ended['exit_code']}",
        f"{ended['seconds']:.0f} s, of which measuring {seconds or 'none'}",
    ]
    if ended["products"]:
        parts.append(
            f"planted {ended['products']} products, alone {100 * ended['share_of_a_query']:.2f} %"
        )
    judged = gate.folder / "check.json"
    if judged.exists():
        checks = {check["metric"]: check for check in json.loads(judged.read_text())["checks"]}
        for metric in ("time.end_to_end", "energy.query", "memory.peak", "memory.weights"):
            if checks.get(metric, {}).get("change") is not None:
                parts.append(f"{metric} {_ratios(checks[metric])}")
        parts.append(_planted_in_the_stage(checks))
    return "; ".join(part for part in parts if part)


def _ratios(check: Mapping[str, Any]) -> str:
    """Return the verdict and the ratio with its interval, and that of the first measurement."""
    text = f"{check['verdict']} {_ratio(check)}"
    if check["first"] is not None:
        text += f", at first {_ratio(check['first'])}"
    return text


def _ratio(check: Mapping[str, Any]) -> str:
    if check["low"] is None:
        return f"{check['change']:.4f}x"
    return f"{check['change']:.4f}x [{check['low']:.4f}, {check['high']:.4f}]"


def _planted_in_the_stage(checks: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what the mask decoder takes more, as a share of a query; empty where it is unknown."""
    whole, stage = checks.get("time.end_to_end"), checks.get("time.decoder")
    if not whole or not stage or not whole["before"] or stage["change"] is None:
        return ""
    more_ns = (stage["change"] - 1) * stage["before"]
    return f"decoder {more_ns / 1e6:+.3f} ms, {100 * more_ns / whole['before']:+.2f} % of a query"


def run_gates(campaign: Campaign, minutes: float, show: Callable[[str], object] = print) -> int:
    """Run the gates that are missing, as far as the time allows; return the exit code."""
    until_s = time.monotonic() + 60 * minutes
    for gate in campaign.gates:
        if not gate.has_ended:
            # What is red is measured twice.
            measurements = 1 if gate.plant == UNCHANGED else 2
            if time.monotonic() + measurements * campaign.measurement_s() > until_s:
                show(f"{len(campaign.left)} gates are left: run the same command again")
                return LEFT
            code = campaign.run(gate)
            if not gate.has_ended:
                show(f"{gate.plant.name} {gate.number} broke with exit code {code}")
                return BROKEN
        show(described(gate))
    return DONE


def publish(gates: Sequence[Gate], results: Path) -> None:
    """Copy the records of the gates that have ended, as they lie below `results`.

    What they were merged from is left out, and the second measurement is in the folder `again`.
    """
    for gate in gates:
        if not gate.has_ended:
            continue
        folder = results / gate.plant.name / str(gate.number)
        copies = [folder, folder / "again"]
        for measurement, copy in zip(gate.measurements(), copies, strict=False):
            for side in ("base", "head"):
                shutil.copytree(measurement / side, copy / side, dirs_exist_ok=True)
        for name in (GATE, "check.json", "comment.md"):
            shutil.copyfile(gate.folder / name, folder / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--suite", default="gate-gpu", help="name, or file from this folder")
    parser.add_argument("--set", action="append", default=[], help="a change of the suite")
    parser.add_argument("--plants", nargs="+", default=list(PLANTS), choices=list(PLANTS))
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--publish", type=Path, help="copy the records of all gates into it")
    arguments = parser.parse_args()
    suite = arguments.suite
    if Path(suite).exists():
        suite = str(Path(suite).resolve())
    with tempfile.TemporaryDirectory(prefix="lisabench-gates-") as workspace:
        plants = [PLANTS[name] for name in arguments.plants]
        campaign = Campaign(
            arguments.out.resolve(), Path(workspace), suite, arguments.set, plants,
            arguments.repeats,
        )  # fmt: skip
        code = run_gates(campaign, arguments.minutes)
        if arguments.publish is not None:
            publish(campaign.gates, arguments.publish)
        sys.exit(code)


if __name__ == "__main__":
    print(f"gates of {ROOT}")
    main()
