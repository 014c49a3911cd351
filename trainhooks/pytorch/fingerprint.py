"""Short digests by which a resumed attempt is compared with the one before it. They wait for no device.

A batch can be anything, so its digest never raises, and what it costs is bounded in items: of a long list, a deep
structure or a large tensor it takes a sample, the same one each time.
"""

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainhooks.core.origin import Origin

VERSION = 2
"""Of the digest of a batch; digests of two versions are not compared. 1 read every item."""
_DIGEST_BYTES = 8
_MOST_ITEMS = 1_024
"""Of a batch, numbers and texts in containers: 0.3 ms."""
_MOST_OF_LIST = 16
_MOST_DEPTH = 12
_MOST_TEXT = 256
_MOST_BYTES = 16_384
"""Of one tensor: enough to notice other data, 20 us at most."""


def of_batch(origin: Origin | None, batch: Any) -> str:
    """Digest which samples a batch holds, and what is in it: tensors on the CPU by (some of) their bytes."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    if origin is not None:
        digest.update(repr((origin.epoch, origin.worker, origin.ids)).encode())
    try:
        for leaf in _leaves(batch, _Budget()):
            digest.update(leaf)
    except Exception as error:  # whatever an object raises when it is looked at: the training is not ended over this
        digest.update(type(error).__qualname__.encode())
    return digest.hexdigest()


def of_random_numbers() -> str:
    """Digest where the generators are: python's, numpy's, torch's on the CPU and on GPUs in use."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    python = random.getstate()
    digest.update(repr((hash(python[1]), python[2])).encode())
    legacy: Any = np.random.get_state()
    digest.update(legacy[1].tobytes())
    digest.update(repr(legacy[2:]).encode())
    digest.update(torch.get_rng_state().numpy().data)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        for each in torch.cuda.get_rng_state_all():
            digest.update(each.numpy().data)
    return digest.hexdigest()


class _Budget:
    """How many items of a batch are still looked at."""

    def __init__(self) -> None:
        self.items = _MOST_ITEMS

    def spend(self) -> bool:
        self.items -= 1
        return self.items >= 0


def _leaves(value: Any, budget: _Budget, depth: int = 0) -> Iterator[bytes | memoryview]:
    if not budget.spend() or depth > _MOST_DEPTH:
        return
    match value:
        case Tensor():
            yield from _tensor(value)
        case np.ndarray() if not value.dtype.hasobject and value.dtype.kind in "fiub":
            yield from _tensor(torch.from_numpy(np.ascontiguousarray(value)))
        case Mapping():
            for name in _sample(list(value)):
                yield repr(name).encode()
                yield from _leaves(value[name], budget, depth + 1)
        case str() | bytes():
            yield repr((len(value), value[:_MOST_TEXT], value[-_MOST_TEXT:])).encode()
        case bool() | int() | float() | complex() | None:
            yield repr(value).encode()
        case list() | tuple():
            yield f"[{len(value)}".encode()
            for item in _sample(value):
                yield from _leaves(item, budget, depth + 1)
        case _:
            yield type(value).__qualname__.encode()
            if hasattr(value, "__dict__"):
                yield from _leaves(vars(value), budget, depth + 1)


def _sample(items: Sequence[Any]) -> Sequence[Any]:
    """Return all items, or evenly spread ones with the last of them where there are many."""
    if len(items) <= _MOST_OF_LIST:
        return items
    stride = -(-len(items) // _MOST_OF_LIST)
    return [*items[::stride], items[-1]]


def _tensor(value: Tensor) -> Iterator[bytes | memoryview]:
    yield f"{value.dtype}{value.layout}".encode()
    if value.is_nested:
        for part in value.unbind():
            yield from _tensor(part)
        return
    yield repr(tuple(value.shape)).encode()
    if value.device.type == "cpu" and value.layout == torch.strided and value.numel():
        yield _some(value.detach().resolve_conj().resolve_neg())


def _some(tensor: Tensor) -> memoryview:
    """The tensor's bytes, or every n-th element where there are many."""
    flat = tensor.reshape(-1)
    flat = flat[:: max(1, flat.numel() * flat.element_size() // _MOST_BYTES)]
    return memoryview(flat.contiguous().view(torch.uint8).numpy().data)
