"""Torch files: data is read, code is refused and never run, damage is one sentence."""

import os
import pickle
from pathlib import Path

import pytest
import torch

from trainhooks.pytorch.checkpoint import torch_file
from trainhooks.pytorch.checkpoint.torch_file import TorchFileRefused, read


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.path),)


def test_data_is_read(tmp_path: Path) -> None:
    torch.save({"model": {"w": torch.ones(3)}, "epoch": 4, "metrics": [{"loss": 1.5}]}, tmp_path / "a.pt")
    members = read(tmp_path / "a.pt")
    assert torch.equal(members["model"]["w"], torch.ones(3))
    assert members["metrics"] == [{"loss": 1.5}]


@pytest.mark.parametrize("form", ["torch", "legacy", "bare pickle"])
def test_code_is_refused_and_not_run(tmp_path: Path, form: str) -> None:
    path, proof = tmp_path / "evil.pt", tmp_path / "it-ran"
    if form == "bare pickle":
        path.write_bytes(pickle.dumps(Bomb(proof), protocol=2))
    else:
        torch.save({"rng": Bomb(proof)}, path, _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(TorchFileRefused):
        read(path)
    assert not proof.exists()
    pickle.loads(pickle.dumps(Bomb(proof), protocol=2))
    assert proof.exists(), "the bomb is a dud: this test would prove nothing"


@pytest.mark.parametrize("cut", [0, 10, 400])
def test_damage_is_one_sentence(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.pt"
    torch.save({"w": torch.ones(300)}, path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(TorchFileRefused, match=r"damaged or no torch file|holds more than"):
        read(path)
    with pytest.raises(TorchFileRefused):
        read(tmp_path / "nowhere.pt")


@pytest.mark.parametrize(
    ("version", "warnings"), [("2.9.1+cu126", 1), ("2.10.0", 0), ("2.13.0+cpu", 0), ("3.0.0a1", 0)]
)
def test_a_torch_that_a_file_can_attack_is_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, version: str, warnings: int
) -> None:
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion(version))
    torch_file._warn_of.cache_clear()
    torch.save({"w": torch.ones(2)}, tmp_path / "w.pt")
    for _ in range(2):
        assert torch.equal(torch_file.read(tmp_path / "w.pt")["w"], torch.ones(2))
    assert sum("CVE-2026-24747" in each.getMessage() for each in caplog.records) == warnings
