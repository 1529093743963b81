"""Which GPU is meant: PyTorch's, whatever else the (simulated) driver shows."""

import os
from types import SimpleNamespace

import pynvml
import pytest
import torch

from lisabench.benchmarks import doctor
from lisabench.harness import environment, nvml
from lisabench.harness.errors import UsageError
from lisabench.models.lisa.config import LisaConfig

pytestmark = pytest.mark.no_clock

GIB = 1 << 30
# By UUID, in the order of the bus: name, bytes.
CARDS = {"GPU-slow": ("SLOW CARD", 8 * GIB), "GPU-fast": ("FAST CARD", 80 * GIB)}
SLICE = {"MIG-slice": ("FAST CARD MIG 1g.10gb", 10 * GIB)}


def refuse(*_):
    raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


@pytest.fixture
def driver(monkeypatch):
    """A driver with two unlike GPUs, one of which is split."""
    cards = CARDS | SLICE

    def by_uuid(uuid):
        return uuid if uuid in cards else refuse()

    for name in ("PowerManagementLimit", "EccMode", "MigMode"):
        monkeypatch.setattr(pynvml, f"nvmlDeviceGet{name}", refuse)
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: len(CARDS))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: list(CARDS)[index])
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", by_uuid)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetName", lambda gpu: cards[gpu][0].encode())
    monkeypatch.setattr(pynvml, "nvmlSystemGetDriverVersion", lambda: "550.1")
    monkeypatch.setattr(
        pynvml, "nvmlDeviceGetMemoryInfo", lambda gpu: SimpleNamespace(total=cards[gpu][1], used=7)
    )


def no_driver(monkeypatch):
    def fail():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)


def pytorch_sees(monkeypatch, uuid):
    """Let PyTorch see one GPU, or none."""
    properties = SimpleNamespace(
        uuid=uuid, name="AS PYTORCH SAYS", total_memory=5 * GIB, major=9, minor=0
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: uuid is not None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(uuid is not None))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize(
    ("uuid", "card"),
    [
        ("slow", CARDS["GPU-slow"]),
        ("fast", CARDS["GPU-fast"]),
        ("slice", SLICE["MIG-slice"]),
        ("unknown to the driver", ("AS PYTORCH SAYS", 5 * GIB)),
    ],
)
def test_the_gpu_is_the_one_that_pytorch_uses_and_not_the_first_on_the_bus(monkeypatch, uuid, card):
    pytorch_sees(monkeypatch, uuid)
    machine = environment.describe_machine()
    assert (machine["gpu"], machine["gpu_memory_bytes"]) == card
    assert (machine["gpu_count"], machine["compute_capability"]) == (2, "9.0")


@pytest.mark.usefixtures("driver")
def test_hidden_gpus_are_no_gpus(monkeypatch):
    pytorch_sees(monkeypatch, None)
    machine = environment.describe_machine()
    assert (machine["gpu"], machine["gpu_count"], machine["driver"]) == (None, 0, None)
    assert nvml.handle() is None and nvml.used_bytes() is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (check,) = [check for check in doctor.check_machine() if check.name == "GPU"]
    assert check.status == "note" and "CUDA_VISIBLE_DEVICES='' hides all GPUs" in check.detail
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    (check,) = [check for check in doctor.check_machine() if check.name == "GPU"]
    assert check.status == "problem" and "the driver shows 2, but PyTorch" in check.detail


def test_name_and_memory_are_pytorchs_where_no_driver_answers(monkeypatch):
    no_driver(monkeypatch)
    pytorch_sees(monkeypatch, "fast")
    machine = environment.describe_machine()
    assert (machine["gpu"], machine["gpu_memory_bytes"]) == ("AS PYTORCH SAYS", 5 * GIB)
    assert (machine["gpu_count"], machine["driver"], machine["ecc"]) == (1, None, None)


@pytest.mark.usefixtures("driver")
def test_two_unlike_gpus_are_never_the_same_machine(monkeypatch):
    machines = {}
    for uuid in ("slow", "fast", "slice"):
        pytorch_sees(monkeypatch, uuid)
        machines[uuid] = environment.describe_machine()
    for one in machines:
        for other in machines:
            differ = environment.different_machines(machines[one], machines[other])
            assert bool(differ) == (one != other)


@pytest.mark.parametrize(
    ("before_bytes", "after_bytes", "are_different"),
    [
        (8 * GIB, 12 * GIB, True),  # cards of one name
        (80 * GIB, 80 * GIB - 9_000_000, False),  # another driver keeps some for itself
        (None, 12 * GIB, False),  # an older record does not say
    ],
)
def test_cards_of_one_name_differ_by_their_memory(before_bytes, after_bytes, are_different):
    before = {"gpu": "CARD", "gpu_memory_bytes": before_bytes}
    after = {"gpu": "CARD", "gpu_memory_bytes": after_bytes}
    assert bool(environment.different_machines(before, after)) == are_different


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda:", "device 'cuda:': expected the number of a GPU after the colon, such as cuda:0"),
        ("cuda:one", "device 'cuda:one': expected the number"),
        ("cuda:-1", "device 'cuda:-1': expected the number"),
        ("cuda:01", "device 'cuda:01': expected the number"),
        ("cuda:N", "device 'cuda:N': expected the number"),
        ("cuda:99999", "device 'cuda:99999': expected the number"),
        ("mps", r"device 'mps' is not supported; known: auto, cpu, cuda, cuda:N \(NVIDIA GPUs\)"),
        ("xpu:0", "device 'xpu:0' is not supported"),
        ("gpu", "device 'gpu' is not supported"),
        (0, "device '0' is not supported"),
    ],
)
def test_another_device_is_refused_in_one_line(device, message):
    for refuses in (environment.resolve_device, lambda device: LisaConfig(device=device)):
        with pytest.raises(UsageError, match=message) as caught:
            refuses(device)
        assert "\n" not in str(caught.value)


