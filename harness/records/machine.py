"""What records say of the machine that they were measured on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from .from_json import NotNegative, from_json

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class MachineFacts:
    """The facts of an environment that reports show; an environment has more."""

    gpu: str | None = None
    gpu_count: NotNegative | None = None
    gpu_memory_bytes: NotNegative | None = None
    cpu: str | None = None
    cpu_count: NotNegative | None = None
    memory_bytes: NotNegative | None = None
    os: str | None = None


@dataclass(frozen=True)
class PeakRates:
    """The roofline of a device; see `roofline.measure_roofline`.

    Attributes:
        matrix_flops_per_s: operations a second of matrix products, by data type.
        bandwidth_bytes_per_s: bytes a second that a copy reads and writes.
    """

    matrix_flops_per_s: Annotated[Mapping[str, Rate], Field(min_length=1)]
    bandwidth_bytes_per_s: Rate


def checked_environment(facts: Any) -> Mapping[str, Any]:
    """Return the facts about a machine as they were recorded.

    Raises:
        DataError: one that is shown is of another type.
    """
    from_json(MachineFacts, facts)
    return facts


def checked_rates(rates: Any) -> Mapping[str, Any]:
    """Return the peak rates of a device as they were recorded.

    Raises:
        DataError: one is missing, or is no number above 0.
    """
    from_json(PeakRates, rates)
    return rates
