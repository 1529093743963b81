"""The LISA adapter as the registry names it. Cheap to import: `build` imports torch."""

from ...harness.contract import Adapter, Probe
from ..axes import LisaCase

PRELOAD = ("lisabench.models.lisa",)  # what `build` imports; takes seconds, so workers are forked with it


def build(case: LisaCase, probe: Probe) -> Adapter:
    """The original LISA and its shared-encoder variants."""
    from ..lisa import Lisa

    return Lisa(case, probe)
