"""The LISA adapter as the registry names it. Cheap to import: `build` imports torch."""

from ...harness.contract import Adapter, Probe
from ..lisa.config import LisaConfig

PRELOAD = (
    "lisabench.models.adapters.lisa_stages",
)  # what `build` imports; takes seconds, so workers are forked with it


def build(case: LisaConfig, probe: Probe) -> Adapter:
    """The original LISA and its shared-encoder variants."""
    from .lisa_stages import Lisa

    return Lisa(case, probe)
