"""Files that the safetensors library reads, with the hash of what is on disk."""

import hashlib
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from trainhooks.storage import durable_file, tensors
from trainhooks.storage.tensors import Blob


def blob(name: str, tensor: torch.Tensor, dtype: str = "F32") -> Blob:
    return Blob(name=name, dtype=dtype, shape=tuple(tensor.shape), data=memoryview(tensor.numpy().tobytes()))


def test_the_library_reads_what_was_written_and_the_hash_is_the_file_s(tmp_path: Path) -> None:
    named = {
        "big": torch.randn(3_000_000),  # more than one chunk
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(1.5),
        **{f"small.{number}": torch.randn(number) for number in range(1, 700)},  # more than one vectored write
    }
    path = tmp_path / "x.safetensors"
    record = tensors.write(path, [blob(name, tensor) for name, tensor in named.items()], metadata={"format": "pt"})
    loaded = load_file(path)
    assert loaded.keys() == named.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in named.items())
    assert record.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert record.size_bytes == path.stat().st_size
    assert durable_file.digest(path) == record


def test_a_short_write_is_carried_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.writev
    monkeypatch.setattr(os, "writev", lambda descriptor, pieces: real(descriptor, [memoryview(b"".join(pieces))[:7]]))
    data = os.urandom(20_000_000)
    record = durable_file.write(tmp_path / "x", [memoryview(data[:5]), memoryview(data[5:])])
    assert (tmp_path / "x").read_bytes() == data
    assert record.sha256 == hashlib.sha256(data).hexdigest()


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        durable_file.write(tmp_path / "x", [memoryview(b"other")])
    assert (tmp_path / "x").read_bytes() == b"mine"
