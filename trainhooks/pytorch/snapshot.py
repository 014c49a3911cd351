"""A copy of the training's tensors at one moment, taken while the training stands still and read while it goes on.

On a GPU with room a copy on the device comes first: one launch on the training's own stream, so that it lies between
the update before and the one after; the way to the host is then walked on a side stream while the training computes.
Without room the training's stream waits for the way to the host. Buffers are kept for the next snapshot.
"""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

_ALIGNMENT = 64
"""Bytes; suits every dtype and vectorised copies."""
_SPARE_BYTES = 1 << 30
_SPARE_PART = 0.05
"""Of a device's memory; this or `_SPARE_BYTES`, whichever is more, stays free beside a copy on the device."""


class Arena:
    """One buffer that holds copies of many tensors, one after the other."""

    def __init__(self, device: torch.device, *, is_pinned: bool = False) -> None:
        self._device = device
        self._is_pinned = is_pinned
        self._buffer: Tensor | None = None
        self._layout: list[tuple[torch.Size, torch.dtype]] = []
        self._views: list[Tensor] = []
        self.used_bytes = 0

    def views(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return one contiguous place in the buffer for each tensor; the same ones while the layout is the same."""
        layout = [(tensor.shape, tensor.dtype) for tensor in tensors]
        if layout != self._layout:
            self._views, self._layout = [], []
            self.used_bytes = size_of(tensors)
            buffer = self._reserve(self.used_bytes)
            start = 0
            for tensor in tensors:
                place = buffer[start : start + tensor.nbytes]
                self._views.append(place.view(tensor.dtype).view(tensor.shape))
                start += _padded(tensor.nbytes)
            self._layout = layout
        return self._views

    def used(self) -> Tensor:
        """Return the bytes of all copies."""
        assert self._buffer is not None
        return self._buffer[: self.used_bytes]

    def has_room(self, size_bytes: int) -> bool:
        """Whether the buffer is large enough as it is."""
        return self._buffer is not None and self._buffer.numel() >= size_bytes

    def _reserve(self, size_bytes: int) -> Tensor:
        if self._buffer is None or not self.has_room(size_bytes):
            self._buffer = None  # let go of the old one first
            self._buffer = torch.empty(size_bytes, dtype=torch.uint8, device=self._device, pin_memory=self._is_pinned)
        return self._buffer


class Snapshot:
    """Copies on the host of the tensors that were given, in their order."""

    def __init__(self, count: int) -> None:
        self._tensors: list[Tensor | None] = [None] * count
        self._transfers: list[_Transfer] = []

    def wait(self) -> list[Tensor]:
        """Return the copies once they are on the host. For the thread that writes them."""
        for transfer in self._transfers:
            self._put(transfer.places, transfer.finish())
        self._transfers.clear()
        return [tensor for tensor in self._tensors if tensor is not None]

    def _put(self, places: Sequence[int], tensors: Sequence[Tensor]) -> None:
        for place, tensor in zip(places, tensors, strict=True):
            self._tensors[place] = tensor


class Snapshotter:
    """Takes snapshots into buffers of its own. A snapshot is good until the next one is taken."""

    def __init__(self, *, use_device_copy: bool = True) -> None:
        self._host = Arena(torch.device("cpu"))
        self._lanes: dict[torch.device, _CudaLane] = {}
        self._use_device_copy = use_device_copy

    def take(self, tensors: Sequence[Tensor]) -> Snapshot:
        """Copy. Once this returns, changes to the tensors on the current streams don't reach the snapshot."""
        snapshot = Snapshot(len(tensors))
        by_device: dict[torch.device, list[int]] = defaultdict(list)
        for place, tensor in enumerate(tensors):
            by_device[tensor.device if tensor.is_cuda else torch.device("cpu")].append(place)
        for device, places in by_device.items():
            group = [tensors[place] for place in places]
            if device.type == "cuda":
                snapshot._transfers.append(self._lane(device).take(group, places))
            else:
                snapshot._put(places, _copy(self._host.views(group), group))
        return snapshot

    def release(self) -> None:
        """Let go of all buffers."""
        self._host = Arena(torch.device("cpu"))
        self._lanes.clear()

    def _lane(self, device: torch.device) -> "_CudaLane":
        if device not in self._lanes:
            self._lanes[device] = _CudaLane(device, self._use_device_copy)
        return self._lanes[device]


class _Transfer:
    """The way from a device to the host, under way or still to be walked."""

    def __init__(
        self, lane: "_CudaLane", places: Sequence[int], ready: torch.cuda.Event, group: Sequence[Tensor]
    ) -> None:
        self.places = places
        self._lane = lane
        self._ready = ready
        self._group = group
        """What is still to be fetched from the copy on the device; empty where it is under way."""

    def finish(self) -> list[Tensor]:
        lane = self._lane
        if self._group:
            lane.pinned.views(self._group)
            with torch.cuda.device(lane.device), torch.cuda.stream(lane.stream):
                lane.stream.wait_event(self._ready)
                lane.pinned.used().copy_(lane.copy.used(), non_blocking=True)
                self._ready = lane.stream.record_event()
        self._ready.synchronize()
        return lane.pinned.views(self._group or lane.direct)


class _CudaLane:
    """Buffers and the side stream of one GPU."""

    def __init__(self, device: torch.device, use_device_copy: bool) -> None:
        self.device = device
        self.stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.copy = Arena(device)
        self.pinned = Arena(torch.device("cpu"), is_pinned=True)
        self.direct: Sequence[Tensor] = ()
        self._use_device_copy = use_device_copy

    def take(self, group: Sequence[Tensor], places: Sequence[int]) -> _Transfer:
        current = torch.cuda.current_stream(self.device)
        with torch.cuda.device(self.device):
            if self._use_device_copy and (views := self._device_views(group)) is not None:
                _copy(views, group)
                return _Transfer(self, places, current.record_event(), views)
            views = self.pinned.views(group)
            self.direct = views
            with torch.cuda.stream(self.stream):
                self.stream.wait_stream(current)
                _copy(views, group)
                done = self.stream.record_event()
            current.wait_event(done)  # an update must not overtake the copy
            return _Transfer(self, places, done, ())

    def _device_views(self, group: Sequence[Tensor]) -> list[Tensor] | None:
        size = size_of(group)
        if not self.copy.has_room(size):
            free, total = torch.cuda.mem_get_info(self.device)
            if free - size < max(_SPARE_BYTES, _SPARE_PART * total):
                return None
        try:
            return self.copy.views(group)
        except torch.cuda.OutOfMemoryError:
            return None


def size_of(tensors: Sequence[Tensor]) -> int:
    """Return how many bytes a snapshot of these takes."""
    return sum(_padded(tensor.nbytes) for tensor in tensors)


def _copy(targets: list[Tensor], sources: Sequence[Tensor]) -> list[Tensor]:
    """Copy each source to its target; contiguous ones of a dtype and device in one launch."""
    together: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = defaultdict(lambda: ([], []))
    for target, source in zip(targets, sources, strict=True):
        if target.is_cuda and source.is_contiguous() and not source.is_conj() and not source.is_neg():
            to, come_from = together[source.dtype]
            to.append(target)
            come_from.append(source)
        else:
            target.copy_(source, non_blocking=source.is_cuda)
    for to, come_from in together.values():
        torch._foreach_copy_(to, come_from)
    return targets


def _padded(size_bytes: int) -> int:
    return -(-size_bytes // _ALIGNMENT) * _ALIGNMENT
