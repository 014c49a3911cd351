"""Gradients of an open accumulation window, as they are saved and put back."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from trainhooks.pytorch.checkpoint import sharding, wrapper

Gradient = Tensor | bool | Mapping[str, Any]
"""A gradient as it is saved: its values, of a sparse one indices and values, or True: it exists and is used up."""


def taken(
    parameters: Iterable[tuple[str, Tensor]], is_spent: Callable[[Tensor], bool], *, dealt: bool
) -> dict[str, Gradient]:
    """Return the gradients of parameters that are dealt out over the ranks, or of the others.

    Of one that is used up (see `GradientHabit`) only that it exists counts, since None and zero are not the same to an
    optimizer.
    """
    return {
        path: True if is_spent(parameter) else _kept(parameter.grad)
        for path, parameter in parameters
        if parameter.grad is not None and sharding.is_sharded(parameter) is dealt
    }


def put_back(objects: Mapping[str, Any], gradients: Mapping[str, Gradient]) -> None:
    """Put back gradients, of every parameter of these objects; those that are not given are none."""
    gradients = _plain(objects, gradients)
    for path, parameter in wrapper.parameters_of(objects):
        saved = gradients.get(path)
        if saved is None:
            parameter.grad = None
        elif isinstance(saved, Mapping):
            parts = (saved["indices"], saved["values"], tuple(saved["shape"]))
            parameter.grad = torch.sparse_coo_tensor(*parts, is_coalesced=True, check_invariants=True).to(
                parameter.device, parameter.dtype
            )
        elif isinstance(saved, Tensor):
            if sharding.is_sharded(parameter) and not sharding.is_sharded(saved):
                saved = sharding.cut(saved, parameter)
            parameter.grad = saved.to(parameter.device, parameter.dtype)
        else:
            parameter.grad = torch.zeros_like(parameter)


def _plain(objects: Mapping[str, Any], gradients: Mapping[str, Gradient]) -> dict[str, Gradient]:
    """Return gradients by plain names, where a release before wrote those of wrappers inside a module."""
    found = dict(gradients)
    for name, each in objects.items():
        if isinstance(each, torch.nn.Module):
            prefix = f"{name}."
            own = [path for path in found if path.startswith(prefix)]
            saved = {path.removeprefix(prefix): found.pop(path) for path in own}
            wanted = [path for path, _ in wrapper.named_parameters(each)]
            found |= {prefix + path: value for path, value in wrapper.fitted(each, saved, wanted).items()}
    return found


def _kept(gradient: Tensor) -> Gradient:
    """Return a gradient as it is saved: of a sparse one, which has no bytes of its own, indices and values."""
    if gradient.layout is not torch.sparse_coo:
        return gradient
    whole = gradient.coalesce()
    return {"indices": whole.indices(), "values": whole.values(), "shape": list(whole.shape)}
