"""A campaign: what the system gives too little of ends in one line, and can be resumed.

    python tests/campaigns/scarcity.py --limits 60 --seed 1
    python tests/campaigns/scarcity.py --limits 20 --of training     (or study, or gate)

Each run gets one limit: a disk that is full after some bytes, or that becomes read-only after some
seconds; of the size of its files, of open files, of memory, or of processes. It must end with exit
code 5 or 2 and without a traceback, or not be disturbed at all. Resumed without the limit, it must
lose and double nothing.

The disk is one in memory, which only root can mount. Without root these limits are left out.
"""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from disturbed import Activity, Run, command_line, exit_code, faults_at_end, start

LARGEST_FILE_BYTES = 40_000  # about the journal of timed queries
LARGEST_DISK_KIB = 200  # about all records of a run
LONGEST_S = 12  # about a run
# With less, Python itself cannot start.
FEWEST_OPEN_FILES = 8
LEAST_MEMORY_MIB = 900
MOST_MEMORY_MIB = 6000
MOST_PROCESSES = 40
SUCCESS, USAGE, FAILED = 0, 2, 5
# The system limits the processes of any user but root. This one has no name, and keeps root's right
# to read and write.
SOMEBODY = 54321
AS_SOMEBODY = (
    "setpriv",
    f"--reuid={SOMEBODY}",
    f"--regid={SOMEBODY}",
    "--clear-groups",
    "--inh-caps=+dac_override",
    "--ambient-caps=+dac_override",
)


@dataclass(frozen=True)
class Limit:
    """What a run gets too little of.

    Attributes:
        name: in words.
        set: is called in its process before all else.
        prefix: a command that runs its command.
        disk_kib: size of the disk that its folder is on; None: it has no disk of its own.
        read_only_after_s: when that disk becomes read-only; None: never.
    """

    name: str
    set: Callable[[], None] | None = None
    prefix: tuple[str, ...] = ()
    disk_kib: int | None = None
    read_only_after_s: float | None = None


def campaign(activity: Activity, limits: int, seed: int, workspace: Path) -> Iterator[str]:
    """Start so many runs with limits, and yield a sentence for each fault."""
    random = Random(seed)
    exit_code(start(activity, workspace / "whole", "whole"))
    expected = activity.keys(workspace / "whole")
    for number in range(limits):
        limit = _limit(random)
        place, mark = workspace / str(number), f"{workspace.name}-{number}"
        place.mkdir()
        with _disk(place, limit.disk_kib):
            folder = place / "out"
            run = start(activity, folder, mark, limit.set, limit.prefix)
            if limit.read_only_after_s is not None:
                _make_read_only(place, run, limit.read_only_after_s)
            codes = (SUCCESS, USAGE, FAILED)
            for fault in faults_at_end(activity, run, mark, codes):
                yield f"{limit.name}: {fault}"
            if limit.disk_kib is not None:
                _make_immutable(place, "-i")
                _mount(place, "-o", "remount,size=1g")
            again = folder if activity.resume is not None else place / "again"
            code = exit_code(start(activity, again, "end"))
            if code != SUCCESS:
                yield f"{limit.name}: resumed without a limit it ended with {code}"
            elif activity.keys(again) != expected:
                yield f"{limit.name}: records were lost or doubled"


def _limit(random: Random) -> Limit:
    kinds = [_file_size, _open_files, _memory]
    if os.geteuid() == 0:
        kinds += [_full_disk, _read_only_disk, _processes]
    return random.choice(kinds)(random)


def _full_disk(random: Random) -> Limit:
    kib = random.randrange(4, LARGEST_DISK_KIB, 4)
    return Limit(f"a disk of {kib} KiB", disk_kib=kib)


def _read_only_disk(random: Random) -> Limit:
    after_s = random.uniform(0, LONGEST_S)
    name = f"a disk that is read-only after {after_s:.1f} s"
    return Limit(name, disk_kib=1 << 20, read_only_after_s=after_s)


def _file_size(random: Random) -> Limit:
    size = random.randrange(LARGEST_FILE_BYTES)
    return Limit(f"files of at most {size} bytes", _setting(resource.RLIMIT_FSIZE, size))


def _open_files(random: Random) -> Limit:
    files = random.randrange(FEWEST_OPEN_FILES, 80)
    return Limit(f"at most {files} open files", _setting(resource.RLIMIT_NOFILE, files))


def _memory(random: Random) -> Limit:
    mib = random.randrange(LEAST_MEMORY_MIB, MOST_MEMORY_MIB)
    return Limit(f"at most {mib} MiB of addresses", _setting(resource.RLIMIT_AS, mib << 20))


def _processes(random: Random) -> Limit:
    most = random.randrange(1, MOST_PROCESSES)
    set_limit = _setting(resource.RLIMIT_NPROC, most)
    return Limit(f"at most {most} processes and threads", set_limit, AS_SOMEBODY)


def _setting(kind: int, value: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(kind, (value, value))


@contextmanager
def _disk(place: Path, kib: int | None) -> Iterator[None]:
    """Have a disk of a size in a folder, for the block."""
    if kib is None:
        yield
        return
    _mount(place, "-t", "tmpfs", "-o", f"size={kib}k", "none")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def _make_read_only(place: Path, run: Run, after_s: float) -> None:
    """Have nothing in a folder changed any more after some seconds, if the run has not ended.

    It is done file by file: the disk cannot be mounted anew while a file on it is open for writing,
    and the lock of a run is open until its end.
    """
    deadline_s = time.monotonic() + after_s
    while run.poll() is None and time.monotonic() < deadline_s:
        time.sleep(0.02)
    if run.poll() is None:
        _make_immutable(place, "+i")


def _make_immutable(place: Path, change: str) -> None:
    # A file of a worker may be gone before its turn comes.
    subprocess.run(["chattr", "-R", "-f", change, str(place)], capture_output=True, check=False)


def _mount(place: Path, *options: str) -> None:
    subprocess.run(["mount", *options, str(place)], check=True)


if __name__ == "__main__":
    command_line(__doc__.splitlines()[0], campaign, "limits", 10)
