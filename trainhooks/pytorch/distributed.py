"""The ranks of a training over torch.distributed, in a gloo group of their own: NCCL and the user's groups see nothing.

Texts go as tensors of bytes, since torch's `*_object` collectives are pickle.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from trainhooks.core.policy import PATIENCE_SECONDS
from trainhooks.core.ranks import Alone, Ranks
from trainhooks.errors import ConfigInvalid, RankLost
from trainhooks.host.launch import launched


class ProcessRanks:
    """The processes of torch.distributed's default group. Made on all of them at once.

    The thread that made it and one other, which writes checkpoints, each have a group: what they say does not mix.

    Args:
        patience_seconds: how late a rank may be. One that has ended is noticed at once.
    """

    def __init__(self, patience_seconds: float) -> None:
        self.rank = dist.get_rank()
        self.world = dist.get_world_size()
        self._training_thread = threading.get_ident()
        patience = timedelta(seconds=patience_seconds)
        self._training: dist.ProcessGroup = dist.new_group(backend="gloo", timeout=patience)
        self._writing: dist.ProcessGroup = dist.new_group(backend="gloo", timeout=patience)
        self._wish: Tensor | None = None
        self._work: dist.Work | None = None

    @property
    def _group(self) -> dist.ProcessGroup:
        return self._training if threading.get_ident() == self._training_thread else self._writing

    def barrier(self) -> None:
        """Return once every rank is here."""
        self.all_ok(True)

    def all_ok(self, is_ok: bool) -> bool:
        """Return, on every rank, whether every rank said True."""
        value = torch.tensor([int(is_ok)])
        with _answered():
            dist.all_reduce(value, op=dist.ReduceOp.MIN, group=self._group)
        return bool(value)

    def share(self, text: bytes) -> bytes:
        """Return rank 0's text on every rank; what others give is not looked at."""
        size = torch.tensor([len(text)])
        with _answered():
            dist.broadcast(size, group=self._group, group_src=0)
            data = _tensor(text) if self.rank == 0 else torch.empty(int(size), dtype=torch.uint8)
            if data.numel():
                dist.broadcast(data, group=self._group, group_src=0)
        return _bytes(data)

    def gather(self, text: bytes) -> list[bytes]:
        """Return, on every rank, the texts of all ranks in their order."""
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world)]
        with _answered():
            dist.all_gather(sizes, torch.tensor([len(text)]), group=self._group)
            longest = max(map(int, sizes))
            padded = [torch.empty(longest, dtype=torch.uint8) for _ in sizes]
            if longest:
                dist.all_gather(padded, _tensor(text.ljust(longest)), group=self._group)
        return [_bytes(each)[: int(size)] for each, size in zip(padded, sizes, strict=True)]

    def exchange(self, wish: int) -> int:
        """Hand in a wish, and learn the largest one of the call before: see `Ranks`."""
        before = self._finish()
        self._wish = torch.tensor([wish])
        with _answered():
            self._work = dist.all_reduce(self._wish, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
        return before

    def close(self) -> None:
        """End what is under way. Where a rank has died this does not wait for it."""
        if self._work is not None and self._work.is_completed():
            with suppress(RankLost):  # what was to be agreed on no longer matters
                self._finish()
        self._wish = self._work = None

    def _finish(self) -> int:
        if self._work is None or self._wish is None:
            return 0
        with _answered():
            self._work.wait()
        wish = int(self._wish)
        self._wish = self._work = None
        return wish


def connect(patience_seconds: float = PATIENCE_SECONDS) -> Ranks:
    """Find the other processes of this training. Collective.

    Args:
        patience_seconds: how late a rank may be.

    Raises:
        ConfigInvalid: a launcher started several, and torch.distributed does not connect them yet.
    """
    if dist.is_available() and dist.is_initialized():
        return ProcessRanks(patience_seconds) if dist.get_world_size() > 1 else Alone()
    launch = launched()
    if launch.world > 1:
        raise ConfigInvalid(
            f"This is rank {launch.rank} of {launch.world}, and torch.distributed is not initialised.",
            hint="Call torch.distributed.init_process_group() before training_progress_context(...).",
        )
    return Alone()


@contextmanager
def _answered() -> Iterator[None]:
    """Say in our words what gloo says of a process that is gone or late."""
    try:
        yield
    except RuntimeError as error:
        raise RankLost(
            f"Another rank of this training has ended or does not answer ({str(error).strip().splitlines()[0]}).",
            hint="Its own log says why. Restart all ranks: they resume from the newest intact checkpoint.",
        ) from error


def _tensor(text: bytes) -> Tensor:
    return torch.frombuffer(bytearray(text), dtype=torch.uint8) if text else torch.empty(0, dtype=torch.uint8)


def _bytes(data: Tensor) -> bytes:
    return data.numpy().tobytes()
