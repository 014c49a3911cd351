"""The way of blocks from a device to the host, through a few buffers that are used again and again.

Memory that a device writes into without the host's help must be pinned, and to pin gigabytes stops every other call of
the driver for seconds. So only a ring of small buffers is pinned, once: while the device fills one, the bytes of
another are copied to where they stay. Each block on the device is let go of as soon as it is on the host.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Protocol

from torch import Tensor

_BUFFERS = 2
"""One is filled while the other is emptied, which takes longer."""
_BUFFER_BYTES = 8 << 20
"""A copy takes far longer than its launch, and all buffers are pinned within 11 ms (0.7 ms for each MiB, H200)."""


Block = Tensor | Callable[[], Tensor] | None
"""Flat bytes on a device, what makes them, or nothing any more."""


class Transport(Protocol):
    """How bytes come from one device."""

    def buffer(self, size_bytes: int) -> Tensor:
        """Return flat bytes on the host that `send` can fill."""
        ...

    def send(self, source: Tensor, target: Tensor) -> Callable[[], None]:
        """Begin to copy flat bytes of the device into a buffer; returns what waits until they are there."""
        ...


class Ring:
    """The buffers of one device; one transfer at a time."""

    def __init__(self, transport: Transport, *, buffers: int = _BUFFERS, buffer_bytes: int = _BUFFER_BYTES) -> None:
        self._transport = transport
        self._buffers = [transport.buffer(buffer_bytes) for _ in range(buffers)]
        self._buffer_bytes = buffer_bytes

    def fetch(
        self, blocks: list[Block], targets: Sequence[Tensor], arrived: Callable[[int], None], *, hands: int = 1
    ) -> None:
        """Copy each block to its target.

        Args:
            blocks: flat bytes on the device, or what returns them when their turn comes; each becomes None once it is
                on the host.
            arrived: called with the number of each block that is.
            hands: threads that empty the buffers.
        """
        free = deque(self._buffers)
        under_way: deque[_Piece] = deque()
        with ThreadPoolExecutor(hands, thread_name_prefix="trainhooks-staging") if hands > 1 else nullcontext() as pool:
            for piece in self._pieces(targets):
                if not free:
                    free.append(self._land(under_way.popleft(), blocks, arrived))
                piece.buffer = free.popleft()
                self._send(piece, blocks)
                if pool is not None:
                    piece.empty = pool.submit(piece.empty).result
                under_way.append(piece)
            while under_way:
                self._land(under_way.popleft(), blocks, arrived)

    def _pieces(self, targets: Sequence[Tensor]) -> Iterator["_Piece"]:
        for number, target in enumerate(targets):
            size = target.numel()
            for start in range(0, max(size, 1), self._buffer_bytes):  # an empty block arrives as well
                end = min(start + self._buffer_bytes, size)
                yield _Piece(number, start, target[start:end], is_last=end == size)

    def _send(self, piece: "_Piece", blocks: list[Block]) -> None:
        assert piece.buffer is not None
        block = blocks[piece.block]
        if not isinstance(block, Tensor):
            assert block is not None
            block = blocks[piece.block] = block()
        size = piece.target.numel()
        piece.wait = self._transport.send(block[piece.start : piece.start + size], piece.buffer[:size])
        piece.empty = piece.to_target

    def _land(self, piece: "_Piece", blocks: list[Block], arrived: Callable[[int], None]) -> Tensor:
        """Bring a piece where it stays; returns the buffer, which is free again."""
        assert piece.buffer is not None
        piece.empty()
        if piece.is_last:
            blocks[piece.block] = None
            arrived(piece.block)
        return piece.buffer


class _Piece:
    """What goes through one buffer at once."""

    __slots__ = ("block", "buffer", "empty", "is_last", "start", "target", "wait")

    def __init__(self, block: int, start: int, target: Tensor, *, is_last: bool) -> None:
        self.block = block
        self.start = start
        """In the block, in bytes."""
        self.target = target
        self.is_last = is_last
        self.buffer: Tensor | None = None
        self.wait: Callable[[], None] = _nothing
        self.empty: Callable[[], None] = _nothing
        """Returns once what is in the buffer is at its target."""

    def to_target(self) -> None:
        """Copy what is in the buffer to where it stays, once it is there."""
        assert self.buffer is not None
        self.wait()
        self.wait = _nothing  # it may hold what was sent
        self.target.numpy()[:] = self.buffer.numpy()[: self.target.numel()]


def _nothing() -> None:
    pass


class Transfer:
    """The blocks of one snapshot on their way to the host, on a thread of its own.

    Args:
        let_go: called with the number of each block whose bytes are no longer needed, and without one once none are.
    """

    def __init__(
        self,
        ring: Ring,
        blocks: list[Block],
        targets: Sequence[Tensor],
        let_go: Callable[[int | None], None] = lambda number: None,
    ) -> None:
        self._let_go = let_go
        self._ring = ring
        self._blocks = blocks
        self._targets = targets
        self._arrived = [threading.Event() for _ in blocks]
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="trainhooks-staging", daemon=True)
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin, where that has not been done. The thread has the priority of the one that calls this."""
        with self._lock:
            if self._thread.ident is None:
                self._thread.start()

    def wait(self, block: int) -> None:
        """Return once a block is on the host.

        Raises:
            Exception: what went wrong on the way.
        """
        self.start()
        self._arrived[block].wait()
        if self._failure is not None:
            raise self._failure

    def join(self) -> None:
        """Return once nothing is copied any more. What never began will not, and its blocks are let go of."""
        with self._lock:
            if self._thread.ident is None:
                self._blocks.clear()
                self._let_go(None)
                return
        self._thread.join()

    def _run(self) -> None:
        try:
            self._ring.fetch(self._blocks, self._targets, self._note)
        except BaseException as error:
            self._failure = error
            self._let_go(None)
        self._blocks.clear()
        for each in self._arrived:
            each.set()

    def _note(self, number: int) -> None:
        self._let_go(number)
        self._arrived[number].set()
