"""A campaign: quality at the scale of a data set, killed on the way, with flat memory.

    python tests/campaigns/scale.py --queries 10000 --images 3000 --alone 1000

It generates small images with several queries each, and has the tiny dual evaluate them in two
processes side by side, which are killed by SIGKILL after each third and resumed. Each process
computes with one thread. One process evaluates the first queries alone. The records must be the
same, each query once. No process may hold more memory at the end than after a quarter of its
queries, but for `MAY_GROW_BYTES`. How fast both were is printed, which means something on an idle
machine; and the CPU time of a query, which depends less on other programs.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import numpy as np
import psutil
import yaml
from PIL import Image
from raw_runs import raw_run

SIDE_PX = 48
MAY_GROW_BYTES = 32 << 20  # of a process: the queries' positions, and slack of its allocator
LOOKS_EVERY_S = 0.1
MEMORY_EVERY_S = 2.0  # to read it takes the time of several queries
Lines = list[dict[str, object]]


def write_data(root: Path, images: int, queries: int) -> None:
    """Write images of noise with a rectangle as the target, and so many wordings of them in all."""
    folder = root / "val"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(images):
        wordings = queries // images + (number < queries % images)
        pixels = random.integers(0, 256, (SIDE_PX, SIDE_PX, 3), np.uint8)
        left, top = random.integers(0, SIDE_PX // 2, 2).tolist()
        right, bottom = left + 16, top + 12
        pixels[top:bottom, left:right] = random.integers(0, 256, 3)
        name = f"{number:06}"
        Image.fromarray(pixels).save(folder / f"{name}.jpg")
        corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
        shape = {"label": "target", "labels": ["target"], "shape_type": "polygon"}
        shape |= {"image_name": f"{name}.jpg", "points": corners}
        texts = [f"the rectangle of one colour, seen {time} times" for time in range(wordings)]
        annotation = {"text": texts, "is_sentence": False, "shapes": [shape]}
        (folder / f"{name}.json").write_text(json.dumps(annotation))


def write_suite(path: Path, data: Path) -> None:
    """Write a suite whose work is the quality pass of the tiny dual."""
    plan = {"processes": 1, "block": 1, "timed_queries": 1, "warmup": 0, "beside": False}
    plan |= {"memory_processes": 1, "memory_queries": 1, "quality_threads": 1}
    content = {
        "title": "quality at scale",
        "reference": "dual",
        "data": {"root": str(data), "texts": "all"},
        "plan": plan,
        "cases": {
            "dual": {"adapter": "lisa", "preset": "tiny", "weights": "packaged", "device": "cpu"}
        },
    }
    path.write_text(yaml.safe_dump(content))


@dataclass
class Watched:
    """What was seen of a run while it evaluated.

    Attributes:
        seconds: from the first line of the journal that was seen to the last one.
        queries: how many lines were written meanwhile.
        looks: at each process, by what it is.
        killed: whether it was killed on the way.
    """

    seconds: float = 0.0
    queries: int = 0
    looks: dict[str, list["Look"]] = field(default_factory=dict)
    killed: bool = False

    @property
    def cpu_s_of_query(self) -> float:
        """The CPU time of all processes together for a query, in seconds."""
        first = min(looks[0].count for looks in self.looks.values())
        last = max(looks[-1].count for looks in self.looks.values())
        cpu_s = sum(looks[-1].cpu_s - looks[0].cpu_s for looks in self.looks.values())
        return cpu_s / (last - first) if last > first else float("nan")


@dataclass(frozen=True)
class Look:
    """A process at a length of the journal: its own memory, and the CPU time that it has had."""

    count: int
    held_bytes: int
    cpu_s: float


def watch(words: list[object], folder: Path, kill_at: int | None) -> Watched:
    """Carry out a command, and look at its journal and at its processes until it ends.

    Args:
        words: of the command.
        folder: of the run.
        kill_at: kill it by SIGKILL at so many lines of the journal; None: let it end.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "lisabench", *map(str, words)]
    command = subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL)
    seen = Watched()
    begun: tuple[float, int] | None = None
    before = _lines_in(folder / "quality.jsonl")
    looked_at_s = 0.0
    while command.poll() is None:
        count, now_s = _lines_in(folder / "quality.jsonl"), time.monotonic()
        if begun is None and count > before:
            begun = now_s, count
        if begun is not None and count > begun[1] + seen.queries:
            seen.seconds, seen.queries = now_s - begun[0], count - begun[1]
            if now_s > looked_at_s + MEMORY_EVERY_S:
                looked_at_s = now_s
                _look_at_processes(command.pid, count, seen)
        if kill_at is not None and count >= kill_at:
            command.send_signal(signal.SIGKILL)
            seen.killed = True
        time.sleep(LOOKS_EVERY_S)
    if not seen.killed and command.returncode not in (0, 1):  # 1: no better than a trivial baseline
        raise RuntimeError(f"{words} ended with {command.returncode}")
    return seen


