"""What two runs or trainings were made on, and whether their costs may be compared."""

from typing import Any

from pydantic import JsonValue

SAME_MACHINE = ("gpu", "gpu_count", "driver", "power_limit_w", "ecc", "mig", "cpu", "cpu_count")

Sides = tuple[JsonValue, JsonValue]


def different_machines(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Why two machines' costs must not be compared, by their passports; nothing where they may."""
    facts = differing(_comparable(before), _comparable(after))
    named = ", ".join(f"{name} {then} and {now}" for name, (then, now) in facts.items())
    return [f"measured on different machines ({named})"] if named else []


def _comparable(passport: dict[str, Any]) -> dict[str, Any]:
    """What must be the same on both machines; of the driver only its major version."""
    facts = {name: passport.get(name) for name in SAME_MACHINE}
    return facts | {"driver": str(facts["driver"]).split(".")[0]}


def differing(before: dict[str, Any] | None, after: dict[str, Any] | None) -> dict[str, Sides]:
    """What has another value on either side; of one that does not have it, None."""
    before, after = before or {}, after or {}
    names = dict.fromkeys([*before, *after])
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}
