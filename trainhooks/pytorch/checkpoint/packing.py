"""Where each of many tensors lies in few flat blocks, on a device and on the host alike."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter

import torch
from torch import Tensor
from torch._C._nn import flatten_dense_tensors

_LEAST_BLOCK_BYTES = 64 << 20
_MOST_BLOCK_BYTES = 512 << 20
"""Far below 2^31 elements, where `torch.cat` leaves its fast path."""
_BLOCKS = 32
"""About as many, where their sizes allow it: each is one allocation, and is returned once it is on the host."""
_LARGE_BYTES = 256 << 10
"""Without room on the device a tensor from here on is sent alone. Smaller ones are joined before: each is a launch and
a wait."""
_ALIGNMENT = 64
"""Bytes, of a block on the host; suits every dtype."""
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
KNOWN = frozenset(
    {torch.float64, torch.float32, torch.float16, torch.bfloat16}
    | {torch.int64, torch.int32, torch.int16, torch.uint8, torch.bool}
)
"""Dtypes that every operation takes; bits of others are copied as integers."""
_SHAPE, _DTYPE = attrgetter("shape"), attrgetter("dtype")


@dataclass(frozen=True, slots=True)
class Block:
    """Tensors that lie one right behind the other."""

    places: tuple[int, ...]
    """Of its tensors, among all."""
    size_bytes: int
    start: int
    """Where it begins on the host, in bytes."""


class Packing:
    """The blocks of one layout. Tensors of a block have one dtype and are all large or all small."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._shapes = [tensor.shape for tensor in tensors]
        self._dtypes = [tensor.dtype for tensor in tensors]
        sizes = [tensor.nbytes for tensor in tensors]
        limit = min(max(sum(sizes) // _BLOCKS, _LEAST_BLOCK_BYTES), _MOST_BLOCK_BYTES)
        open_ones: dict[tuple[torch.dtype, bool], list[int]] = {}
        filled: dict[tuple[torch.dtype, bool], int] = {}
        groups: list[list[int]] = []
        for place, (dtype, size) in enumerate(zip(self._dtypes, sizes, strict=True)):
            kind = dtype, size >= _LARGE_BYTES
            if kind not in open_ones or filled[kind] + size > limit:
                groups.append([])
                open_ones[kind], filled[kind] = groups[-1], 0
            open_ones[kind].append(place)
            filled[kind] += size
        self.blocks: list[Block] = []
        self.size_bytes = 0
        """On the host."""
        for group in groups:
            size = sum(sizes[place] for place in group)
            self.blocks.append(Block(places=tuple(group), size_bytes=size, start=self.size_bytes))
            self.size_bytes += -(-size // _ALIGNMENT) * _ALIGNMENT

    def fits(self, tensors: Sequence[Tensor]) -> bool:
        """Whether these tensors have this layout."""
        return list(map(_SHAPE, tensors)) == self._shapes and list(map(_DTYPE, tensors)) == self._dtypes

    def parts(self, block: Block, tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
        """Yield the tensors of a block: large ones each alone, small ones together."""
        group = [tensors[place] for place in block.places]
        if group[0].nbytes < _LARGE_BYTES:
            yield group
        else:
            for each in group:
                yield [each]

    def views(self, blocks: Sequence[Tensor]) -> list[Tensor]:
        """Return each tensor's place in the bytes of the blocks, in the tensors' order."""
        found: dict[int, Tensor] = {}
        for block, flat in zip(self.blocks, blocks, strict=True):
            at = 0
            for place in block.places:
                shape, dtype = self._shapes[place], self._dtypes[place]
                end = at + shape.numel() * dtype.itemsize
                found[place] = flat[at:end].view(dtype).view(shape)
                at = end
        return [found[place] for place in range(len(found))]


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """Return the bytes of tensors of one block: of one alone by reference where it is contiguous."""
    first = tensors[0]
    if len(tensors) > 1 or first.is_conj() or first.is_neg() or first.numel() == 1:  # one element may have any stride
        return pack(tensors)
    return first.reshape(-1).view(torch.uint8)


def pack(tensors: Sequence[Tensor]) -> Tensor:
    """Return the bytes of tensors of one block, one right behind the other, as a new tensor on their device."""
    plain = list(tensors) if tensors[0].dtype in KNOWN else [bits(tensor) for tensor in tensors]
    if len(plain) == 1:
        packed = plain[0].clone(memory_format=torch.contiguous_format).reshape(-1)
    else:
        packed = flatten_dense_tensors(plain)
    return packed.view(torch.uint8)


def bits(tensor: Tensor) -> Tensor:
    """Return a tensor's bits, flat and in a dtype of `KNOWN`: by reference where it is contiguous."""
    flat = tensor.resolve_conj().resolve_neg().reshape(-1)
    return torch.view_as_real(flat) if flat.is_complex() else flat.view(_INTEGERS[flat.dtype.itemsize])
