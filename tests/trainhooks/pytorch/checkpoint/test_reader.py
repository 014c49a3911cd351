"""torch.distributed.checkpoint reads our files: every dtype, tied names, conversions, and nothing that is pickled."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

from tests.trainhooks.pytorch.objects import Holder, save
from trainhooks.errors import CheckpointInvalid
from trainhooks.pytorch.checkpoint.reader import CheckpointReader

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is")
TIED = torch.randn(3, 4)
SAVED = {
    "plain": torch.randn(5, 3),
    "scalar": torch.tensor(3),
    "empty": torch.zeros(0, 4),
    "half": torch.randn(6).to(torch.bfloat16),
    "complex": torch.randn(2, 3, dtype=torch.complex128),
    "scale": torch.ones(5).to(torch.float8_e8m0fnu),
    "tied": TIED,
    "tied_too": TIED,
}


def read(root: Path, targets: dict[str, torch.Tensor], name: str = "model") -> dict[str, torch.Tensor]:
    dcp.load(targets, storage_reader=CheckpointReader(save(root, {"model": Holder(SAVED)}).path, name))
    return targets


def is_same(left: torch.Tensor, right: torch.Tensor) -> bool:
    bits = [each.reshape(-1).view(torch.uint8) for each in (left, right)]
    return left.dtype == right.dtype and left.shape == right.shape and torch.equal(*bits)


def test_every_kind_of_tensor_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("something was unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    found = read(tmp_path, {name: torch.empty_like(tensor) for name, tensor in SAVED.items()})
    assert all(is_same(found[name], tensor) for name, tensor in SAVED.items())


def test_a_target_of_another_dtype_is_converted_to(tmp_path: Path) -> None:
    found = read(tmp_path, {"plain": torch.empty(5, 3, dtype=torch.bfloat16)})
    assert is_same(found["plain"], SAVED["plain"].to(torch.bfloat16))


def test_what_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(CheckpointException, match="Missing key"):
        read(tmp_path / "a", {"none": torch.empty(1)})
    with pytest.raises(CheckpointException, match="Size mismatch"):
        read(tmp_path / "b", {"plain": torch.empty(3, 3)})
    path = save(tmp_path / "c", {"model": Holder(SAVED)}).path
    with pytest.raises(CheckpointInvalid, match="has no object other"):
        CheckpointReader(path, "other").read_metadata()
