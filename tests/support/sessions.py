"""Sessions on fake models, for tests."""

from collections import Counter

from raw_runs import raw_run

from lisabench.benchmarks import suite_file
from lisabench.benchmarks.queries import Queries
from lisabench.benchmarks.run.session import Session

QUICK = {"adapter": "fake", "clock": "virtual"}
QUICK_PLAN = {
    "processes": 2,
    "block": 2,
    "warmup": 0,
    "memory_processes": 1,
    "memory_queries": 1,
    "gallery": 0,
}
# The shortest content of a suite file that can be run.
TWO_FAKES = {
    "name": "mine",
    "title": "two fakes",
    "reference": "a",
    "cases": {"a": {"adapter": "fake"}, "b": {"adapter": "fake", "vision_ms": 9.0}},
}


def content_of(data_root, cases, plan, **further_keys):
    """The content of a suite file; its reference is the first case."""
    return {
        "name": "s",
        "title": "t",
        "reference": next(iter(cases)),
        "data": {"root": data_root},
        "plan": QUICK_PLAN | plan,
        "cases": cases,
    } | further_keys


def suite(data_root, plan=None, **cases):
    cases = {"a": QUICK, "b": QUICK | {"vision_ms": 9.0}} | cases
    plan = {"gallery": 2} | (plan or {})
    controls = {"empty": {"adapter": "empty"}}
    return suite_file.validate(content_of(data_root, cases, plan, controls=controls))


def session(suite, folder):
    return Session(suite, Queries.of(suite), folder, lambda *_: None)


def run(suite, folder):
    session(suite, folder).start()
    return raw_run(folder)


def keys(run):
    return Counter((row["case"], row["process"], row["sample_id"]) for row in run.samples)
