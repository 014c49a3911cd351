"""Where each of many tensors lies in few flat blocks, on a device and on the host alike."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._C._nn import flatten_dense_tensors, unflatten_dense_tensors

_LEAST_BLOCK_BYTES = 64 << 20
_MOST_BLOCK_BYTES = 512 << 20
"""Far below 2^31 elements, where `torch.cat` leaves its fast path."""
_BLOCKS = 32
"""About as many, where their sizes allow it: each is one allocation, and is returned once it is on the host."""
_LARGE_BYTES = 256 << 10
"""A tensor from here on is copied into its place. Smaller ones are joined: hundreds of places would cost more time to
name than to fill. On an H200, 584 tensors of 1.5 GB: all joined 2.7 ms, all copied 1.2 ms and 2 ms of CPU."""
_ALIGNMENT = 64
"""Bytes, of a block on the host; suits every dtype."""
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_KNOWN = frozenset(
    {torch.float64, torch.float32, torch.float16, torch.bfloat16}
    | {torch.int64, torch.int32, torch.int16, torch.uint8, torch.bool}
)
"""Dtypes that every operation takes; bits of others are copied as integers."""


@dataclass(frozen=True, slots=True)
class Block:
    """Tensors that lie one right behind the other."""

    places: tuple[int, ...]
    """Of its tensors, among all."""
    size_bytes: int
    start: int
    """Where it begins on the host, in bytes."""


class Packing:
    """The blocks of one layout. Tensors of a block have one dtype and are all large or all small, so that one launch
    copies many of them."""

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
        return [tensor.shape for tensor in tensors] == self._shapes and [
            tensor.dtype for tensor in tensors
        ] == self._dtypes

    def parts(self, block: Block, tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
        """Yield the tensors of a block: large ones each alone, small ones together."""
        group = [tensors[place] for place in block.places]
        if group[0].nbytes < _LARGE_BYTES:
            yield group
        else:
            for each in group:
                yield [each]

    def views(self, flat: Tensor) -> list[Tensor]:
        """Return each tensor's place in the host's bytes, in the tensors' order."""
        found: dict[int, Tensor] = {}
        for block in self.blocks:
            at = block.start
            for place in block.places:
                shape, dtype = self._shapes[place], self._dtypes[place]
                end = at + shape.numel() * dtype.itemsize
                found[place] = flat[at:end].view(dtype).view(shape)
                at = end
        return [found[place] for place in range(len(found))]


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """Return the bytes of tensors of one block: of one alone by reference where it is contiguous."""
    first = tensors[0]
    if len(tensors) > 1 or first.is_conj() or first.is_neg():
        return pack(tensors)
    return first.reshape(-1).view(torch.uint8)


def pack(tensors: Sequence[Tensor]) -> Tensor:
    """Return the bytes of tensors of one block, one right behind the other, as a new tensor on their device."""
    plain = list(tensors) if tensors[0].dtype in _KNOWN else [_bits(tensor) for tensor in tensors]
    if len(plain) == 1:
        packed = plain[0].clone(memory_format=torch.contiguous_format).reshape(-1)
    elif tensors[0].nbytes < _LARGE_BYTES:
        packed = flatten_dense_tensors(plain)
    else:
        size = sum(each.numel() for each in plain)
        packed = torch.empty(size, dtype=plain[0].dtype, device=plain[0].device)
        torch._foreach_copy_(unflatten_dense_tensors(packed, plain), plain)
    return packed.view(torch.uint8)


def _bits(tensor: Tensor) -> Tensor:
    flat = tensor.resolve_conj().resolve_neg().reshape(-1)
    return torch.view_as_real(flat) if flat.is_complex() else flat.view(_INTEGERS[flat.dtype.itemsize])
