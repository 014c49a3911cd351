"""The state of a training at one moment: JSON trees by file, and the tensors in them."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import Buffer, Parameter, is_lazy

from trainhooks.errors import StateUnsupported
from trainhooks.pytorch.checkpoint import sharding, tree
from trainhooks.storage.tensors import METADATA, Blob

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What safetensors can spell. Others go as bytes, with one more dimension, and their name in the tree."""
_ROOT = "value"
_STRIDED = torch.strided


@dataclass(slots=True)
class Part:
    """What goes to one file: its tree refers to tensors by their place in `tensors`."""

    encoded: Callable[[], tuple[Any, Any]] = lambda: (None, None)
    """Returns the tree as JSON, and the versions of the classes in a module, which torch keeps beside its state."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """By name in the file; by reference, to be copied under `no_grad`. Of one that is dealt out over the ranks, what
    this rank has."""
    sharded: dict[str, Any] = field(default_factory=dict)
    """Those of `tensors` that are dealt out over the ranks, as DTensors."""
    aliases: dict[str, str] = field(default_factory=dict)
    """Further names of a tensor that is in the file once, as of tied weights."""
    paths: dict[str, Tensor] = field(default_factory=dict)
    """Every tensor by its path in the tree."""

    def describe(self) -> dict[str, Any]:
        """Return the JSON that `rebuild` needs beside the tensors."""
        raw = {
            name: [str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
            for name, tensor in self.tensors.items()
            if tensor.dtype not in DTYPES and name not in self.sharded
        }
        sharded = {
            name: [str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
            for name, tensor in self.sharded.items()
        }
        encoded, versions = self.encoded()
        return {
            "tree": encoded,
            "tensors": list(self.tensors),
            "raw": raw,
            "versions": versions,
            "aliases": self.aliases,
            "sharded": sharded,
        }


def capture(value: Any, *, of: str) -> Part:
    """Take a value: its tensors by reference, shared ones once, everything else by value.

    Args:
        of: whose state it is, for error messages.

    Raises:
        StateUnsupported: naming what cannot be saved.
    """
    part = Part()
    starts: dict[int, list[tuple[Tensor, Any, int, str]]] = {}
    """Tensors by the address where they begin: with the DTensor that they are of, number and name."""

    def put(path: str, tensor: Tensor) -> int:
        dealt = tensor if type(tensor) is not Tensor and sharding.is_sharded(tensor) else None
        plain = _plain(tensor if dealt is None else _mine(dealt, path), path)
        part.paths[path] = plain if dealt is None else dealt.detach()
        start = plain.data_ptr()
        alike = starts.get(start)
        if alike is None:
            alike = starts[start] = []
        for other, whole, number, name in alike:
            is_alike = plain.numel() and identity(other) == identity(plain)
            if is_alike and (other if whole is None else whole).shape == tensor.shape:
                part.aliases[path] = name
                return number
        name = (
            path if path and path != METADATA and path not in part.tensors else _free_name(path or _ROOT, part.tensors)
        )
        number = len(part.tensors)
        alike.append((plain, dealt, number, name))
        part.tensors[name] = plain
        if dealt is not None:
            part.sharded[name] = part.paths[path]
        return number

    try:
        encoded = tree.encode(value, put), tree.encode(versions_of(value), put)
    except RecursionError:
        raise StateUnsupported(f"{of} contains itself.", hint="Give objects whose state_dict() is a tree.") from None
    except StateUnsupported as error:
        raise StateUnsupported(f"{of}: {error.message}", hint=error.hint) from None
    part.encoded = lambda: encoded
    return part


def versions_of(value: Any) -> Any:
    """Return what torch keeps beside a module's state: the versions of its classes."""
    return getattr(value, "_metadata", None) if isinstance(value, OrderedDict) else None


def rebuild(described: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    """Return the value that `capture` took.

    Args:
        described: from `Part.describe`.
        tensors: what the files hold, by name; they become part of the value.
    """
    numbered = [tensors[name] for name in described["tensors"]]
    value = tree.decode(described["tree"], numbered.__getitem__)
    if described["versions"] is not None:
        value._metadata = tree.decode(described["versions"], numbered.__getitem__)
    return value


def spelled_out(tensor: Tensor, dtype: str, shape: list[int]) -> Tensor:
    """Return a tensor of a dtype that went to the file as bytes. Not mapped from it: files don't align to 16 bytes."""
    return tensor.view(getattr(torch, dtype)).reshape(shape)


def blob(name: str, tensor: Tensor, wait: Callable[[], None] = lambda: None) -> Blob:
    """Return a contiguous CPU tensor's bytes as they go to the file.

    Args:
        wait: returns once the bytes are there.
    """
    dtype, shape = DTYPES.get(tensor.dtype), tuple(tensor.shape)
    if dtype is None:
        dtype, shape = "U8", (*shape, tensor.dtype.itemsize)
    flat = tensor.reshape(-1).view(torch.uint8)
    return Blob(name=name, dtype=dtype, shape=shape, data=memoryview(flat.numpy().data), wait=wait)


def identity(tensor: Tensor) -> tuple[Any, ...]:
    """Return what two tensors that begin at one address have alike if they are the same bytes read the same way."""
    return (
        tensor.shape,
        tensor.stride(),
        tensor.dtype,
        tensor.device,
        tensor.is_conj(),
        tensor.is_neg(),
    )


def _free_name(name: str, taken: Mapping[str, Tensor]) -> str:
    if name == METADATA:
        name = f"{name}~"
    number = 1
    free = name
    while free in taken:  # {"a.b": x, "a": {"b": y}} has one path twice
        number += 1
        free = f"{name}~{number}"
    return free


def _mine(tensor: Any, path: str) -> Tensor:
    if sharding.is_unreduced(tensor):
        raise StateUnsupported(
            f"{path or 'its top'} is a sum over the ranks that has not been made yet (a DTensor with Partial).",
            hint="Give it with redistribute(placements=[Replicate()]).",
        )
    return sharding.local(tensor)


def _plain(tensor: Tensor, path: str) -> Tensor:
    """Return the tensor without its graph and class; refuse what has no bytes of its own."""
    kind = type(tensor)
    if (
        (kind is Tensor or kind is Parameter)
        and tensor.layout is _STRIDED
        and not (tensor.is_meta or tensor.is_quantized)
    ):
        return tensor.detach() if kind is Parameter or tensor.requires_grad else tensor
    if is_lazy(tensor):
        refusal = "is not initialised yet"
    elif tensor.is_meta:
        refusal = "is on the meta device and has no data"
    elif tensor.is_quantized:
        refusal = "is quantised"
    elif tensor.layout is not torch.strided:
        refusal = f"has the layout {tensor.layout}"
    elif kind not in (Tensor, Parameter, Buffer) and hasattr(kind, "__tensor_flatten__"):
        refusal = f"is a {kind.__module__}.{kind.__qualname__}, which wraps other tensors"
    else:
        return tensor.detach().as_subclass(Tensor)
    raise StateUnsupported(
        f"{path or 'its top'} {refusal}, which cannot be saved exactly.",
        hint="Leave it out of the state, or give it a state_dict() of ordinary tensors.",
    )
