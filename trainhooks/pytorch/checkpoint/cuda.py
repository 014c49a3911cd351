"""What a snapshot wants of CUDA: room for a copy, and bytes sent to the host on a stream."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_SPARE_BYTES = 1 << 30
_SPARE_PART = 0.05
"""Of a device's memory; this or `_SPARE_BYTES`, whichever is more, stays free beside a copy on the device."""


class DeviceMemory:
    """Whether a copy of the state fits beside the training.

    The copies' memory goes back to torch's allocator under a stream of its own: the next copy finds it there, and
    torch returns it to the driver by itself before anything fails for lack of memory.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._kept_bytes = 0
        """What the allocator has for us, unless it has returned memory to the driver meanwhile."""
        self._returns = _Returns(0, None)
        self._is_kept = False
        """What was asked for last was there; to ask torch takes a part of a millisecond, so once for each save."""

    def has_room(self, size_bytes: int) -> bool:
        """Whether there is room for so much, of which what was used before is a part.

        The allocator is asked first, since the driver takes its time to answer.
        """
        returns = self._count_returns()
        is_kept = self._is_kept = size_bytes <= self._kept_bytes and returns == self._returns
        if is_kept and returns.at_all is not None:
            return True
        free, total = torch.cuda.mem_get_info(self._device)
        return is_kept or free - size_bytes >= max(_SPARE_BYTES, _SPARE_PART * total)

    def keep(self, size_bytes: int) -> None:
        """Note that so much was taken, for which there was room."""
        if self._is_kept:
            return
        returns = self._count_returns()
        if size_bytes > self._kept_bytes or returns != self._returns:
            self._kept_bytes, self._returns = size_bytes, returns

    def forget(self) -> None:
        """Note that it could not be taken."""
        self._kept_bytes, self._is_kept = 0, False

    def _count_returns(self) -> "_Returns":
        found = torch.cuda.memory_stats_as_nested_dict(self._device)
        is_counted = found.get("num_device_alloc", 0) > 0  # not by other allocators, nor by older releases
        return _Returns(int(found.get("num_alloc_retries", 0)), int(found["num_device_free"]) if is_counted else None)


class _Returns(NamedTuple):
    """How often torch has returned to the driver what nobody uses."""

    for_lack: int
    """Of memory."""
    at_all: int | None
    """None: it is not counted."""


class StreamTransport:
    """Sends bytes of one device to pinned memory. See `staging.Transport`."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream

    def buffer(self, size_bytes: int) -> Tensor:
        return torch.empty(size_bytes, dtype=torch.uint8, device="cpu", pin_memory=True)

    def send(self, source: Tensor, target: Tensor) -> Callable[[], None]:
        with torch.cuda.device(self._stream.device), torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)
            sent = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            sent.record(self._stream)
        return sent.synchronize
