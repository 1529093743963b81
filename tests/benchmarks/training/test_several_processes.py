"""Several processes, machines or accumulated batches train as one process with the same batch."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from shallow_presets import SHALLOW
from trainings import assert_same_course, train_in_fork, trained

from lisabench.harness.records.training import Training, read_training
from lisabench.models.lisa.presets import PRESETS

pytestmark = pytest.mark.no_clock

BIN = Path(sys.executable).parent
# Of 5 queries in batches of 4, the last batch has 1: then the second process has no share. Of 3
# queries of the evaluation, one process has 2 and the other 1.
OPTIONS = ("--recipe", "described", "--use_vlm_vision", "--max_train_samples", 5,
           "--max_val_samples", 3, "--epochs", 2, "--lr", "1e-3")  # fmt: skip


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Training:
    """A training in one process, with batches of 4."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", SHALLOW)
        out = tmp_path_factory.mktemp("training") / "one"
        return trained(*OPTIONS, "--batch_size", 4, out=out)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.parametrize("local_ranks", [(0, 1), (0, 0)], ids=["one machine", "two machines"])
@pytest.mark.usefixtures("shallow")
def test_two_processes_train_as_one_with_the_same_global_batch(one, tmp_path, local_ranks):
    """Each process gets the variables that a launcher sets. Launchers themselves are below."""
    out = tmp_path / "two"
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    processes = []
    for rank, local_rank in enumerate(local_ranks):
        environment = {**shared, "RANK": str(rank), "LOCAL_RANK": str(local_rank)}
        words = (*OPTIONS, "--batch_size", 2, "--out", out)
        processes.append(train_in_fork(*words, environment=environment))
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    two = read_training(out)
    assert two.manifest.configuration["processes"] == 2
    assert_same_course(one, two)


@pytest.mark.usefixtures("shallow")
def test_accumulated_batches_are_one_batch(one, tmp_path):
    accumulated = (
        "--batch_size",
        1,
        "--gradient_accumulation_steps",
        4,
        "--gradient_checkpointing",
    )
    assert_same_course(one, trained(*OPTIONS, *accumulated, out=tmp_path / "accumulated"))


@pytest.mark.slow
def test_a_training_prints_nothing_of_its_libraries(tmp_path):
    """In a process of its own, which imports each of them for the first time."""
    words = ("--recipe", "original", "--scheduler", "cosine", "--gradient_checkpointing",
             "--max_train_samples", 2, "--max_val_samples", 1, "--epochs", 1)  # fmt: skip
    command = (BIN / "lisabench", "train", "--device", "cpu", *words, "--out", tmp_path / "out")
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first_words = {line.split()[0] for line in done.stderr.splitlines()}
    assert first_words <= {"training", "1/1"}, done.stderr


LAUNCH = (BIN / "accelerate", "launch", "--multi_gpu", "--mixed_precision", "no",
          "--dynamo_backend", "no", "--num_processes", 2)  # fmt: skip


@pytest.mark.slow
def test_accelerate_launches_two_processes_that_train_as_one(tmp_path):
    one = trained(*OPTIONS, "--batch_size", 4, out=tmp_path / "one")
    words = ("-m", "lisabench", "train", "--device", "cpu", *OPTIONS, "--batch_size", 2)
    command = [*LAUNCH, "--num_machines", 1, *words, "--out", tmp_path / "two"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_same_course(one, read_training(tmp_path / "two"))


@pytest.mark.slow
def test_two_launchers_stand_in_for_two_machines(tmp_path):
    one = trained(*OPTIONS, "--batch_size", 4, out=tmp_path / "one")
    main_process = ("--main_process_ip", "127.0.0.1", "--main_process_port", free_port())
    words = (BIN / "lisabench", "train", "--device", "cpu", *OPTIONS, "--batch_size", 2)
    machines = []
    for rank in (0, 1):
        launch = (*LAUNCH, "--num_machines", 2, *main_process, "--machine_rank", rank)
        command = [*launch, "--no_python", *words, "--out", tmp_path / "two"]
        machines.append(subprocess.Popen([*map(str, command)], stderr=subprocess.DEVNULL))
    assert [machine.wait(timeout=600) for machine in machines] == [0, 0]
    assert_same_course(one, read_training(tmp_path / "two"))
