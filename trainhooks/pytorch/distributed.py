"""The ranks of a training over torch.distributed, in a gloo group of their own: NCCL and the user's groups see nothing.

Texts go as tensors of bytes, since torch's `*_object` collectives are pickle.
"""

from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from trainhooks.core.ranks import Alone, Ranks
from trainhooks.errors import ConfigInvalid
from trainhooks.host.launch import launched

_PATIENCE = timedelta(hours=1)
"""A rank may be late by as long as the slowest save takes."""


class ProcessRanks:
    """The processes of torch.distributed's default group. Made on all of them at once."""

    def __init__(self) -> None:
        self.rank = dist.get_rank()
        self.world = dist.get_world_size()
        self._group = dist.new_group(backend="gloo", timeout=_PATIENCE)
        self._wish: Tensor | None = None
        self._work: dist.Work | None = None

    def barrier(self) -> None:
        """Return once every rank is here."""
        self._reduce(torch.zeros(1, dtype=torch.int64))

    def gather(self, text: bytes) -> list[bytes]:
        """Return every rank's text, in rank order, on every rank."""
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world)]
        dist.all_gather(sizes, torch.tensor([len(text)]), group=self._group)
        longest = max(1, *(int(size) for size in sizes))
        texts = [torch.empty(longest, dtype=torch.uint8) for _ in range(self.world)]
        dist.all_gather(texts, _tensor(text.ljust(longest, b"\0")), group=self._group)
        return [_bytes(each[: int(size)]) for each, size in zip(texts, sizes, strict=True)]

    def share(self, text: bytes) -> bytes:
        """Return rank 0's text on every rank; what others give is not looked at."""
        size = torch.tensor([len(text)])
        dist.broadcast(size, group=self._group, group_src=0)
        data = _tensor(text) if self.rank == 0 else torch.empty(int(size), dtype=torch.uint8)
        if data.numel():
            dist.broadcast(data, group=self._group, group_src=0)
        return _bytes(data)

    def exchange(self, wish: int) -> int:
        """Hand in a wish, and learn the largest one of the call before: see `Ranks`."""
        before = self._finish()
        self._wish = torch.tensor([wish])
        self._work = dist.all_reduce(self._wish, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
        return before

    def close(self) -> None:
        """End what is under way. Where a rank has died this does not wait for it."""
        if self._work is not None and self._work.is_completed():
            self._finish()
        self._wish = self._work = None

    def _finish(self) -> int:
        if self._work is None or self._wish is None:
            return 0
        self._work.wait()
        wish = int(self._wish)
        self._wish = self._work = None
        return wish

    def _reduce(self, value: Tensor) -> None:
        dist.all_reduce(value, group=self._group)


def connect() -> Ranks:
    """Find the other processes of this training. Collective.

    Raises:
        ConfigInvalid: a launcher started several, and torch.distributed does not connect them yet.
    """
    if dist.is_available() and dist.is_initialized():
        return ProcessRanks() if dist.get_world_size() > 1 else Alone()
    launch = launched()
    if launch.world > 1:
        raise ConfigInvalid(
            f"This is rank {launch.rank} of {launch.world}, and torch.distributed is not initialised.",
            hint="Call torch.distributed.init_process_group() before training_progress_context(...).",
        )
    return Alone()


def _tensor(text: bytes) -> Tensor:
    return torch.frombuffer(bytearray(text), dtype=torch.uint8) if text else torch.empty(0, dtype=torch.uint8)


def _bytes(data: Tensor) -> bytes:
    return data.numpy().tobytes()
