"""A command on one of several GPUs: ``device: cuda:1``. The GPUs are named; none need be there."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from command import lisabench
from trainings import run_here

from lisabench.benchmarks import suite_file
from lisabench.benchmarks.gate import remeasure
from lisabench.benchmarks.training import command as training_command
from lisabench.benchmarks.training import in_suites
from lisabench.harness import environment
from lisabench.harness.errors import NothingToCompare, UsageError
from lisabench.harness.records.manifest import SuiteTraining

pytestmark = pytest.mark.no_clock

VISIBLE = "CUDA_VISIBLE_DEVICES"


@pytest.fixture(autouse=True)
def two_gpus(monkeypatch):
    """A process that may use two GPUs, and has chosen none of them."""
    monkeypatch.setenv(VISIBLE, "GPU-4,GPU-5")
    monkeypatch.setattr(environment, "_chosen_gpu", None)


# A module that looks at the GPUs when it is imported, as adapters do.
LOOKS = """
import os
VISIBLE = os.environ["CUDA_VISIBLE_DEVICES"]

def visible(worker):
    return VISIBLE, os.environ["CUDA_VISIBLE_DEVICES"]
"""
ASKS_WORKERS = """
import os
from lisabench.benchmarks.run.worker_messages import WorkerSettings
from lisabench.benchmarks.run.worker_pool import WorkerPool

if __name__ == "__main__":
    import looks  # not above, where workers would import it with this script

    WorkerPool((), time_limit_s=300)
    data = {"root": DATA, "split": "val"}
    # The server of workers is there already, as in a notebook that has run something before.
    for gpu in ("cuda:1", "cuda:0", None):
        pool = WorkerPool((), time_limit_s=300, gpu=gpu)
        with pool.start_case(WorkerSettings("empty", None, data)) as case:
            print(gpu, *case._call(looks.visible))
        with pool.start_data(data) as reader:
            print(gpu, *reader._call(looks.visible))
    with pool.start_case(WorkerSettings("empty", None, data), ("cuda:1", "GPU-5")) as case:
        print("one of them", *case._call(looks.visible))
    print(os.environ["CUDA_VISIBLE_DEVICES"])
"""


def test_each_worker_has_the_gpu_of_its_run_before_anything_is_imported(data_root, tmp_path):
    (tmp_path / "looks.py").write_text(LOOKS)
    script = tmp_path / "script.py"
    script.write_text(ASKS_WORKERS.replace("DATA", repr(str(data_root))))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    all_of_them = "GPU-4,GPU-5"
    left = {"cuda:1": "GPU-5", "cuda:0": "GPU-4", "None": all_of_them}
    lines = []
    for gpu, visible in left.items():
        lines += [f"{gpu} {visible} {visible}"] * 2
    lines.append("one of them GPU-5 GPU-5")
    assert done.stdout.splitlines() == [*lines, all_of_them]


def suite_of(**devices):
    """A suite with two cases, a training, and the devices that they name."""
    cases = {name: {"device": devices[name]} for name in ("a", "b") if name in devices}
    content = {
        "name": "devices",
        "title": "devices",
        "reference": "a",
        "defaults": {"adapter": "lisa"},
        "cases": {"a": {}, "b": {}} | cases,
        "trainings": {"t": {"device": devices.get("t", "auto")}},
    }
    return suite_file.validate(content)


@pytest.mark.parametrize(
    ("devices", "gpu"),
    [
        ({}, None),
        ({"a": "cuda", "b": "cpu", "t": "cuda"}, None),
        ({"a": "cuda:1"}, "cuda:1"),
        ({"a": "cuda:0", "b": "cuda:0", "t": "cuda:0"}, "cuda:0"),
        ({"t": "cuda:1", "a": "cpu"}, "cuda:1"),
    ],
)
def test_a_run_is_on_the_gpu_that_any_of_it_names(devices, gpu):
    assert suite_of(**devices).gpu == gpu


@pytest.mark.parametrize(
    "devices", [{"a": "cuda:0", "b": "cuda:1"}, {"a": "cuda:1", "t": "cuda:0"}]
)
def test_a_run_on_several_gpus_is_refused(devices):
    with pytest.raises(UsageError, match=r"it names several GPUs \(cuda:0, cuda:1\)"):
        suite_of(**devices)


def test_a_run_on_a_gpu_that_is_not_visible_leaves_nothing_behind(tmp_path):
    done = lisabench("run", "tiny", "--set", "device=cuda:2", "--out", tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    reason = f"{VISIBLE}='GPU-4,GPU-5' leaves 2 GPUs; known: cuda:0, cuda:1"
    assert done.stderr == f"lisabench: device 'cuda:2': {reason}\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({}, ["--set", "device=cuda:1"]),
        ({"device": "cuda:1"}, ["--set", "device=cuda:1"]),
        ({"device": "cpu"}, []),
    ],
)
def test_trainings_are_on_the_gpu_of_their_run(monkeypatch, tmp_path, options, arguments):
    commands = []

    def note(command):
        commands.append(command.line)
        return [subprocess.CompletedProcess(command.line, 0, "", "")]

    monkeypatch.setattr(in_suites.subprocesses, "run", note)
    training = SuiteTraining("t", 0, folder="trainings/t-0")
    ended = in_suites.carry_out(tmp_path, training, options, has_gpu=True, gpu="cuda:1")
    assert ended.status == "complete"
    (line,) = commands
    assert [word for word in line if word in ("--set", "device=cuda:1")] == arguments


def test_a_measurement_is_repeated_on_the_gpu_of_its_run(monkeypatch):
    described = []

    def describe():
        described.append(os.environ[VISIBLE])
        return {"gpu": "ANOTHER CARD"}

    monkeypatch.setattr(remeasure, "resolve_recorded", lambda _: suite_of(a="cuda:1"))
    monkeypatch.setattr(environment, "describe_machine", describe)
    manifest = SimpleNamespace(
        definition={"cases": {"a": {}}, "data": {}},
        data=SimpleNamespace(split="val"),
        environment={"gpu": "CARD"},
        versions={},
    )
    for _ in range(2):  # several cases of a gate may be measured again
        with pytest.raises(NothingToCompare, match=r"cannot be measured again here: .*CARD"):
            remeasure.measure_again(SimpleNamespace(manifest=manifest), "a", print)
    assert described == ["GPU-5", "GPU-5"]


@pytest.mark.parametrize("words", [("--device", "cuda:1"), ("--set", "device=cuda:1")])
def test_a_training_records_cuda_and_not_which_of_the_gpus(monkeypatch, tmp_path, words):
    began = []

    def stop(setup, device):
        began.append((setup.recorded(), device, os.environ[VISIBLE]))
        raise UsageError("that is enough")

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch._C._cuda_getDeviceCount", lambda: 1, raising=False)
    monkeypatch.setattr(training_command, "_accelerator", stop)
    done = run_here("train", *words, "--output_dir", tmp_path / "out")
    assert done.stderr == "lisabench: that is enough\n"
    ((setup, device, visible),) = began
    assert (setup.options["device"], setup.case["device"]) == ("cuda", "cuda")
    assert (device, visible) == ("cuda", "GPU-5")


def test_a_training_in_several_processes_takes_no_single_gpu(tmp_path):
    words = ("train", "--device", "cuda:1", "--output_dir", tmp_path / "out")
    done = lisabench(*words, WORLD_SIZE="2")
    assert done.returncode == 2
    assert "device 'cuda:1' is one GPU, and the training has 2 processes" in done.stderr
    assert os.environ[VISIBLE] == "GPU-4,GPU-5"
