"""What a session and its worker processes send each other: settings and results.

All of it is pickled. Lines are JSON objects as the journals hold them, without the fields that the
session adds (case, process, attempt, position).
"""

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...harness.errors import UsageError
from ...harness.masks import NO_MASK, KeptMasks
from ...harness.measure import WarmUp
from ...models import registry
from ...models.checkpoints.weights_hash import HashedWeights

Line = dict[str, Any]
DataReader = Mapping[str, Any]  # arguments of `open_samples`


@dataclass(frozen=True)
class SentConfig:
    """The config of an outside adapter on its way to a worker.

    Its class may be of a file that the worker must load first, which may fail there. So it is
    unpickled when the worker needs it, where the failure is the case's.

    Attributes:
        adapter: name of the adapter.
        adapter_sha256: of the file that the adapter was loaded from when the suite was resolved.
        pickled: the config.
    """

    adapter: str
    adapter_sha256: str
    pickled: bytes

    def opened(self) -> Any:
        """Load the adapter, and return the config.

        Raises:
            RuntimeError: the file was changed meanwhile, or cannot be loaded here.
        """
        try:
            registry.find(self.adapter)
            sha256 = registry.source_sha256(self.adapter)
        except UsageError as error:
            # The session ends where the user is to mend something. Here it goes on with the others.
            raise RuntimeError(str(error)) from error
        if sha256 != self.adapter_sha256:
            raise RuntimeError(
                f"the file of adapter {self.adapter!r} was changed after the run had begun; put it "
                "back and --resume, or begin a new run"
            )
        return pickle.loads(self.pickled)


@dataclass(frozen=True)
class WorkerSettings:
    """What a case's worker process is started with.

    Attributes:
        adapter: name of the case's adapter.
        config: a value of the adapter's settings dataclass; of an outside adapter, a `SentConfig`;
            of one that cannot be loaded, a `registry.NotLoaded`.
        data: which queries to open.
        process: which of the case's processes this is, from 0.
        kept_masks: of which queries the lines keep the mask.
        gpu_memory: size of the card that the process is limited to, such as ``8GB``.
        timed: how many queries, from the first on, the timed rounds take; None: all.
        batch: how many queries are evaluated at once, in every pass but that of quality.
        block: how many queries are timed in a row, at most.
        decode_workers: for throughput, how many processes decode images while the model works; None
            for latency, where every image is decoded before its query.
        hashed_weights: the weights whose bytes the run has compared with their hash already.
        quality_reuse: whether the quality pass encodes an image once for queries that follow each
            other.
    """

    adapter: str
    config: Any
    data: DataReader
    process: int = 0
    kept_masks: KeptMasks = NO_MASK
    gpu_memory: str | None = None
    timed: int | None = None
    batch: int = 1
    block: int = 8
    decode_workers: int | None = None
    hashed_weights: tuple[HashedWeights, ...] = ()
    quality_reuse: bool = True


@dataclass(frozen=True)
class BuiltCase:
    """What is known of a case once its adapter is built.

    Attributes:
        settings: all settings, as the adapter resolved them.
        has_quality: False for random weights.
        warnings: of the adapter.
        parameters: number of parameters of each part; None if the adapter does not provide it.
        clock: the clock of its times; None where nothing is timed.
        weights_source: where its weights come from; None if the adapter does not say.
    """

    settings: Mapping[str, Any]
    has_quality: bool
    warnings: tuple[str, ...] = ()
    parameters: Mapping[str, int] | None = None
    clock: str | None = None
    weights_source: str | None = None


@dataclass(frozen=True)
class WarmedUpCase(WarmUp):
    """How a case came to speed, and what was done to its process then.

    Attributes:
        core: the CPU core that the process is pinned to; None where it is not pinned.
        warnings: what speaks against the measurement that follows.
    """

    core: int | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class MeasuredMemory:
    """The result of the memory pass of one process.

    Attributes:
        lines: one for each stage that was measured.
        error: why not all stages were measured; None if they were.
        out_of_memory: whether the case does not fit this machine's GPU, or its memory.
        build_s: seconds that the build took.
        weight_bytes: of each part in memory; None if the adapter does not provide it.
        costs: what a query should cost by arithmetic; None if the adapter does not provide it.
        has_quality: False for random weights; None where it is not known yet.
        built: how the case was built; None where the build failed.
    """

    lines: tuple[Line, ...] = ()
    error: str | None = None
    out_of_memory: bool = False
    build_s: float | None = None
    weight_bytes: Mapping[str, int] | None = None
    costs: Mapping[str, Any] | None = None
    has_quality: bool | None = None
    built: BuiltCase | None = None


@dataclass(frozen=True)
class Machine:
    """The machine and the software that a run is measured with."""

    environment: dict[str, Any]
    versions: dict[str, str | None]


def plain(value: Any) -> Any:
    """Return the same in JSON's own types: an adapter may hand over numpy's numbers.

    Raises:
        ValueError: it cannot be recorded: a number is NaN or infinite, a text cannot be written as
            UTF-8, or a key is no text.
    """
    try:
        text = json.dumps(value, default=_plain_number_or_text, allow_nan=False, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError) as error:
        raise ValueError(f"what the adapter hands over cannot be recorded: {error}") from error
    return json.loads(text)


def plain_counts(counts: Mapping[str, Any] | None) -> dict[str, int] | None:
    """Return counts by part, as an adapter hands them over; None if it has none."""
    if counts is None:
        return None
    return plain({part: int(count) for part, count in counts.items()})


def _plain_number_or_text(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)
