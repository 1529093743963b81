"""Sessions on fake models, for tests."""

from collections import Counter

from raw_runs import raw_run

from lisabench.benchmarks import suite_file
from lisabench.benchmarks.queries import Queries
from lisabench.benchmarks.run.session import Session

QUICK = {"adapter": "fake", "clock": "virtual"}


def suite(data_root, plan=None, **cases):
    plan = {
        "processes": 2,
        "block": 2,
        "warmup": 0,
        "memory_processes": 1,
        "memory_queries": 1,
        "gallery": 2,
    } | (plan or {})
    cases = {"a": QUICK, "b": QUICK | {"vision_ms": 9.0}} | cases
    content = {
        "name": "s",
        "title": "t",
        "reference": "a",
        "data": {"root": data_root},
        "plan": plan,
        "cases": cases,
    }
    return suite_file.validate(content | {"controls": {"empty": {"adapter": "empty"}}})


def session(suite, folder):
    return Session(suite, Queries.of(suite), folder, lambda *_: None)


def run(suite, folder):
    session(suite, folder).start()
    return raw_run(folder)


def keys(run):
    return Counter((row["case"], row["process"], row["sample_id"]) for row in run.samples)
