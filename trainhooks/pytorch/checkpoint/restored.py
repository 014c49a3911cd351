"""Whether the live objects are what the checkpoint holds of them: captured again and compared, byte by byte.

Finds a `load_state_dict` that drops or changes something, and what a script loads, builds or sets between the resume
and the first step. What an object has beyond what was saved is no difference: newer releases of torch add members.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainhooks.core.difference import Difference, differ, shortened
from trainhooks.core.restore import Restore
from trainhooks.pytorch.checkpoint import module_state, sharding
from trainhooks.pytorch.checkpoint.capture import capture, rebuild
from trainhooks.pytorch.checkpoint.loading import Target, read
from trainhooks.pytorch.checkpoint.saved import RANK, STATE, read_json
from trainhooks.pytorch.checkpoint.state import TrainingState

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def compare(checkpoint: Path, state: TrainingState, *, rank: int, world: int) -> Difference | None:
    """Return the first thing that is not as the checkpoint has it; None: everything is.

    Args:
        rank, world: this process, and how many wrote the checkpoint.

    Raises:
        OSError: the checkpoint is gone.
    """
    objects = read_json(checkpoint, STATE)["objects"]
    for name, each in state.objects.items():
        mode = state.modes.get(name)
        if mode is Restore.STATE_ONLY and not isinstance(each, torch.optim.Optimizer):
            continue  # a schedule under other settings
        live = module_state.state_of(each)
        target = _only_dealt(state.target(name, capture(live, of=name)))
        saved = rebuild(objects[name], read(checkpoint, name, objects[name], target))
        if isinstance(each, torch.nn.Module):
            saved = module_state.fitted(each, saved)
        if mode is Restore.STATE_ONLY:
            saved = {"state": saved["state"]}
        found = next(_differences(name, saved, live), None)
        if found is not None and found == next(_differences(name, saved, module_state.state_of(each)), None):
            return found  # one that differs from look to look, such as a clock, is nothing that was restored
    if rank < world:
        described = read_json(checkpoint, f"{RANK.format(rank)}.json")
        own = rebuild(described, read(checkpoint, RANK.format(rank), described))
        now = {path: parameter.grad for path, parameter in state.parameters() if parameter.grad is not None}
        names = {path for path, _ in state.parameters()}
        kept = {path: each for path, each in own["gradients"].items() if isinstance(each, Tensor) and path in names}
        return next(_differences("gradient", kept, now), None)
    return None


def _only_dealt(target: Target) -> Target:
    """Place only what is dealt out over the ranks: a second copy of the rest may not fit on the device."""

    def only(name: str, shape: Sequence[int]) -> Tensor | None:
        live = target(name, shape)
        return live if live is not None and sharding.is_sharded(live) else None

    return only


def _differences(path: str, saved: Any, live: Any) -> Iterator[Difference]:
    """Yield what `saved` has and `live` has not, or has otherwise."""
    if isinstance(saved, Tensor) and isinstance(live, Tensor):
        if (found := _tensors_differ(path, saved, live)) is not None:
            yield found
    elif isinstance(saved, Mapping) and isinstance(live, Mapping):
        for name, each in saved.items():
            if name in live:
                yield from _differences(f"{path}.{name}", each, live[name])
            else:
                yield Difference(what=f"{path}.{name}", before=_spelled(each), after="not there")
    elif isinstance(saved, list | tuple) and isinstance(live, list | tuple) and len(saved) == len(live):
        for at, (one, other) in enumerate(zip(saved, live, strict=True)):
            yield from _differences(f"{path}[{at}]", one, other)
    elif isinstance(saved, Tensor) or isinstance(live, Tensor):
        yield Difference(what=path, before=_spelled(saved), after=_spelled(live))
    elif isinstance(saved, np.ndarray) and isinstance(live, np.ndarray):
        if (saved.dtype, saved.shape, saved.tobytes()) != (live.dtype, live.shape, live.tobytes()):
            yield Difference(what=path, before=_spelled(saved), after=_spelled(live))
    elif isinstance(saved, set | frozenset) and isinstance(live, set | frozenset):
        if saved != live:
            yield Difference(what=path, before=_spelled(saved), after=_spelled(live))
    elif (found := differ(path, saved, live)) is not None:
        yield found


def _tensors_differ(path: str, saved: Tensor, live: Tensor) -> Difference | None:
    if (saved.dtype, saved.shape) != (live.dtype, live.shape):
        return Difference(what=path, before=_form(saved), after=_form(live))
    if sharding.is_sharded(live) and not sharding.is_sharded(saved):
        saved = sharding.cut(saved.to(live.device), live)  # it was whole when it was saved
    one, other = _bits(saved), _bits(live)
    one = one.to(other.device)
    if torch.equal(one, other):
        return None
    at = int((one != other).nonzero()[0]) * one.element_size() // saved.element_size()
    values = (_local(each).contiguous().view(-1)[at].item() for each in (saved, live))
    before, after = (shortened(f"{value!r} (element {at})") for value in values)
    return Difference(what=path, before=before, after=after)


def _local(tensor: Tensor) -> Tensor:
    return sharding.local(tensor) if sharding.is_sharded(tensor) else tensor


def _bits(tensor: Tensor) -> Tensor:
    """Return the elements as integers of their size, so that NaN equals NaN and every bit counts."""
    flat = _local(tensor).detach().contiguous().view(-1)
    return flat.view(_INTEGERS.get(flat.element_size(), torch.uint8))


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _spelled(value: Any) -> str:
    if isinstance(value, Tensor):
        return _form(value)
    return f"{len(value)} members" if isinstance(value, Mapping) else shortened(repr(value))