def _look_at_processes(session: int, count: int, seen: Watched) -> None:
    """Look at a session and its workers, at a length of the journal."""
    try:
        processes = [psutil.Process(session), *psutil.Process(session).children(recursive=True)]
    except psutil.Error:
        return
    for process in processes:
        try:
            name = "session" if process.pid == session else f"worker {process.pid}"
            times = process.cpu_times()
            look = Look(count, process.memory_full_info().uss, times.user + times.system)
            seen.looks.setdefault(name, []).append(look)
        except psutil.Error:  # it has ended meanwhile
            continue


def _lines_in(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") if journal.is_file() else 0


def growth_bytes(looks: list[Look]) -> int:
    """Return by how much a process has grown since a quarter of its queries were evaluated."""
    first, last = looks[0].count, looks[-1].count
    quarter = first + (last - first) / 4
    early = [look.held_bytes for look in looks if look.count <= quarter]
    late = [look.held_bytes for look in looks if look.count > quarter]
    return max(late) - max(early) if late else 0


def campaign(queries: int, images: int, alone: int, workspace: Path) -> Iterator[str]:
    """Evaluate in one process and in two, and yield a sentence for each fault and each number."""
    write_data(workspace / "data", images, queries)
    suite = workspace / "scale.yaml"
    write_suite(suite, workspace / "data")

    one, two = workspace / "one", workspace / "two"
    words: list[object] = ["run", suite, "--set", "quality_processes=1", "--out", one]
    of_one = watch([*words, "--set", f"quality_queries={alone}"], one, None)
    parts = []
    words = ["run", suite, "--set", "quality_processes=2", "--out", two]
    for third in (1, 2, 3):
        kill_at = None if third == 3 else queries * third // 3
        parts.append(watch([*words, "--resume"] if third > 1 else words, two, kill_at))

    yield from _lost_or_doubled(one, two, queries, alone)
    if [part.killed for part in parts] != [True, True, False]:
        yield "FAULT: it was not killed twice"
    for number, seen in enumerate([of_one, *parts]):
        for name, looks in seen.looks.items():
            yield from _memory(f"start {number}, {name}", looks)
    yield f"one process: {_speed([of_one])}; two: {_speed(parts)}"


def _memory(name: str, looks: list[Look]) -> Iterator[str]:
    """Yield how much memory a process held, and a fault where it has grown."""
    held_mib = [look.held_bytes / 2**20 for look in looks]
    yield (
        f"{name}: {min(held_mib):.0f} to {max(held_mib):.0f} MiB, from {looks[0].count} to "
        f"{looks[-1].count} queries"
    )
    grown_bytes = growth_bytes(looks)
    if grown_bytes > MAY_GROW_BYTES:
        yield f"FAULT: {name} has grown by {grown_bytes / 2**20:.0f} MiB"


def _speed(parts: list[Watched]) -> str:
    rate = sum(part.queries for part in parts) / sum(part.seconds for part in parts)
    cpu_ms = 1000 * sum(part.cpu_s_of_query for part in parts) / len(parts)
    return f"{rate:.1f} queries/s with {cpu_ms:.0f} ms of CPU time each"


def _lost_or_doubled(one: Path, two: Path, queries: int, alone: int) -> Iterator[str]:
    """Yield where the records of two processes are not those of one, or not each there once."""
    expected, found = _records(one), _records(two)
    if [line["position"] for line in found] != list(range(queries)):
        yield f"FAULT: after the kills there are {len(found)} records of {queries} queries"
    if len({line["sample_id"] for line in found}) != queries:
        yield "FAULT: after the kills a query is there twice"
    if len(expected) != alone or found[:alone] != expected:
        yield "FAULT: after the kills the records are others than of one process"


def _records(folder: Path) -> Lines:
    lines = []
    for line in raw_run(folder).quality:
        lines.append({key: value for key, value in line.items() if key != "attempt"})
    return sorted(lines, key=lambda line: line["position"])


def main() -> None:
    """Carry out the campaign as the command line says, and end with 1 after a fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=10000)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--alone", type=int, default=1000, help="queries of the single process")
    given = parser.parse_args()
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        for sentence in campaign(given.queries, given.images, given.alone, Path(folder)):
            faults += sentence.startswith("FAULT")
            print(sentence, flush=True)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
