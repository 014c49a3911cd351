"""A copy of the training's tensors at one moment: taken while training is paused, read while training continues.

On a GPU with room a copy on the device comes first, between the update before and the one after; it is brought to the
host beside the training (`staging`) and its memory is returned meanwhile. Without room the training waits until the
state is on the host. What is kept for the next snapshot is memory on the host, of which little is pinned.
"""

import logging
import mmap
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from trainhooks.pytorch.checkpoint.cuda import DeviceMemory, StreamTransport
from trainhooks.pytorch.checkpoint.device_copy import DeviceCopy
from trainhooks.pytorch.checkpoint.packing import Packing, flat
from trainhooks.pytorch.checkpoint.staging import Block, Ring, Transfer

log = logging.getLogger("trainhooks")

_HOST = -1
_HUGE_FROM_BYTES = 16 << 20
_WIDE_BUFFERS, _WIDE_BUFFER_BYTES, _HANDS = 8, 16 << 20, 4
"""Of the ring for which the training waits: one thread empties a buffer more slowly than the device fills it, and the
training's cores are idle. 128 MiB are pinned within 0.1 s, at the first save; each GB of a state would take 0.7 s."""


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Copy:
    """A tensor's copy on the host, contiguous."""

    tensor: Tensor
    """Its bytes are good once `wait` has returned."""
    wait: Callable[[], None] = _nothing


class Arena:
    """One buffer on the host that holds copies of many tensors, one after the other."""

    def __init__(self) -> None:
        self._buffer: Tensor | None = None
        self._views: list[Tensor] | None = None
        self._blocks: list[Tensor] | None = None
        self._packing: Packing | None = None

    def packing(self, tensors: Sequence[Tensor]) -> Packing:
        """Return where each tensor's copy lies; the same while the layout is the same."""
        if self._packing is None or not self._packing.fits(tensors):
            self._packing, self._views, self._blocks = Packing(tensors), None, None
        return self._packing

    def flat(self) -> Tensor:
        """Return the bytes of all copies."""
        assert self._packing is not None
        size = self._packing.size_bytes
        if self._buffer is None or self._buffer.numel() < size:
            self._buffer = None  # let go of the old one first
            self._buffer = _huge(size)
        return self._buffer[:size]

    def blocks(self) -> list[Tensor]:
        """Return the bytes of each block of the packing."""
        assert self._packing is not None
        if self._blocks is None:
            flat = self.flat()
            self._blocks = [flat[block.start : block.start + block.size_bytes] for block in self._packing.blocks]
        return self._blocks

    def views(self) -> list[Tensor]:
        """Return the place of each tensor's copy."""
        assert self._packing is not None
        if self._views is None:
            self._views = self._packing.views(self.blocks())
        return self._views


def _huge(size_bytes: int) -> Tensor:
    """Return memory in huge pages where the system has them: the first touch of gigabytes faults once in 2 MiB."""
    if size_bytes < _HUGE_FROM_BYTES or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(size_bytes, dtype=torch.uint8, device="cpu")
    memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)


class Snapshot:
    """Copies on the host of the tensors that were given, in their order. Good until the next one is taken."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._parts: list[_Part] = []

    def fetch(self) -> None:
        """Begin to bring to the host what is on a device, and let its memory go as it comes."""
        for part in self._parts:
            part.fetch()

    def wait_taken(self) -> None:
        """Return once nothing of the training's own memory is read any more."""
        for part in self._parts:
            part.wait_taken()

    def copies(self) -> list[Copy]:
        """Return the copies, some of which may be on their way. For the thread that writes them."""
        found: dict[int, Copy] = {}
        for part in self._parts:
            found |= zip(part.places, part.copies(), strict=True)
        return [found[place] for place in range(self._count)]

    def wait(self) -> list[Tensor]:
        """Return the copies once they are on the host."""
        copies = self.copies()
        for copy in copies:
            copy.wait()
        return [copy.tensor for copy in copies]


class Snapshotter:
    """Takes snapshots into buffers of its own. A snapshot is good until the next one is taken."""

    def __init__(self, *, use_device_copy: bool = True) -> None:
        self._host = Arena()
        self._lanes: dict[torch.device, _CudaLane] = {}
        self._use_device_copy = use_device_copy
        self._numbers: list[int] = []
        """The device of each tensor at the save before, and which tensors each has."""
        self._places: dict[int, list[int]] = {}

    def take(self, tensors: Sequence[Tensor]) -> Snapshot:
        """Copy. Once this returns, changes to the tensors on the current streams don't reach the snapshot."""
        snapshot = Snapshot(len(tensors))
        with torch.inference_mode(mode=False), torch.no_grad():  # what is made under inference mode is bound to it
            for number, places in self._by_device(tensors).items():
                group = [tensors[place] for place in places]
                if number != _HOST:
                    snapshot._parts.append(self._lane(group[0].device).take(group, places))
                else:
                    snapshot._parts.append(_OnHost(places, _copied(self._host, group)))
        return snapshot

    def _by_device(self, tensors: Sequence[Tensor]) -> dict[int, list[int]]:
        """Return the places of the tensors of each CUDA device by its number, and those of all others."""
        numbers = [tensor.get_device() if tensor.is_cuda else _HOST for tensor in tensors]
        if numbers != self._numbers:
            self._numbers, self._places = numbers, defaultdict(list)
            for place, number in enumerate(numbers):
                self._places[number].append(place)
        return self._places

    def release(self) -> None:
        """Let go of all buffers."""
        self._host = Arena()
        for lane in self._lanes.values():
            lane.finish()
        self._lanes.clear()

    def _lane(self, device: torch.device) -> "_CudaLane":
        if device not in self._lanes:
            self._lanes[device] = _CudaLane(device, self._use_device_copy)
        return self._lanes[device]


