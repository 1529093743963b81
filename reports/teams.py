"""Which cases of a run took turns with each other, as its run.json has them."""

from typing import Any

from .run.schema import Team


def teams_of(entry: dict[str, Any]) -> list[Team]:
    """Return the teams of a run's run.json; a run that was recorded without teams is one team."""
    return [Team(**team) for team in entry.get("teams") or [_everyone(entry)]]


def team_with(names: set[str], entry: dict[str, Any]) -> Team | None:
    """Return the team of a run's run.json that all of these cases belong to, or None where they took no turns."""
    for team in teams_of(entry):
        if names <= set(team.cases):
            return team
    return None


def _everyone(entry: dict[str, Any]) -> dict[str, Any]:
    models = [case["name"] for case in entry["cases"] if case["role"] == "model"]
    return {"name": "", "reference": entry.get("reference") or "", "cases": models}
