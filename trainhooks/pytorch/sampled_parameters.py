"""A digest of some of the parameters after a step: what one update came to, without reading all of them.

Of a model on a device the numbers are gathered there and sent on their way; nothing waits for them.
"""

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

from trainhooks.pytorch.checkpoint import sharding
from trainhooks.pytorch.checkpoint.state import TrainingState

_MOST_PARAMETERS = 256
_MOST_ELEMENTS = 16
"""Of each: an update moves nearly every element, so a few are enough."""


def sampled(state: TrainingState) -> "SampledParameters | None":
    """Return some of a training's parameters; None where it has none, or of a kind that cannot be looked at."""
    parameters = [parameter for _, parameter in state.parameters()]
    try:
        return SampledParameters(parameters) if parameters else None
    except (RuntimeError, NotImplementedError, TypeError, ValueError):
        return None


class SampledParameters:
    """Elements of a training's parameters at one moment, on their way to the host.

    Args:
        parameters: of all modules. Of those that are dealt out over ranks, what this rank has is looked at.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._parts: list[Tensor] = []
        self._events: list[torch.cuda.Event] = []
        by_device: dict[torch.device, list[Tensor]] = {}
        given = list(parameters)
        self._world = max((each.device_mesh.size() for each in given if sharding.is_sharded(each)), default=1)
        with torch.no_grad():
            for each in _chosen(given):
                by_device.setdefault(each.device, []).append(_some(each))
            for device, pieces in by_device.items():
                self._send(device, torch.cat(pieces))

    def _send(self, device: torch.device, gathered: Tensor) -> None:
        if device.type == "cuda":
            host = torch.empty(gathered.shape, dtype=gathered.dtype, pin_memory=True)
            host.copy_(gathered, non_blocking=True)
            self._events.append(torch.cuda.current_stream(device).record_event())
            gathered = host
        self._parts.append(gathered.cpu())

    @property
    def is_here(self) -> bool:
        """Whether `digest` would not wait."""
        return all(event.query() for event in self._events)  # type: ignore[no-untyped-call]

    def digest(self) -> str:
        """Return 16 hex digits; of parameters that are dealt out, `@` and the number of ranks behind them."""
        for event in self._events:
            event.synchronize()
        digest = hashlib.blake2b(digest_size=8)
        for part in self._parts:
            digest.update(part.numpy().data)
        return digest.hexdigest() + (f"@{self._world}" if self._world > 1 else "")


def _chosen(parameters: list[Tensor]) -> list[Tensor]:
    """Return those that have elements here, every n-th where there are many."""
    trained = [each for each in parameters if each.requires_grad] or parameters
    here = [sharding.local(each) if sharding.is_sharded(each) else each for each in trained]
    here = [each for each in here if each.numel() and not each.is_meta]
    return here[:: -(-len(here) // _MOST_PARAMETERS)] if here else []


def _some(parameter: Tensor) -> Tensor:
    """Return the bytes of a few elements, from all over the tensor."""
    flat = parameter.detach().reshape(-1)
    flat = flat[:: max(1, flat.numel() // _MOST_ELEMENTS)][:_MOST_ELEMENTS]
    return flat.contiguous().view(torch.uint8)
