"""A copy on the device: its places are made once; memory comes to them for each save and leaves them block by block.

What takes the training's thread time is Python for each tensor, above all making its place. So places are kept: they
are views of storages that have no bytes between two saves.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import compress
from operator import itemgetter

import torch
from torch import Tensor, UntypedStorage

from trainhooks.pytorch.checkpoint.packing import KNOWN, Packing, bits

_ALONE_BYTES = 64 << 20
"""A tensor from here on is copied by a launch of its own, which is the driver's own copy."""


class DeviceCopy:
    """Copies of tensors of one layout on their device. All methods are for one thread at a time, `let_go` apart.

    Args:
        device: of the current stream, under which memory is taken.
    """

    def __init__(self, packing: Packing, device: torch.device) -> None:
        self.packing = packing
        self._device = device
        self._storages = [_empty(device).untyped_storage() for _ in packing.blocks]
        self.blocks: list[Tensor] = []
        """The bytes of each block, known once something was copied; good until it is let go of."""
        self._places: list[_Places] = []

    def fill(self, tensors: Sequence[Tensor]) -> None:
        """Launch the copy of tensors of the layout.

        Raises:
            torch.cuda.OutOfMemoryError: nothing is held.
        """
        try:
            for storage, block in zip(self._storages, self.packing.blocks, strict=True):
                take_memory(storage, block.size_bytes)
            if not self._places:
                self.blocks = [_empty(self._device).set_(storage) for storage in self._storages]
                self._places = _places(self.packing, self.blocks)
            with torch.no_grad():
                for places in self._places:
                    places.copy(tensors)
        except BaseException:
            self.let_go()
            raise

    def let_go(self, number: int | None = None) -> None:
        """Return the memory of a block, or of all: to the allocator, under the stream that it was taken under."""
        for storage in self._storages if number is None else [self._storages[number]]:
            if storage.nbytes():
                storage.resize_(0)


def take_memory(storage: UntypedStorage, size_bytes: int) -> None:
    """Give a storage that has no bytes so many."""
    if size_bytes:
        storage.resize_(size_bytes)


def _empty(device: torch.device) -> Tensor:
    return torch.empty(0, dtype=torch.uint8, device=device)


class _Places:
    """Places that are filled by one call: those of one dtype, but of large tensors each alone."""

    def __init__(self, numbers: Sequence[int], views: Sequence[Tensor]) -> None:
        self._pick = itemgetter(*numbers) if len(numbers) > 1 else lambda tensors: (tensors[numbers[0]],)
        self._is_known = views[0].dtype in KNOWN
        self._views = list(views) if self._is_known else list(map(bits, views))
        self._strides = list(map(Tensor.stride, self._views))

    def copy(self, tensors: Sequence[Tensor]) -> None:
        sources = self._pick(tensors)
        if not self._is_known:
            sources = tuple(map(bits, sources))
        views = self._views
        strides = list(map(Tensor.stride, sources))
        if strides != self._strides:  # one that is laid out otherwise would have each of them launched alone
            alike = [one == other for one, other in zip(strides, self._strides, strict=True)]
            for view, source, is_alike in zip(views, sources, alike, strict=True):
                if not is_alike:
                    view.copy_(source)
            views, sources = list(compress(views, alike)), tuple(compress(sources, alike))
        if len(sources) > 1:
            torch._foreach_copy_(views, sources)
        elif sources:
            views[0].copy_(sources[0])


def _places(packing: Packing, blocks: Sequence[Tensor]) -> list[_Places]:
    views = packing.views(blocks)
    together: dict[torch.dtype, list[int]] = defaultdict(list)
    alone: list[list[int]] = []
    for block in packing.blocks:
        for number in block.places:
            view = views[number]
            if view.nbytes >= _ALONE_BYTES:
                alone.append([number])
            elif view.nbytes:
                together[view.dtype].append(number)
    return [_Places(numbers, [views[number] for number in numbers]) for numbers in (*alone, *together.values())]
