"""A training that saves after every step until it is killed: python job.py DIRECTORY [KILL_AT [before|half]].

It begins as every training does, with the newest good checkpoint, and ends with exit code 1 if that is not whole or is
older than the last one that was announced. With KILL_AT it kills itself at that operation on the file system, counted
from its third save on, before it or half way through it; 0 counts the operations of one save and ends.
"""

import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainhooks.core.policy import CheckpointPolicy
from trainhooks.core.retention import Best
from trainhooks.pytorch.checkpoint.saver import Saver
from trainhooks.pytorch.checkpoint.state import TrainingState
from trainhooks.storage import durable_file
from trainhooks.storage.checkpoints import Checkpoint, CheckpointStore

POLICY = CheckpointPolicy(
    every_steps=1,
    every_seconds=None,
    max_overhead=None,
    asynchronous=False,
    keep_last=2,
    keep_best=Best(metric="loss"),
    keep_every_steps=50,
)
_write = os.write
_EVENTS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir"}


class Shim:
    """Counts what is done to the file system below a directory, and kills this process at one of these operations."""

    def __init__(self, root: Path, kill_at: int, how: str) -> None:
        self.count = 0
        self.is_on = False
        self._root = str(root)
        self._kill_at = kill_at
        self._how = how
        self._lock = threading.Lock()
        """Several threads write at once."""
        sys.addaudithook(self._audit)
        for name in ("write", "writev", "fsync"):
            setattr(os, name, self._wrapped(getattr(os, name)))

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.is_on:
            return
        is_write = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if event in _EVENTS or (is_write and str(arguments[0]).startswith(self._root)):
            self._next()

    def _wrapped(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(descriptor: int, *arguments: Any) -> Any:
            if self.is_on:
                self._next(lambda: arguments and os.pwrite(descriptor, _bytes(arguments[0])[:100], 0))
            return real(descriptor, *arguments)

        return call

    def _next(self, half: Callable[[], Any] = lambda: None) -> None:
        with self._lock:
            self.count += 1
            if self.count == self._kill_at:
                if self._how == "half":
                    half()
                os.kill(os.getpid(), signal.SIGKILL)


def _bytes(data: Any) -> bytes:
    """What `os.write` takes, or the pieces that `os.writev` takes."""
    return b"".join(data) if isinstance(data, list | tuple) else bytes(data)


def main() -> int:
    root = Path(sys.argv[1])
    kill_at = int(sys.argv[2]) if len(sys.argv) > 2 else None
    durable_file.CHUNK_BYTES = 16 << 10  # several writes a file
    model, optimizer = training()
    announced_path = root / "announced"
    announced = [int(line) for line in announced_path.read_text().split()] if announced_path.exists() else []
    descriptor = os.open(announced_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def announce(checkpoint: Checkpoint) -> None:
        _write(descriptor, f"{checkpoint.manifest.step}\n".encode())  # the test's own book, not an operation of a save

    # Counted saves all delete exactly one: the operations are the same in each.
    policy = POLICY if kill_at is None else replace(POLICY, keep_best=None, keep_every_steps=None)
    store = CheckpointStore(root / "checkpoints", "feed")
    store.clean()
    saver = Saver(
        store, TrainingState({"model": model, "optimizer": optimizer}), policy, attempt=1, on_published=announce
    )
    progress = saver.restore()
    first = 0 if progress is None else progress["step"]
    check(model, optimizer, first)
    if first < max(announced, default=0):
        sys.exit(f"it went back to step {first}, and {max(announced)} was announced")
    if list((root / "checkpoints").glob(".d*")):
        sys.exit("half written or half deleted checkpoints are still there")
    os.write(1, f"resumed {first}\n".encode())

    shim = (
        None if kill_at is None else Shim(root / "checkpoints", kill_at, sys.argv[3] if len(sys.argv) > 3 else "before")
    )
    for step in itertools.count(first + 1):
        fill(model, optimizer, step)
        if shim is not None:
            if shim.is_on:
                break
            shim.is_on = step == first + 3
        saver.begin(step, {"step": step}, {"loss": abs(step % 20 - 10.0)})
    os.write(1, f"operations {shim.count}\n".encode() if shim else b"")
    return 0


def training() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Linear(100, 100)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    model(torch.ones(1, 100)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    fill(model, optimizer, 0)
    return model, optimizer


def every_tensor(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [*model.parameters(), *(entry["momentum_buffer"] for entry in optimizer.state.values())]


def fill(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    with torch.no_grad():
        for tensor in every_tensor(model, optimizer):
            tensor.fill_(step)


def check(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    for tensor in every_tensor(model, optimizer):
        if not tensor.eq(step).all():
            sys.exit(f"what was restored for step {step} is of step {tensor.unique().tolist()}")


if __name__ == "__main__":
    sys.exit(main())
