"""A checkpoint that a training cannot continue from is one line, and runs no code."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from lisabench.benchmarks.training.checkpoints import (
    HASHES,
    PARAMETERS,
    REST,
    STATE,
    Checkpoints,
    restore,
)
from lisabench.harness.errors import DataError

pytestmark = pytest.mark.no_clock


class Code:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("ran"),))


@pytest.fixture
def parameters() -> dict[str, nn.Parameter]:
    return {"a": nn.Parameter(torch.arange(6.0).reshape(2, 3))}


@pytest.fixture
def checkpoint(tmp_path: Path, parameters: dict[str, nn.Parameter]) -> Path:
    kept = Checkpoints(tmp_path, lambda _: None)
    kept.save_last(4, dict(parameters), {"step": 4, "optimizer": {}, "random": [{}]})
    return tmp_path / "checkpoint-4"


def test_a_whole_checkpoint_is_restored(checkpoint: Path) -> None:
    zeros = {"a": nn.Parameter(torch.zeros(2, 3))}
    assert restore(checkpoint, zeros)["step"] == 4
    assert torch.equal(zeros["a"], torch.arange(6.0).reshape(2, 3))


def flip_a_bit(file: Path, share: float) -> None:
    content = bytearray(file.read_bytes())
    content[int(share * len(content))] ^= 1 << 6
    file.write_bytes(content)


FLIPPED = {
    "a parameter": (PARAMETERS, 0.999),
    "the header of the parameters": (PARAMETERS, 0.2),
    "a state of the optimizer": (REST, 0.5),
    "the end of the rest": (REST, 0.99),
}


@pytest.mark.parametrize("place", FLIPPED)
def test_a_flipped_bit_of_the_state_is_seen(
    place: str, checkpoint: Path, parameters: dict[str, nn.Parameter]
) -> None:
    name, share = FLIPPED[place]
    flip_a_bit(checkpoint / STATE / name, share)
    with pytest.raises(DataError, match=f"checkpoint-4 is broken .{name} is not what was written"):
        restore(checkpoint, parameters)
    assert torch.equal(parameters["a"], torch.arange(6.0).reshape(2, 3))


def test_a_checkpoint_of_before_the_hashes_is_restored(
    checkpoint: Path, parameters: dict[str, nn.Parameter]
) -> None:
    (checkpoint / STATE / HASHES).unlink()
    assert restore(checkpoint, parameters)["step"] == 4


def without_hashes(damage: Callable[[Path], object]) -> Callable[[Path], None]:
    """Return a damage of a checkpoint that was written before there were hashes."""

    def spoil(state: Path) -> None:
        (state / HASHES).unlink()
        damage(state)

    return spoil


DAMAGES = {
    "no rest": lambda state: (state / REST).unlink(),
    "an empty rest": lambda state: (state / REST).write_bytes(b""),
    "a rest of text": lambda state: (state / REST).write_bytes(b"hello world" * 9),
    "a rest that is cut": lambda state: (state / REST).write_bytes(
        (state / REST).read_bytes()[:-200]
    ),
    "a rest of a list": lambda state: torch.save([1, 2], state / REST),
    "a rest without its step": lambda state: torch.save({"optimizer": {}}, state / REST),
    "a rest of an earlier step": lambda state: torch.save({"step": 0}, state / REST),
    "a rest of a step before the first": lambda state: torch.save({"step": -1}, state / REST),
    "a rest of a step after the last": lambda state: torch.save({"step": 2**63}, state / REST),
    "a rest that could run code": lambda state: torch.save({"step": Code()}, state / REST),
    "no parameters": lambda state: (state / PARAMETERS).unlink(),
    "parameters that are cut": lambda state: (state / PARAMETERS).write_bytes(
        (state / PARAMETERS).read_bytes()[:-3]
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("has_hashes", [True, False])
def test_a_damaged_one_is_named_in_one_line(
    damage: str,
    has_hashes: bool,
    checkpoint: Path,
    parameters: dict[str, nn.Parameter],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    spoil = DAMAGES[damage] if has_hashes else without_hashes(DAMAGES[damage])
    spoil(checkpoint / STATE)
    with pytest.raises(DataError, match=r"checkpoint-4 is broken .*start again in a new") as error:
        restore(checkpoint, parameters)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_parameters_of_other_shapes_are_those_of_another_training(checkpoint: Path) -> None:
    for shape in ((3, 2), (6,)):
        with pytest.raises(DataError, match="has other trained parameters"):
            restore(checkpoint, {"a": nn.Parameter(torch.zeros(shape))})
