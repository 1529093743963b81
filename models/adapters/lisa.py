"""The LISA adapter's entry in the registry. Cheap to import: only `build` imports torch."""

from dataclasses import replace

from ...harness.contract import Adapter, Probe
from ..lisa.config import LisaConfig

# What `build` imports. The import takes seconds, so worker processes are forked from a server that
# has done it.
PRELOAD = ("lisabench.models.adapters.lisa_stages", "lisabench.models.adapters.graphed_stages")


def build(case: LisaConfig, probe: Probe) -> Adapter:
    """The original LISA and its shared-encoder variants."""
    if case.execution == "auto":
        case = replace(case, execution="eager")
    if case.execution == "graphed":
        from .graphed_stages import GraphedLisa

        return GraphedLisa(case, probe)
    from .lisa_stages import Lisa

    return Lisa(case, probe)
