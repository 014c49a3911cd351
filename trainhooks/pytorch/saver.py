"""From live training state to a published checkpoint, and back."""

import json
import time
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from trainhooks.core.manifest import Manifest
from trainhooks.pytorch import tree
from trainhooks.pytorch.state import TrainingState
from trainhooks.storage import tensors
from trainhooks.storage.checkpoints import Checkpoint, CheckpointStore
from trainhooks.storage.tensors import Blob

STATE = "state.json"
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def save(
    store: CheckpointStore,
    state: TrainingState,
    *,
    step: int,
    session_id: str,
    attempt: int,
    progress: Mapping[str, Any],
    metrics: Mapping[str, float],
    tags: tuple[str, ...] = (),
) -> Checkpoint:
    """Write a checkpoint and return once it is durable.

    Args:
        progress: the loader's state and whatever else the caller wants back; JSON.
    """
    taken = state.capture()
    taken.add("rank-00000", state.capture_rank())
    draft = store.begin(step)
    for file, named in taken.tensors.items():
        draft.write_tensors(file, [_blob(name, tensor) for name, tensor in named.items()])
    draft.write_text(STATE, json.dumps({"v": 1, "trees": taken.trees, "progress": progress}).encode())
    manifest = Manifest(
        step=step,
        session_id=session_id,
        attempt=attempt,
        created_at=time.time(),
        files=draft.files,
        metrics=metrics,
        tags=tags,
    )
    return store.publish(draft, manifest)


def load(checkpoint: Checkpoint, state: TrainingState) -> dict[str, Any]:
    """Put a checkpoint's state back into the live objects, random numbers last; returns what `progress` held."""
    members = json.loads((checkpoint.path / STATE).read_bytes())
    trees = members["trees"]
    for name, each in state.objects.items():
        each.load_state_dict(_value(checkpoint, name, trees[name]))
    state.restore_rank(_value(checkpoint, "rank-00000", trees["rank-00000"]))
    progress: dict[str, Any] = members["progress"]
    return progress


def _value(checkpoint: Checkpoint, file: str, saved: Mapping[str, Any]) -> Any:
    named = load_file(checkpoint.path / (file + tensors.SUFFIX))
    numbered = [named[name] for name in saved["tensors"]]
    return tree.decode(saved["tree"], numbered.__getitem__)


def _blob(name: str, tensor: Tensor) -> Blob:
    data = tensor.to("cpu").contiguous()
    return Blob(
        name=name,
        dtype=DTYPES[tensor.dtype],
        shape=tuple(tensor.shape),
        data=memoryview(data.reshape(-1).view(torch.uint8).numpy().data),
    )
