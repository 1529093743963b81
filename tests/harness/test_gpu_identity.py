"""Which GPU is meant: PyTorch's, whatever else the (simulated) driver shows."""

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
        ("cuda:1", "device 'cuda:1': a GPU is chosen by the environment; take device=cuda, and "),
        ("mps", r"device 'mps' is not supported; known: auto, cpu, cuda \(NVIDIA GPUs\)"),
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
