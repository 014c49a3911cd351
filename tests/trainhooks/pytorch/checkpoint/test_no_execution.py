"""Loading a checkpoint executes nothing, whoever made it and however well it is sealed."""

import io
import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.trainhooks.pytorch.objects import save
from trainhooks.core import manifest as manifests
from trainhooks.core.manifest import MANIFEST
from trainhooks.pytorch.checkpoint.saver import load
from trainhooks.pytorch.checkpoint.state import TrainingState
from trainhooks.storage import durable_file
from trainhooks.storage.checkpoints import CheckpointStore


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


def torch_zip(bomb: Bomb) -> bytes:
    file = io.BytesIO()
    torch.save({"weight": bomb}, file)
    return file.getvalue()


def object_array(bomb: Bomb) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([bomb], dtype=object), allow_pickle=True)
    return file.getvalue()


CORPUS: dict[str, Callable[[Bomb], bytes]] = {
    "pickle 0": lambda bomb: pickle.dumps(bomb, protocol=0),
    "pickle 5": lambda bomb: pickle.dumps(bomb, protocol=5),
    "torch.save": torch_zip,
    "numpy object array": object_array,
    "JSON that names a class": lambda bomb: json.dumps(
        {"v": 1, "py/reduce": ["os.mkdir", [bomb.path]], "$reduce": ["os.mkdir", [bomb.path]]}
    ).encode(),
}


@pytest.mark.parametrize("file", ["model.safetensors", "state.json", "rank-00000.json", "rank-00000.safetensors"])
@pytest.mark.parametrize("kind", CORPUS)
def test_nothing_in_any_file_is_executed(tmp_path: Path, file: str, kind: str) -> None:
    bomb = Bomb(tmp_path / "executed")
    checkpoint = save(tmp_path / "checkpoints", {"model": nn.Linear(2, 2)})
    (checkpoint.path / file).write_bytes(CORPUS[kind](bomb))
    files = {**checkpoint.manifest.files, file: durable_file.digest(checkpoint.path / file)}
    text = manifests.encode(replace(checkpoint.manifest, files=files))
    (checkpoint.path / MANIFEST).write_bytes(text)
    found = CheckpointStore(tmp_path / "checkpoints", "feed").newest_good()
    assert found is not None  # sealed by somebody who knows how
    with pytest.raises(Exception):  # noqa: B017
        load(found, TrainingState({"model": nn.Linear(2, 2)}))
    assert not (tmp_path / "executed").exists()
    pickle.loads(pickle.dumps(bomb))
    assert (tmp_path / "executed").exists(), "the corpus is no corpus"


@pytest.mark.parametrize("dtype", ["|O", "O"])
def test_an_array_of_objects_in_a_tree_is_refused(dtype: str) -> None:
    from trainhooks.pytorch.checkpoint import tree

    with pytest.raises((ValueError, TypeError)):
        tree.decode({"$ndarray": [dtype, [1], "AAAAAAAAAAA="]}, lambda number: torch.zeros(1))
