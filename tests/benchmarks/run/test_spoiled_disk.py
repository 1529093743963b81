"""A disk that fills up or becomes read-only in a phase of a run: one line, and nothing is lost."""

import json

import pytest
from command import lisabench
from raw_runs import raw_run
from sessions import QUICK, QUICK_PLAN, content_of, keys
from spoiled_disk import disk_of, spoiled

from lisabench.benchmarks.run import memory_pass, quality_pass, timed_rounds
from lisabench.benchmarks.run.journal import Journal
from lisabench.benchmarks.run.manifest import ManifestWriter
from lisabench.benchmarks.run.worker_pool import CaseProcess, DataProcess
from lisabench.harness.records.run import PROFILE
from lisabench.reports import drawing, run_report

pytestmark = [pytest.mark.no_clock, pytest.mark.slow]  # a session for each phase

# In their order, a function with which each phase begins, and which of its calls spoils the disk.
PHASES = {
    "before all": (ManifestWriter, "save", 0),
    "pictures": (DataProcess, "save_gallery", 0),
    "the memory pass": (memory_pass, "measure_memory", 1),
    "a line of the memory pass": (Journal, "add_memory", 0),
    "the quality pass": (quality_pass, "evaluate_case", 1),
    "a line of the quality pass": (Journal, "add_quality", 0),
    "the profile": (memory_pass, "profile_case", 0),
    "a trace": (CaseProcess, "trace", 0),
    "the second profile": (memory_pass, "profile_case", 1),
    "a timed round": (timed_rounds, "measure_round", 1),
    "a line of a timed round": (Journal, "add_queries", 1),
    "the end": (ManifestWriter, "finish", 0),
    "the summary": (run_report, "write_summary", 0),
    "the report": (run_report, "write_markdown", 0),
    "a figure": (drawing, "save", 0),
    "the page": (run_report, "write_html", 0),
}
OF_WORKERS = ("pictures", "a trace")  # which another process writes
REASONS = {"full": "No space left on device", "read-only": "Read-only file system"}


@pytest.mark.parametrize("kind", REASONS)
def test_a_run_goes_on_after_each_phase_and_has_lost_and_doubled_nothing(data_root, tmp_path, kind):
    suite = tmp_path / "suite.yaml"
    cases = {"a": QUICK, "b": QUICK | {"vision_ms": 9.0}}
    content = content_of(str(data_root), cases, {"gallery": 2, "profile": True}, name="s")
    suite.write_text(json.dumps(content))
    out = tmp_path / "disk" / "out"
    had = 0
    with disk_of(kind, tmp_path / "disk", mib=8) as disk:
        for phase, (owner, name, calls) in PHASES.items():
            if kind == "read-only" and phase in OF_WORKERS:
                continue
            words = ["run", "--resume"] if (out / "run.json").exists() else ["run", suite]
            done = spoiled(
                disk,
                lambda patch, at=(owner, name, calls): disk.spoiled_at(patch, *at),
                lambda words=words: lisabench(*words, "--out", out),
            )
            last_line = done.stderr.splitlines()[-1]
            assert done.returncode == 5, (phase, done.stderr)
            assert REASONS[kind] in last_line and "Traceback" not in done.stderr, phase
            assert last_line.startswith("lisabench: ")
            if (out / "run.json").exists():
                now_has = keys(raw_run(out)).total()
                assert now_has >= had, phase
                had = now_has
        done = lisabench("run", "--resume", "--out", out)
        assert done.returncode == 0, done.stderr
        run = raw_run(out)
        assert set(keys(run).values()) == {1} and len(keys(run)) == 2 * 6 * QUICK_PLAN["processes"]
        assert len(run.quality) == 2 * 6 and run.run["status"] == "complete"
        assert (out / "report.html").exists() and not list(out.rglob("*.partial"))
        assert sorted(path.name for path in (out / PROFILE).iterdir()) == ["a.json.gz", "b.json.gz"]