VISIBLE = "CUDA_VISIBLE_DEVICES"


def cuda_counts(monkeypatch, count):
    """Let CUDA itself see so many GPUs; a PyTorch without CUDA has no such function."""
    monkeypatch.setattr(torch._C, "_cuda_getDeviceCount", lambda: count, raising=False)


@pytest.fixture
def unnarrowed(monkeypatch):
    """A process that no GPU has been chosen for, and that forgets it after the test."""
    monkeypatch.setattr(environment, "_chosen_gpu", None)
    monkeypatch.setenv(VISIBLE, "")  # so that it is put back after the test
    monkeypatch.delenv(VISIBLE)
    cuda_counts(monkeypatch, 1)


@pytest.mark.parametrize(
    ("restricted_to", "device", "gpu"),
    [
        (None, "cuda:0", "0"),
        (None, "cuda:1", "1"),
        ("3,5", "cuda:0", "3"),
        ("3, 5", "cuda:1", "5"),
        ("GPU-8b1a,GPU-77c0", "cuda:1", "GPU-77c0"),
        ("MIG-1a2b", "cuda:0", "MIG-1a2b"),
        ("MIG-GPU-8b1a/1/0,MIG-GPU-8b1a/2/0", "cuda:1", "MIG-GPU-8b1a/2/0"),
    ],
)
@pytest.mark.usefixtures("driver", "unnarrowed")
def test_a_number_counts_the_visible_gpus_and_leaves_one(monkeypatch, restricted_to, device, gpu):
    if restricted_to is not None:
        monkeypatch.setenv(VISIBLE, restricted_to)
    asked = []  # what was visible whenever CUDA was asked: it reads the variable only once
    monkeypatch.setattr(
        torch.cuda, "is_available", lambda: asked.append(os.environ.get(VISIBLE)) or True
    )
    for _ in range(2):  # the second time in a process that has one GPU by now
        assert environment.resolve_device(device) == "cuda"
    assert environment.resolve_device("auto") == environment.resolve_device("cuda") == "cuda"
    assert set(asked) == {gpu}


@pytest.mark.parametrize(
    ("restricted_to", "device", "reason"),
    [
        (None, "cuda:2", "this machine has 2 GPUs; known: cuda:0, cuda:1"),
        (None, "cuda:9999", "this machine has 2 GPUs"),
        ("3,5", "cuda:3", "CUDA_VISIBLE_DEVICES='3,5' leaves 2 GPUs; known: cuda:0, cuda:1"),
        ("GPU-8b1a,-1,GPU-77c0", "cuda:1", "CUDA_VISIBLE_DEVICES='.*' leaves 1 GPUs"),
        ("-1", "cuda:0", "CUDA_VISIBLE_DEVICES='-1' leaves no GPU"),
        ("", "cuda:0", "CUDA_VISIBLE_DEVICES='' leaves no GPU"),
    ],
)
@pytest.mark.usefixtures("driver", "unnarrowed")
def test_a_gpu_that_is_not_visible_is_refused(monkeypatch, restricted_to, device, reason):
    if restricted_to is not None:
        monkeypatch.setenv(VISIBLE, restricted_to)
    with pytest.raises(UsageError, match=f"device '{device}': {reason}"):
        environment.resolve_device(device)
    assert os.environ.get(VISIBLE) == restricted_to


@pytest.mark.usefixtures("unnarrowed")
def test_without_a_driver_pytorch_finds_out_that_a_gpu_is_not_there(monkeypatch):
    no_driver(monkeypatch)
    pytorch_sees(monkeypatch, None)
    with pytest.raises(UsageError, match=r"device 'cuda:1': PyTorch .* sees no GPU here"):
        environment.resolve_device("cuda:1")
    with pytest.raises(UsageError, match="device 'cuda:0': this process has cuda:1 already"):
        environment.resolve_device("cuda:0")


@pytest.mark.usefixtures("driver", "unnarrowed")
def test_a_gpu_that_is_chosen_too_late_is_refused(monkeypatch):
    pytorch_sees(monkeypatch, "slow")
    cuda_counts(monkeypatch, 2)
    with pytest.raises(UsageError, match="and set CUDA_VISIBLE_DEVICES=1 before the program"):
        environment.resolve_device("cuda:1")
    assert environment.resolve_device("cuda") == "cuda"
