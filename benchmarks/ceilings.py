"""A machine's ceilings, measured when first asked for and kept in the cache, under the passport that they belong to."""

import hashlib
import json
from contextlib import suppress
from typing import Any

from ..datasets.embedded import cache_folder
from ..harness import environment
from ..harness.ceilings import ceilings
from ..harness.records import write_json

DEPENDS_ON = ("os", "cpu", "cpu_count", "gpu", "driver", "power_limit_w", "mig", "threads")


def known(device: str) -> dict[str, Any]:
    """Those of a device on this machine, as `harness.ceilings.ceilings` gives them.

    A cache that cannot be written to costs the next run the measurement, and nothing else.
    """
    passport = environment.passport() | environment.conditions()
    owner = {"device": device, "torch": environment.versions()["torch"]} | {k: passport[k] for k in DEPENDS_ON}
    name = hashlib.sha256(json.dumps(owner, sort_keys=True).encode()).hexdigest()[:16]
    kept = cache_folder() / f"ceilings-{name}.json"
    if kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))["ceilings"]
    found = ceilings(device)
    with suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, {"owner": owner, "ceilings": found})
    return found
