"""A training of several ranks under a sampler of the user's: python job_samplers.py OUT KIND [KILL_STEP].

Says in OUT/trace-RANK what each step got.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, Sampler, WeightedRandomSampler

sys.path.insert(0, str(Path(__file__).parent))
from bits import leave

from trainhooks import training_progress_context

OUT, KIND = Path(sys.argv[1]), sys.argv[2]
KILL_STEP = int(sys.argv[3]) if len(sys.argv) > 3 else None
TOTAL = 10
ROWS = list(range(40))


class Part(Sampler[int]):
    """Each rank's own part, which nothing in its names or its code tells: the part is said from outside."""

    def __init__(self, rows: list[int]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[int]:
        return iter([self.rows[at] for at in torch.randperm(len(self.rows)).tolist()])


class OfRank(Part):
    """The same, which asks for its rank itself."""

    def __init__(self) -> None:
        self.rank = dist.get_rank()
        super().__init__(ROWS[self.rank :: dist.get_world_size()])


class Pairs(Sampler[list[int]]):
    """Batches of neighbours in a random order, alike on all ranks."""

    def __len__(self) -> int:
        return len(ROWS) // 2

    def __iter__(self) -> Iterator[list[int]]:
        for first in torch.randperm(len(self)).tolist():
            yield [2 * first, 2 * first + 1]


def loader() -> Any:
    match KIND:
        case "weighted":
            return DataLoader(ROWS, sampler=WeightedRandomSampler([1.0] * 40, 40, replacement=False), batch_size=2)  # type: ignore[arg-type]
        case "distributed":
            return DataLoader(ROWS, sampler=DistributedSampler(ROWS, shuffle=True), batch_size=2)  # type: ignore[arg-type]
        case "batches":
            return DataLoader(ROWS, batch_sampler=Pairs())  # type: ignore[arg-type]
        case "rank-aware":
            return DataLoader(ROWS, batch_sampler=BatchSampler(OfRank(), 2, True))  # type: ignore[arg-type]
        case _:
            return DataLoader(ROWS, sampler=Part(ROWS[dist.get_rank() :: dist.get_world_size()]), batch_size=2)  # type: ignore[arg-type]


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    model = torch.nn.Linear(2, 1)
    options: dict[str, Any] = {"state": {"model": model}, "checkpoint_every_steps": 3}
    with (
        training_progress_context({"seed": 3}, OUT, TOTAL, database=False, **options) as progress,
        (OUT / f"trace-{rank}").open("a", buffering=1) as trace,
    ):
        print("from", progress.current_step, flush=True)
        progress.loader(loader())
        for step, batch in progress.steps():
            trace.write(json.dumps([step, batch.tolist()]) + "\n")
            if step == KILL_STEP and rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    leave(main)
