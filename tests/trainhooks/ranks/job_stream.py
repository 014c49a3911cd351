"""A training on data that each rank reads a part of: python job_stream.py OUT KIND [KILL_STEP].

KIND: `iterable` (no state of its own: read again), `stateful` (an iterable with one), `foreign` (a loader that keeps
its place itself). Says in OUT/trace-RANK what each step got.
"""

import json
import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import IterableDataset, get_worker_info

sys.path.insert(0, str(Path(__file__).parent))
from bits import digest, leave

from trainhooks import training_progress_context

OUT, KIND = Path(sys.argv[1]), sys.argv[2]
KILL_STEP = int(sys.argv[3]) if len(sys.argv) > 3 else None
TOTAL = 14
SAMPLES = 36


class Stream(IterableDataset[Any]):
    """Dealt out over the workers of all ranks, shuffled and noisy."""

    def order(self) -> list[int]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        reader, readers = int(os.environ["RANK"]) * workers + worker, int(os.environ["WORLD_SIZE"]) * workers
        mine = list(range(SAMPLES))[reader::readers]
        random.shuffle(mine)
        return mine

    def __iter__(self) -> Iterator[Any]:
        for index in self.order():
            yield index, torch.randn(2)


class StatefulStream(Stream):
    left: list[int] | None = None

    def __iter__(self) -> Iterator[Any]:
        self.left = self.order() if self.left is None else self.left
        while self.left:
            yield self.left.pop(0), torch.randn(2)
        self.left = None

    def state_dict(self) -> dict[str, Any]:
        return {"left": None if self.left is None else list(self.left)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.left = state["left"]


class Foreign:
    """Batches of a rank's own, at a place of its own."""

    def __init__(self) -> None:
        self.at = 3 * dist.get_rank()

    def __iter__(self) -> Iterator[Any]:
        while self.at < SAMPLES:
            ids = torch.arange(self.at, self.at + 3)
            self.at += 3 * dist.get_world_size()
            yield ids, torch.stack([torch.full((2,), float(each)) for each in ids])
        self.at = 3 * dist.get_rank()

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = state["at"]


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(rank)
    model = torch.nn.Linear(2, 1)
    options: dict[str, Any] = {"state": {"model": model}, "checkpoint_every_steps": 5}
    with (
        training_progress_context({"seed": 3}, OUT, TOTAL, **options) as progress,
        (OUT / f"trace-{rank}").open("a", buffering=1) as trace,
    ):
        print("from", progress.current_step, flush=True)
        match KIND:
            case "foreign":
                progress.loader(Foreign())
            case _:
                progress.loader(Stream() if KIND == "iterable" else StatefulStream(), batch_size=3, num_workers=2)
        for step, (ids, noise) in progress.steps():
            if step == KILL_STEP and rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            trace.write(json.dumps([step, ids.tolist(), digest(noise), digest(torch.rand(1))]) + "\n")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    leave(main)
