"""A checkpoint's state back into the live objects: each tensor to where, and dealt out as, the live one is."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from trainhooks.pytorch.checkpoint import sharding
from trainhooks.pytorch.checkpoint.capture import rebuild, spelled_out
from trainhooks.pytorch.checkpoint.saved import GRADIENTS, RANK, STATE, read_json
from trainhooks.pytorch.checkpoint.state import TrainingState
from trainhooks.storage import tensors
from trainhooks.storage.checkpoints import Checkpoint

Target = Callable[[str, Sequence[int]], Tensor | None]
"""Gives, for a saved tensor's name and shape, the live tensor whose device and layout it is to have."""


def load(checkpoint: Checkpoint, state: TrainingState, *, rank: int = 0) -> Any:
    """Put a verified checkpoint's state back into the live objects; returns what `progress` held.

    A rank that the checkpoint does not have takes the progress and the gradients of rank 0, and keeps its own random
    numbers.

    Raises:
        StateUnsupported: it does not fit; nothing was changed.
    """
    path = checkpoint.path
    shared = read_json(path, STATE)
    objects = shared["objects"]
    is_known = rank < checkpoint.manifest.world
    mine = RANK.format(rank if is_known else 0)
    described = read_json(path, f"{mine}.json")
    own = rebuild(described, read(path, mine, described))
    state.restore(objects, shared["kinds"], lambda name, target: read(path, name, objects[name], target))
    dealt = shared.get(GRADIENTS)
    gradients = {} if dealt is None else rebuild(dealt, read(path, GRADIENTS, dealt, state.gradient_target))
    state.restore_gradients({**own["gradients"], **gradients})
    if is_known:
        state.restore_random(own["rng"])
    return own["progress"]


def read(
    checkpoint: Path, name: str, described: Mapping[str, Any], target: Target = lambda name, shape: None
) -> dict[str, Tensor]:
    """Return an object's tensors by name; what has no target is whole, on the CPU."""
    found = {}
    file = checkpoint / (name + tensors.SUFFIX)
    for key, mapped in load_file(file).items() if file.exists() else ():
        is_raw = key in described["raw"]
        tensor = spelled_out(mapped.clone(), *described["raw"][key]) if is_raw else mapped
        found[key] = _placed(tensor, target(key, tensor.shape))
    if described.get("sharded"):
        goals = {
            key: _goal(getattr(torch, dtype), shape, target(key, shape))
            for key, (dtype, shape) in described["sharded"].items()
        }
        _fill(checkpoint, name, described, {key: goal for key, goal in goals.items() if not goal.is_meta})
        found |= goals
    return found


def _placed(mapped: Tensor, live: Tensor | None) -> Tensor:
    """Read a tensor: one that stays mapped from its file would keep the file's disk space after its deletion."""
    if live is None:
        return mapped.clone()
    if sharding.is_sharded(live) and live.shape == mapped.shape:
        return sharding.cut(mapped, live)
    return mapped.clone().to(live.device)


def _goal(dtype: torch.dtype, shape: Sequence[int], live: Tensor | None) -> Tensor:
    """Return what a tensor that was dealt out is to be read into; without data where it does not fit the live one."""
    if live is None or not sharding.is_sharded(live):
        return torch.empty(tuple(shape), dtype=dtype, device=None if live is None else live.device)
    if list(live.shape) != list(shape):
        return torch.empty(tuple(shape), dtype=dtype, device="meta")
    return sharding.like(live, torch.empty_like(sharding.local(live), dtype=dtype))


def _fill(checkpoint: Path, name: str, described: Mapping[str, Any], goals: dict[str, Tensor]) -> None:
    from trainhooks.pytorch.checkpoint.reader import CheckpointReader  # 0.5 s, for who needs it

    CheckpointReader(checkpoint, name, described=described).fill(goals)
