"""What a snapshot wants of CUDA: room for a copy, and bytes sent to the host on a stream."""

from collections.abc import Callable

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
        """What the allocator has for us, unless it had to return it meanwhile."""
        self._retries = 0

    def has_room(self, size_bytes: int) -> bool:
        """Whether there is room for so much, of which what was used before is a part."""
        free, total = torch.cuda.mem_get_info(self._device)
        if free - size_bytes >= max(_SPARE_BYTES, _SPARE_PART * total):
            return True
        return size_bytes <= self._kept_bytes and self._count_retries() == self._retries

    def keep(self, size_bytes: int) -> None:
        """Note that so much was taken."""
        if size_bytes > self._kept_bytes:
            self._kept_bytes, self._retries = size_bytes, self._count_retries()

    def forget(self) -> None:
        """Note that it could not be taken."""
        self._kept_bytes = 0

    def _count_retries(self) -> int:
        """How often torch has returned what nobody uses, for lack of memory."""
        return int(torch.cuda.memory_stats(self._device).get("num_alloc_retries", 0))


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
