"""A run that a launcher starts as several processes, its ranks, on one machine or on several.

``accelerate launch`` and ``torchrun`` tell each rank its place by environment variables. Each
evaluates a share of the quality pass as a shard (see `shards`), with one process of a case, on a
GPU of its own. Then all wait for each other, and rank 0 goes on alone: it joins the shards, and
measures what must be measured once.

The ranks talk through Accelerate's process group on the CPU (gloo), only to agree on the folder and
to wait. When a rank ends, for whatever reason, the system closes its sockets, and those that wait
for it end too.
"""

import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from ...harness.environment import visible_gpus
from ...harness.errors import RunFailed, UsageError
from ...harness.records.run import SHARD
from ..resolved_suite import ResolvedSuite
from .schedule import Share
from .shards import shard_folder

RANK, RANKS, RANK_ON_HOST = "RANK", "WORLD_SIZE", "LOCAL_RANK"
# Libraries that find them take a process for one of several. Those of lisabench's own are not.
VARIABLES = (RANK, RANKS, RANK_ON_HOST, "LOCAL_WORLD_SIZE")
BEGIN_LIMIT = timedelta(minutes=10)  # until all ranks have started
SHARE_LIMIT = timedelta(hours=24)  # until the last one has evaluated its share
FOLDER_LIMIT_S = 60.0  # until a file of another machine shows up: NFS keeps what it has listed


@dataclass(frozen=True)
class Rank:
    """The place of this process among those of a launch.

    Attributes:
        number: of the rank, from 0.
        of: how many ranks there are.
        on_host: its number on its machine, from 0.
    """

    number: int
    of: int
    on_host: int

    @property
    def share(self) -> Share:
        """What it evaluates of the quality pass."""
        return Share(self.number + 1, self.of)

    def gpu(self, suite: ResolvedSuite) -> str | None:
        """Return the GPU that this rank is left, such as ``cuda:1``; None where there is none.

        Raises:
            UsageError: the suite names a GPU itself.
        """
        if suite.gpu is not None:
            raise UsageError(
                f"the suite names the GPU {suite.gpu}, but {self.of} processes were launched, each "
                "for a GPU of its own: set device to cuda"
            )
        gpus = len(visible_gpus())
        uses_gpu = suite.devices != ["cpu"]
        # More ranks than GPUs are refused where the pool looks for this rank's.
        return f"cuda:{self.on_host}" if gpus and (uses_gpu or self.on_host < gpus) else None


def rank_of_environment() -> Rank | None:
    """Return the rank of this process; None where it was started alone.

    Raises:
        UsageError: the launcher's variables contradict each other.
    """
    if os.environ.get(RANKS, "1") == "1":
        return None
    values = {name: os.environ.get(name) for name in (RANK, RANKS, RANK_ON_HOST)}
    try:
        number, of, on_host = (int(value or "") for value in values.values())
    except ValueError:
        number, of, on_host = -1, 0, 0
    if not 0 <= number < of or on_host < 0:
        listed = ", ".join(f"{name}={value}" for name, value in values.items())
        raise UsageError(
            f"the environment says {listed}: expected the place of one of several processes, as "
            f"`accelerate launch` sets it; unset {RANKS} for a single one"
        )
    return Rank(number, of, on_host)


@contextmanager
def connected(rank: Rank) -> Iterator[None]:
    """Connect this rank with the others within the block.

    Raises:
        RunFailed: they did not all start within `BEGIN_LIMIT`.
    """
    from accelerate import PartialState  # imports torch, which takes seconds

    try:
        with warnings.catch_warnings():
            # It says how many threads this process has, which computes nothing.
            warnings.simplefilter("ignore", UserWarning)
            state = PartialState(cpu=True, backend="gloo", timeout=BEGIN_LIMIT)
    except (RuntimeError, ValueError) as error:
        raise RunFailed(
            f"rank {rank.number} did not find the other {rank.of - 1} of the launch: {error}"
        ) from error
    for name in VARIABLES:
        os.environ.pop(name, None)
    try:
        yield
    finally:
        state.destroy_process_group()


def agreed(path: Path) -> Path:
    """Return the path that rank 0 has; within `connected`.

    Raises:
        RunFailed: another rank has ended.
    """
    from accelerate.utils import broadcast_object_list

    paths = [str(path)]
    try:
        broadcast_object_list(paths)
    except RuntimeError as error:
        raise RunFailed("another process of the launch has ended; its message says why") from error
    return Path(paths[0])


def wait_for_all(rank: Rank, folder: Path) -> None:
    """Wait until every rank has evaluated its share; within `connected`.

    Rank 0 then waits until it sees all shards.

    Raises:
        RunFailed: a rank has ended before, or does not come within `SHARE_LIMIT`.
        UsageError: the folder is not the same one on all machines.
    """
    import torch.distributed

    try:
        # Unlike Accelerate's barrier it has a limit of its own, and says which rank is missing.
        torch.distributed.monitored_barrier(timeout=SHARE_LIMIT)
    except RuntimeError as error:
        raise RunFailed(
            "another process of the launch ended before its share of the quality pass was "
            f"evaluated; its message says why. Go on with the same command and --out {folder}"
        ) from error
    if rank.number == 0:
        _await_shards(rank, folder)


def _await_shards(rank: Rank, folder: Path) -> None:
    deadline_s = time.monotonic() + FOLDER_LIMIT_S
    for number in range(1, rank.of + 1):
        part = shard_folder(folder, Share(number, rank.of))
        while not (part / SHARD).is_file():
            if time.monotonic() > deadline_s:
                raise UsageError(
                    f"{part} is not here, though its rank is done: all machines of a launch need "
                    "one folder. Copy it here, and join it with --resume"
                )
            time.sleep(1)