def _copied(arena: Arena, group: Sequence[Tensor]) -> list[Tensor]:
    arena.packing(group)
    views = arena.views()
    for view, tensor in zip(views, group, strict=True):
        view.copy_(tensor)
    return views


def bring(
    group: Sequence[Tensor], arena: Arena, ring: Ring, flat: Callable[[Sequence[Tensor]], Tensor]
) -> list[Tensor]:
    """Copy tensors of one device to the host, without a copy of all of them there; returns once that is done."""
    blocks: list[Block] = []
    targets: list[Tensor] = []
    packing = arena.packing(group)
    for block, target in zip(packing.blocks, arena.blocks(), strict=True):
        for part in packing.parts(block, group):
            size = sum(each.nbytes for each in part)
            blocks.append(partial(flat, part))
            targets.append(target[:size])
            target = target[size:]
    ring.fetch(blocks, targets, lambda number: None, hands=_HANDS)
    return arena.views()


class _OnHost:
    """Copies that are on the host already."""

    def __init__(self, places: Sequence[int], tensors: Sequence[Tensor]) -> None:
        self.places = places
        self._tensors = tensors

    def fetch(self) -> None:
        pass

    def wait_taken(self) -> None:
        pass

    def copies(self) -> list[Copy]:
        return [Copy(tensor) for tensor in self._tensors]


class _Staged:
    """Copies that are on the device and come to the host in blocks."""

    def __init__(
        self, places: Sequence[int], arena: Arena, packing: Packing, transfer: Transfer, taken: torch.cuda.Event
    ) -> None:
        self.places = places
        self._arena = arena
        self._packing = packing
        self._transfer = transfer
        self._taken = taken

    def fetch(self) -> None:
        self._transfer.start()

    def wait_taken(self) -> None:
        self._taken.synchronize()

    def copies(self) -> list[Copy]:
        views = self._arena.views()
        found: dict[int, Copy] = {}
        for number, block in enumerate(self._packing.blocks):
            wait = partial(self._transfer.wait, number)
            found |= {place: Copy(views[place], wait) for place in block.places}
        return [found[place] for place in range(len(found))]


_Part = _OnHost | _Staged


class _CudaLane:
    """Buffers and the side stream of one GPU."""

    def __init__(self, device: torch.device, use_device_copy: bool) -> None:
        self._device = device
        self._use_device_copy = use_device_copy
        self._stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._memory = DeviceMemory(device)
        self._arena = Arena()
        self._ring: Ring | None = None
        self._wide_ring: Ring | None = None
        self._transfer: Transfer | None = None
        self._copy: DeviceCopy | None = None
        self._is_told = False

    def take(self, group: Sequence[Tensor], places: Sequence[int]) -> _Part:
        self.finish()
        current = torch.cuda.current_stream(self._device)
        with torch.cuda.device(self._device):
            if self._use_device_copy and (staged := self._copy_on_device(group, places, current)) is not None:
                return staged
            return _OnHost(places, self._bring(group, current))

    def _bring(self, group: Sequence[Tensor], current: torch.cuda.Stream) -> list[Tensor]:
        """Copy to the host and return once that is done."""
        if self._wide_ring is None:
            transport = StreamTransport(self._stream)
            self._wide_ring = Ring(transport, buffers=_WIDE_BUFFERS, buffer_bytes=_WIDE_BUFFER_BYTES)
        self._stream.wait_stream(current)
        return bring(group, self._arena, self._wide_ring, self._flat)

    def _flat(self, part: Sequence[Tensor]) -> Tensor:
        with torch.cuda.stream(self._stream):
            try:
                return flat(part)
            except torch.cuda.OutOfMemoryError:
                return flat([each.cpu() for each in part])

    def finish(self) -> None:
        """Wait until nothing of the snapshot before is under way."""
        if self._transfer is not None:
            self._transfer.join()
            self._transfer = None

    def _copy_on_device(
        self, group: Sequence[Tensor], places: Sequence[int], current: torch.cuda.Stream
    ) -> _Staged | None:
        packing = self._arena.packing(group)
        if not self._memory.has_room(packing.size_bytes):
            self._tell(packing.size_bytes)
            return None
        try:
            with torch.cuda.stream(self._stream):  # memory of this stream is not the training's to split
                self._stream.wait_stream(current)
                copy = self._places(packing)
                copy.fill(group)
                done = self._stream.record_event()
        except torch.cuda.OutOfMemoryError:
            self._memory.forget()
            self._tell(packing.size_bytes)
            return None
        current.wait_event(done)  # an update must not overtake the copy
        self._memory.keep(packing.size_bytes)
        if self._ring is None:
            self._ring = Ring(StreamTransport(self._stream))
        self._transfer = Transfer(self._ring, [*copy.blocks], self._arena.blocks(), copy.let_go)
        return _Staged(places, self._arena, packing, self._transfer, done)

    def _places(self, packing: Packing) -> DeviceCopy:
        if self._copy is None or self._copy.packing is not packing:
            self._copy = DeviceCopy(packing, self._device)
        return self._copy

    def _tell(self, size_bytes: int) -> None:
        if not self._is_told:
            self._is_told = True
            log.info(
                "%s has no room for a second copy of the state (%.1f GB): at each save the training waits until the"
                " state is on the host",
                self._device,
                size_bytes / 1e9,
            )
