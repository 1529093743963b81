"""What a run says that it will do, before it does it."""

from types import SimpleNamespace

import command
import pytest

from lisabench.benchmarks.run import workload as module
from lisabench.benchmarks.run.run_context import Steps
from lisabench.benchmarks.run.workload import Pass, Workload, announcement, workload_of
from lisabench.benchmarks.suite_file import load, shipped_names
from lisabench.harness import nvml

pytestmark = pytest.mark.no_clock

TWO = Workload((Pass("memory", "", steps=2, seconds=30.0), Pass("timed", "", 10, 20.0)))


def queries_of(suite, count=300):
    """Return how many queries a suite has, without generating them."""
    timed = min(suite.plan.timed_queries, count)
    return SimpleNamespace(count=count, timed=timed, scored=count, description="scenes")


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(nvml, "count", lambda: 0)


def test_a_run_is_announced_pass_by_pass_with_its_time():
    suite = load("tiny")
    queries = queries_of(suite)
    assert announcement(suite, queries, workload_of(suite, queries)).splitlines() == [
        "tiny: dual, clip and sam, with the trivial baselines whole-image, centre-box and empty",
        "  data     300 queries of scenes",
        "  memory   3 models x 2 processes",
        "  quality  6 cases x 300 queries, each once",
        "  timed    3 models x 3 processes x 8 queries, taking turns",
        "about 2 min, a rough estimate: more on a slow or a busy machine",
    ]


@pytest.mark.parametrize(
    ("name", "need"), [("claims", "7 cases take"), ("training-7b", "clip-nf4 takes")]
)
def test_without_a_gpu_it_is_said_which_cases_cannot_run_in_place_of_a_time(name, need):
    suite = load(name)
    text = announcement(suite, queries_of(suite), workload_of(suite, queries_of(suite)))
    last = f"cannot run here: {need} an NVIDIA GPU (device: cuda), and this machine has none"
    assert text.splitlines()[-1] == last


def test_on_a_gpu_it_is_said_how_many_models_are_compiled_first(monkeypatch):
    monkeypatch.setattr(nvml, "count", lambda: 1)
    suite = load("graphs-7b")  # six cases, one of which runs as the original does
    last = announcement(suite, queries_of(suite), Workload(())).splitlines()[-1]
    assert last == "compiles 5 models first, unless an earlier run did: about 30 s each"


def test_random_weights_have_no_quality_pass_and_a_foreign_adapter_no_known_time(monkeypatch):
    suite = load("factorial-tiny")
    text = announcement(suite, queries_of(suite, 8), workload_of(suite, queries_of(suite, 8)))
    assert "quality  none: the weights are random" in text and "12 cases\n" in text
    monkeypatch.setattr(module, "KNOWN_ADAPTERS", ())
    assert "if a query takes 0.1 s" in announcement(suite, queries_of(suite), Workload(()))


@pytest.mark.parametrize("name", shipped_names())
def test_each_shipped_suite_has_a_time_and_a_gpu_never_makes_it_longer(monkeypatch, name):
    suite = load(name)
    on_cpu = workload_of(suite, queries_of(suite))
    monkeypatch.setattr(nvml, "count", lambda: 1)
    on_gpu = workload_of(suite, queries_of(suite))
    assert 10 < on_gpu.seconds <= on_cpu.seconds
    if name in ("tiny", "graphs-7b"):  # other suites set device to cpu
        assert on_gpu.seconds < on_cpu.seconds
    assert on_gpu.steps == on_cpu.steps > 0


def test_the_first_steps_take_the_time_of_their_passes():
    assert [TWO.seconds_until(steps) for steps in (0, 1, 2, 7, 12)] == [0, 15, 30, 40, 50]
    assert (TWO.steps, TWO.seconds) == (12, 50)


def test_the_share_that_is_left_leaves_out_what_was_measured_before():
    told = []
    steps = Steps(lambda *state: told.append(state), TWO)
    steps.skip(1, "memory of a")
    steps.advance(1, "memory of b")
    steps.advance(5, "round 1 of 1: a")
    steps.advance(5, "round 1 of 1: b")
    assert told == [
        (1, 12, "memory of a", 1.0),
        (2, 12, "memory of b", pytest.approx(20 / 35, rel=1e-12)),
        (7, 12, "round 1 of 1: a", pytest.approx(10 / 35, rel=1e-12)),
        (12, 12, "round 1 of 1: b", pytest.approx(0, abs=1e-12)),
    ]


def test_a_dry_run_prints_the_plan_and_leaves_nothing(tmp_path):
    out = tmp_path / "out"
    words = ("run", "tiny", "--limit", 4, "--set", "processes=2", "--dry-run", "--out", out)
    done = command.lisabench(*words)
    assert done.returncode == 0, done.stderr
    assert "timed    3 models x 2 processes x 4 queries, taking turns" in done.stdout
    assert "about " in done.stdout and not out.exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--resume", "--out", "."), "--resume"),
        (("--against", "HEAD"), "--against"),
        (("--set", "vision=dino"), "known: clip, dual, sam"),
    ],
)
def test_a_dry_run_of_what_cannot_be_run_is_refused(words, expected):
    done = command.lisabench("run", "tiny", "--dry-run", *words)
    assert done.returncode == 2 and expected in done.stderr
