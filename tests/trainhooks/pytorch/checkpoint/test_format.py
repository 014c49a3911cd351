"""docs/formats/checkpoint.md: a sample of each version is read by every release."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from trainhooks.errors import StateUnsupported
from trainhooks.pytorch.checkpoint.loading import load
from trainhooks.pytorch.checkpoint.saved import RANK, SHARD, STATE, STATE_VERSION
from trainhooks.pytorch.checkpoint.state import TrainingState
from trainhooks.recovery import weights
from trainhooks.recovery.found import SavedModel
from trainhooks.storage.checkpoints import Checkpoint, published
from trainhooks.storage.verification import verify

DATA = Path(__file__).resolve().parents[3] / "data"


def sample(version: int) -> Checkpoint:
    """Version 1 is of one process; version 2 of two ranks over which the model was sharded."""
    [found] = published(DATA / f"checkpoint_v{version}")
    verify(found.path)
    return found


@pytest.mark.parametrize(("version", "world"), [(1, 1), (2, 2)])
def test_each_version_is_read(version: int, world: int) -> None:
    checkpoint = sample(version)
    manifest = checkpoint.manifest
    assert (manifest.step, manifest.world, manifest.tags, dict(manifest.metrics)) == (
        2,
        world,
        ("sample",),
        {"loss": 0.5},
    )
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    assert load(checkpoint, TrainingState({"model": model, "optimizer": optimizer})) == {"step": 2, "loader": None}
    wanted = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.arange(2.0) + 10}
    for number, (name, parameter) in enumerate(model.named_parameters()):
        assert torch.equal(parameter, wanted[name])
        assert parameter.grad is not None, "it was there and spent"
        assert optimizer.state[parameter]["step"] == 1
        assert bool((optimizer.state[parameter]["exp_avg"] == number + 0.5).all())
    found = weights.read(SavedModel(path=checkpoint.path, is_ours=True))
    assert {name: each.tolist() for name, each in found.items()} == {
        name: each.tolist() for name, each in wanted.items()
    }


@pytest.mark.parametrize("name", [STATE, f"{RANK.format(0)}.json", f"{SHARD.format(0)}.json"])
def test_a_newer_version_is_refused_and_nothing_is_changed(tmp_path: Path, name: str) -> None:
    checkpoint = sample(2)
    shutil.copytree(checkpoint.path, tmp_path / "copy")
    path = tmp_path / "copy" / name
    path.write_text(json.dumps({**json.loads(path.read_text()), "v": STATE_VERSION + 1}))
    model = nn.Linear(3, 2)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    state = TrainingState({"model": model, "optimizer": torch.optim.AdamW(model.parameters())})
    with pytest.raises(StateUnsupported, match=f"has version {STATE_VERSION + 1}"):
        load(replace(checkpoint, path=tmp_path / "copy"), state)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
