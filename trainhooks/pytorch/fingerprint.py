"""Short digests by which a resumed attempt is compared with the one before it. They wait for no device."""

import hashlib
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainhooks.core.origin import Origin

_DIGEST_BYTES = 8
_MOST_BYTES = 16_384
"""Of one tensor: enough to notice other data, 20 us at most."""


def of_batch(origin: Origin | None, batch: Any) -> str:
    """Digest which samples a batch holds, and what is in it: tensors on the CPU by (some of) their bytes."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    if origin is not None:
        digest.update(repr((origin.epoch, origin.worker, origin.ids)).encode())
    for leaf in _leaves(batch):
        digest.update(leaf)
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


def of_generators() -> dict[str, str]:
    """Digest where each generator is, by its name: of GPUs those of this process that are in use."""
    words = random.getstate()
    legacy: Any = np.random.get_state()
    states = {
        "python": repr(words).encode(),
        "numpy": legacy[1].tobytes() + repr(legacy[2:]).encode(),
        "torch": torch.get_rng_state().numpy().tobytes(),
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        for device, each in enumerate(torch.cuda.get_rng_state_all()):
            states[f"cuda:{device}"] = each.numpy().tobytes()
    return {name: _short(state) for name, state in states.items()}


def of_ids(origin: Origin) -> str:
    """Digest which samples a batch holds."""
    return _short(repr((origin.epoch, origin.worker, origin.ids)).encode())


def _short(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()


def _leaves(value: Any) -> Iterator[bytes | memoryview]:
    match value:
        case Tensor():
            yield f"{value.dtype}{tuple(value.shape)}".encode()
            if value.device.type == "cpu" and value.layout == torch.strided and value.numel():
                yield _some(value.detach())
        case np.ndarray() if not value.dtype.hasobject:
            yield from _leaves(torch.from_numpy(value) if value.dtype.kind in "fiub" else repr(value))
        case Mapping():
            for name, item in value.items():
                yield str(name).encode()
                yield from _leaves(item)
        case str() | bytes() | int() | float() | None:
            yield repr(value).encode()
        case list() | tuple():
            for item in value:
                yield from _leaves(item)
        case _ if hasattr(value, "__dict__"):
            yield from _leaves(vars(value))
        case _:
            yield type(value).__qualname__.encode()


def _some(tensor: Tensor) -> memoryview:
    """The tensor's bytes, or every n-th element where there are many."""
    flat = tensor.reshape(-1)
    flat = flat[:: max(1, flat.numel() * flat.element_size() // _MOST_BYTES)]
    return memoryview(flat.contiguous().view(torch.uint8).numpy().data)
