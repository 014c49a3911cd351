"""Tensors that are dealt out over the ranks (DTensors, as FSDP2's `fully_shard` makes them): what of one is here."""

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

Box = tuple[tuple[int, ...], tuple[int, ...]]
"""(offsets, sizes) of a part of a tensor."""


def is_sharded(tensor: object) -> "TypeGuard[DTensor]":
    """Whether it is a DTensor. Loads nothing: who has none has not loaded the module."""
    if type(tensor) is Tensor:
        return False
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def are_any_sharded(tensors: Iterable[object]) -> bool:
    """Whether one of many is a DTensor: their types are few."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and any(issubclass(kind, module.DTensor) for kind in set(map(type, tensors)))


def local(tensor: "DTensor") -> Tensor:
    """Return what this rank has of it, by reference."""
    with torch.no_grad():
        return tensor.to_local()


def is_unreduced(tensor: "DTensor") -> bool:
    """Whether the ranks hold parts of a sum that is still to be made."""
    return any(placement.is_partial() for placement in tensor.placements)


def box(tensor: "DTensor") -> Box | None:
    """Return where this rank's part lies in the tensor, as torch's own checkpoints expect it; None: it has no part."""
    if tensor.device_mesh.get_coordinate() is None:
        return None
    described: Any = tensor
    [chunk] = described.__create_chunk_list__()  # the protocol between DTensor and torch.distributed.checkpoint
    sizes = tuple(chunk.sizes)
    return (tuple(chunk.offsets), sizes) if all(sizes) else None


def own_box(tensor: "DTensor") -> Box | None:
    """Return the box that this rank is to write. Of replicas the first writes."""
    coordinate = tensor.device_mesh.get_coordinate()
    if coordinate is None or any(
        at and placement.is_replicate() for at, placement in zip(coordinate, tensor.placements, strict=True)
    ):
        return None
    return box(tensor)


def like(tensor: "DTensor", mine: Tensor) -> "DTensor":
    """Return a tensor that is dealt out as `tensor` is, of which this rank has `mine`."""
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        mine, tensor.device_mesh, tensor.placements, run_check=False, shape=tensor.shape, stride=tensor.stride()
    )


def cut(whole: Tensor, tensor: "DTensor") -> "DTensor":
    """Deal a whole tensor out as `tensor` is: a copy of what this rank is to have."""
    mine = torch.empty_like(local(tensor), dtype=whole.dtype)
    place = box(tensor)
    if place is not None:
        mine.copy_(whole[tuple(slice(offset, offset + size) for offset, size in zip(*place, strict=True))])
    return like(tensor, mine)
