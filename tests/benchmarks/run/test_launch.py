"""A run of several processes that `accelerate launch` starts, also where one of them ends."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from command import lisabench
from raw_runs import raw_run

from lisabench.benchmarks.run import launch
from lisabench.benchmarks.run.launch import Rank, rank_of_environment
from lisabench.benchmarks.run.schedule import Share
from lisabench.harness.errors import UsageError
from lisabench.harness.records.journal import current_lines

pytestmark = pytest.mark.no_clock

BIN = Path(sys.executable).parent


def launched(monkeypatch, **variables):
    for name in launch.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_a_process_knows_its_place_by_the_launchers_variables(monkeypatch):
    launched(monkeypatch, RANK="5", WORLD_SIZE="8", LOCAL_RANK="1")
    rank = rank_of_environment()
    assert rank == Rank(5, 8, 1) and rank.share == Share(6, 8)
    launched(monkeypatch, RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
    assert rank_of_environment() is None, "one process needs no other"
    launched(monkeypatch)
    assert rank_of_environment() is None


@pytest.mark.parametrize(
    "variables",
    [
        {"WORLD_SIZE": "2", "RANK": "2", "LOCAL_RANK": "0"},
        {"WORLD_SIZE": "2", "RANK": "0"},
        {"WORLD_SIZE": "two", "RANK": "0", "LOCAL_RANK": "0"},
        {"WORLD_SIZE": "2", "RANK": "-1", "LOCAL_RANK": "0"},
    ],
)
def test_contradicting_variables_are_refused_in_one_line(variables, monkeypatch, tmp_path):
    launched(monkeypatch, **variables)
    done = lisabench("run", "tiny", "--out", tmp_path / "out")
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    assert "expected the place of one of several processes" in done.stderr
    assert "unset WORLD_SIZE for a single one" in done.stderr and done.stderr.count("\n") == 1


def suite_on(*devices, gpu=None):
    return SimpleNamespace(gpu=gpu, devices=list(devices))


@pytest.mark.parametrize(
    ("rank", "suite", "visible", "gpu"),
    [
        (Rank(3, 4, 1), suite_on("cpu", "cuda"), "4,5", "cuda:1"),
        (Rank(3, 4, 1), suite_on("auto"), "", None),
        (Rank(3, 4, 1), suite_on("cpu"), "4,5", "cuda:1"),  # an adapter that names no device
        (Rank(3, 4, 3), suite_on("cpu"), "4,5", None),
        (Rank(3, 4, 3), suite_on("cuda"), "4,5", "cuda:3"),  # which the pool then refuses
    ],
)
def test_each_rank_has_a_gpu_of_its_machine(rank, suite, visible, gpu, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert rank.gpu(suite) == gpu


def test_a_suite_on_one_gpu_is_not_launched_on_several():
    with pytest.raises(UsageError, match="names the GPU cuda:1, but 4 processes were launched"):
        Rank(3, 4, 1).gpu(suite_on("cuda:1", gpu="cuda:1"))


def test_a_folder_that_not_all_machines_share_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "FOLDER_LIMIT_S", 0.0)
    shard = tmp_path / "shards" / "1-of-2" / "shard.json"
    shard.parent.mkdir(parents=True)
    shard.write_text("{}")
    with pytest.raises(UsageError, match=r"2-of-2 is not here.*all machines of a launch need one"):
        launch._await_shards(Rank(0, 2, 0), tmp_path)


SUITE = """
title: one trained LISA
reference: dual
data: {count: 30}
plan:
  {processes: 1, block: 1, timed_queries: 1, warmup: 0, memory_processes: 1, memory_queries: 1,
   quality_batch: 4, gallery: 3}
defaults: {adapter: lisa, preset: tiny, weights: packaged, device: cpu}
cases: {dual: {}}
controls: {whole: {adapter: whole-image}}
"""
LAUNCH = ("launch", "--multi_gpu", "--mixed_precision", "no", "--dynamo_backend", "no",
          "--num_machines", "1", "--num_processes", "2", "-m", "lisabench.cli")  # fmt: skip


def records(folder):
    """The lines of a run's quality pass without what says which start wrote them, sorted."""
    lines = []
    for line in raw_run(folder).quality:
        lines.append({key: value for key, value in line.items() if key != "attempt"})
    return sorted(lines, key=lambda line: (line["case"], line["position"]))


@pytest.fixture
def suite_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(SUITE)
    return path


@pytest.mark.slow
def test_one_process_and_many_give_equal_records(suite_file, tmp_path):
    """One process, two, two of a launcher, and two shards: the same bits, masks included."""
    assert lisabench("run", suite_file, "--out", tmp_path / "two").returncode == 0
    one_process = ("--set", "quality_processes=1", "--out", tmp_path / "one")
    assert lisabench("run", suite_file, *one_process).returncode == 0
    command = [BIN / "accelerate", *LAUNCH, "run", suite_file, "--out", tmp_path / "launched"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for share in ("2/2", "1/2"):
        shard = ("--shard", share, "--out", tmp_path / "joined")
        assert lisabench("run", suite_file, *shard).returncode == 0
    assert lisabench("run", "--resume", "--out", tmp_path / "joined").returncode == 0
    expected = records(tmp_path / "one")
    assert len(expected) == 2 * 30
    for name in ("two", "launched", "joined"):
        assert records(tmp_path / name) == expected, name


FAKES = """
title: fakes that take a while
reference: a
data: {count: 48}
plan:
  {processes: 1, timed_queries: 8, memory_processes: 1, memory_queries: 1, quality_batch: 2,
   warmup: 0, gallery: none}
cases: {a: {adapter: fake, vision_ms: 400}}
"""


def started(words, number, port):
    """Start one of two ranks without an agent that watches them, as those of two machines."""
    variables = {"RANK": str(number), "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    line = [sys.executable, "-m", "lisabench.cli", *map(str, words)]
    return subprocess.Popen(line, env=os.environ | variables, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_when_a_rank_is_killed_the_other_ends_and_another_number_goes_on(killed, tmp_path):
    (tmp_path / "fakes.yaml").write_text(FAKES)
    words = ("run", tmp_path / "fakes.yaml", "--out", tmp_path / "out")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [started(words, number, port) for number in (0, 1)]
    journal = tmp_path / "out" / "shards" / f"{killed + 1}-of-2" / "quality.jsonl"
    while not journal.is_file() or not current_lines(journal):
        assert ranks[killed].poll() is None, ranks[killed].stderr.read()
        time.sleep(0.05)
    ranks[killed].send_signal(signal.SIGKILL)
    other = ranks[1 - killed]
    _, said = other.communicate(timeout=300)
    ranks[killed].communicate(timeout=60)
    assert other.returncode == 5 and "another process of the launch ended" in said
    assert 0 < len(current_lines(journal)) < 24
    assert lisabench(*words).returncode == 0, "alone, it takes over what both have"
    keys = Counter((line["case"], line["sample_id"]) for line in raw_run(tmp_path / "out").quality)
    assert len(keys) == 48 and set(keys.values()) == {1}
    assert len(raw_run(tmp_path / "out").run["shards"]) == 2
