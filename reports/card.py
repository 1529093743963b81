"""What a process takes of a GPU's memory: one definition for inference and training."""

from dataclasses import dataclass

from ..harness.statistics.estimate import Estimate

RESERVED_ALONE = "only what the allocator reserved: the records do not have the bytes outside of it"


@dataclass(frozen=True)
class OnCard:
    """Bytes that a process takes of a card.

    Attributes:
        bytes: reserved by PyTorch's allocator, and everything outside of it where that was
            recorded; None if unknown.
        about: what is missing from the bytes; None where nothing is.
    """

    bytes: int | None
    about: str | None = None

    @property
    def estimate(self) -> Estimate | None:
        """The bytes as the number of a claim: of one process, so without an interval."""
        if self.bytes is None:
            return None
        return Estimate(self.bytes, None, None, n=1)


def bytes_on_card(reserved_bytes: int | None, outside_bytes: int | None) -> OnCard:
    """Return what a process takes of a card: what the allocator reserved, and all outside of it.

    Args:
        reserved_bytes: peak of PyTorch's allocator, as reserved.
        outside_bytes: the CUDA context, its kernels and libraries, as `harness.memory.cap_gpu`
            measures them; None in older records of trainings.
    """
    if reserved_bytes is None:
        return OnCard(None)
    if outside_bytes is None:
        return OnCard(reserved_bytes, RESERVED_ALONE)
    return OnCard(reserved_bytes + outside_bytes)
