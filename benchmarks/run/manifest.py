"""``run.json`` as it stands before anything is measured: every key that will ever be in it, unknown ones as null."""

from dataclasses import asdict
from typing import Any

from ...harness.records.journal import now
from ...harness.records.run import RUN_SCHEMA
from ..factors import design
from ..queries import Queries
from ..suite import Suite
from ..training import in_suites

WARMUP = ("first_query_ms", "warmup_queries", "warmup_stable", "warmup_lengths", "core")


def first_page(suite: Suite, queries: Queries) -> dict[str, Any]:
    """The page of a run that is about to begin."""
    return {
        "schema": RUN_SCHEMA,
        "suite": suite.name,
        "title": suite.title,
        "reference": suite.reference,
        "teams": [asdict(team) for team in suite.all_teams()],
        "design": design(suite),
        "metrics": list(suite.metrics),
        "claims": [claim.recorded(suite.references_for(claim)) for claim in suite.claims],
        "trainings": in_suites.first_rows(suite.trainings, suite.plan.training_seeds),
        "status": "running",
        "started": now(),
        "finished": None,
        "attempts": 0,
        "in_turns": False,
        "data": queries.page(),
        "plan": suite.plan.model_dump(mode="json"),
        "quality_pass": _quality_pass(suite, queries),
        "definition": suite.model_dump(mode="json"),
        "cases": [_unknown_yet(suite, case) for case in suite.all_cases()],
        "passport": None,
        "versions": None,
        "ceilings": {},
        "gallery": [],
        "warnings": [*suite.contaminations(), *_half_random(suite)],
    }


def _quality_pass(suite: Suite, queries: Queries) -> dict[str, int] | None:
    """Return the protocol of the quality pass: a score is of so many queries, evaluated so many at a time."""
    if not queries.scored:
        return None
    return {"queries": queries.scored, "batch": suite.plan.quality_batch}


def _half_random(suite: Suite) -> list[str]:
    """Of cases that are compared, some may have weights and others not."""
    weights = {case: getattr(suite.make(case), "weights", None) for case in suite.cases}
    at_random = [case for case, named in weights.items() if named == "random"]
    if not at_random or {"random", None} >= set(weights.values()):
        return []
    return [
        f"{', '.join(at_random)}: random weights, beside trained ones; no score, and no comparison of quality"
    ]


def _unknown_yet(suite: Suite, case: str) -> dict[str, Any]:
    given = suite.settings(case)
    role = "control" if case in suite.controls else "model"
    later = ("settings", "has_quality", "parameters", "build_s", "clock")
    later += (*WARMUP, "error", "memory_error", "weights", "paper")
    now = {"name": case, "adapter": given["adapter"], "role": role, "given": given, "warmups": []}
    return now | dict.fromkeys(later)
