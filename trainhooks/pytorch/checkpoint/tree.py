"""Nested state <-> JSON beside a list of tensors. No pickle: what is not known here is refused by name.

A container or scalar that JSON does not have is written as an object with the one member `$TYPE`; a dict whose keys are
not plain strings, or begin with `$`, is written as pairs.
"""

import base64
import math
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainhooks.errors import StateUnsupported

Put = Callable[[str, Tensor], int]
"""Keep a tensor found at a path; returns the number it is known by."""
Get = Callable[[int], Tensor]
_INT = {int}


def encode(value: Any, put: Put, path: str = "") -> Any:
    """Return `value` as JSON; tensors go to `put` and leave their number.

    Raises:
        StateUnsupported: naming the path of what cannot be saved.
    """
    match value:
        case Tensor():
            return {"$tensor": put(path, value)}
        case None | bool() | str():
            return value
        case dict():
            return _encode_dict(value, put, path)
        case np.generic() if value.dtype.kind not in "OV":
            return {"$numpy": [value.dtype.str, _text(value.tobytes())]}
        case int():
            return int(value)
        case float():
            return value if math.isfinite(value) else {"$float": repr(value)}
        case complex():
            return {"$complex": [repr(value.real), repr(value.imag)]}
        case bytes():
            return {"$bytes": _text(value)}
        case np.ndarray() if type(value) is np.ndarray and value.dtype.kind not in "OV":
            return {"$ndarray": [value.dtype.str, list(value.shape), _text(value.tobytes())]}
        case torch.Size():
            return {"$size": list(value)}
        case tuple() if not hasattr(value, "_fields"):
            return {"$tuple": [encode(item, put, f"{path}[{at}]") for at, item in enumerate(value)]}
        case list() if are_integers(value):  # 624 words of a generator, at every checkpoint
            return list(value)
        case list():
            return [encode(item, put, f"{path}[{at}]") for at, item in enumerate(value)]
        case set() | frozenset():
            return {f"${type(value).__name__}": [encode(item, put, path) for item in sorted(value, key=repr)]}
        case torch.dtype() | torch.device():
            return {f"${type(value).__name__}": str(value)}
        case _:
            kind = f"{type(value).__module__}.{type(value).__qualname__}"
            raise StateUnsupported(
                f"{path or 'its top'} is a {kind}, which cannot be saved without pickle.",
                hint="Give objects whose state_dict() holds tensors, numbers, text, and containers of them.",
            )


def _encode_dict(value: dict[Any, Any], put: Put, path: str) -> Any:
    prefix = f"{path}." if path else ""
    if is_plain(value):
        return {
            name: {"$tensor": put(prefix + name, item)} if type(item) is Tensor else encode(item, put, prefix + name)
            for name, item in value.items()
        }
    kind = "$ordered" if isinstance(value, OrderedDict) else "$counter" if isinstance(value, Counter) else "$dict"
    return {
        kind: [
            [
                name if type(name) is str else encode(name, put, path),
                {"$tensor": put(f"{prefix}{name}", item)}
                if type(item) is Tensor
                else encode(item, put, f"{prefix}{name}"),
            ]
            for name, item in value.items()
        ]
    }


def is_plain(value: dict[Any, Any]) -> bool:
    """Whether a dict is written as a JSON object."""
    return type(value) is dict and all(map(_is_plain_name, value))


def are_integers(value: list[Any]) -> bool:
    """Whether a list has integers alone."""
    return set(map(type, value)) <= _INT


def _is_plain_name(name: Any) -> bool:
    return type(name) is str and name[:1] != "$"


def decode(value: Any, get: Get) -> Any:
    """Return what `encode` was given.

    Raises:
        StateUnsupported: written by a newer release.
    """
    match value:
        case list():
            return [decode(item, get) for item in value]
        case dict() if len(value) == 1 and (kind := next(iter(value))).startswith("$"):
            return _decode_special(kind, value[kind], get)
        case dict():
            return {name: decode(item, get) for name, item in value.items()}
        case _:
            return value


def _decode_special(kind: str, value: Any, get: Get) -> Any:
    match kind:
        case "$tensor":
            return get(value)
        case "$float":
            return float(value)
        case "$complex":
            return complex(float(value[0]), float(value[1]))
        case "$bytes":
            return base64.b64decode(value)
        case "$numpy":
            return np.frombuffer(base64.b64decode(value[1]), dtype=value[0])[0]
        case "$ndarray":
            return np.frombuffer(base64.b64decode(value[2]), dtype=value[0]).reshape(value[1]).copy()
        case "$size":
            return torch.Size(value)
        case "$tuple":
            return tuple(decode(item, get) for item in value)
        case "$set" | "$frozenset":
            return (set if kind == "$set" else frozenset)(decode(item, get) for item in value)
        case "$dtype":
            return getattr(torch, value.removeprefix("torch."))
        case "$device":
            return torch.device(value)
        case "$dict" | "$ordered" | "$counter":
            pairs = [(decode(name, get), decode(item, get)) for name, item in value]
            return (
                OrderedDict(pairs)
                if kind == "$ordered"
                else Counter(dict(pairs))
                if kind == "$counter"
                else dict(pairs)
            )
        case _:
            raise StateUnsupported(
                f"The saved state holds a {kind} that this release does not know.",
                hint="Upgrade trainhooks to read it.",
            )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
