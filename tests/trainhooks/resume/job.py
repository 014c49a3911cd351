"""A small training that a test kills and starts again: job.py OUTPUT_DIR CELL KILL [BUG].

KILL: `never`; `step:N`, in the middle of step N; `sync:N`, when this process is about to sync a file for the N-th time,
so within a save. BUG: a fault to plant in trainhooks, see faults.py.
"""

import itertools
import json
import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Sampler,
    WeightedRandomSampler,
    default_collate,
    get_worker_info,
)

sys.path.insert(0, str(Path(__file__).parent))
import faults
from cell import Cell

from trainhooks import CheckpointPolicy, training_progress_context

TOTAL = 24
SAMPLES = 50
Sample = tuple[torch.Tensor, torch.Tensor, int]


def sample(index: int, augment: bool) -> Sample:
    x = torch.linspace(0, 1, 8) * (index % 7)
    if augment:
        x = x + torch.randn(8) * random.random() + float(np.random.standard_normal())
    return x, x.sum(dim=0, keepdim=True), index


class Samples(Dataset[Sample]):
    def __init__(self, augment: bool, held: bool = False) -> None:
        self.augment = augment
        self.rng = random.Random(5) if held else None

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> Sample:
        x, y, number = sample(index, self.augment)
        return x if self.rng is None else x * self.rng.random(), y, number


class Stream(IterableDataset[Sample]):
    """Sharded by worker, in an order of its own where it is shuffled."""

    def __init__(self, augment: bool, shuffle: bool) -> None:
        self.augment, self.shuffle = augment, shuffle

    def __iter__(self) -> Iterator[Sample]:
        for index in self.indices():
            yield sample(index, self.augment)

    def indices(self) -> list[int]:
        info = get_worker_info()
        mine = list(range(SAMPLES))[0 if info is None else info.id :: 1 if info is None else info.num_workers]
        if self.shuffle:
            random.shuffle(mine)
        return mine


class StatefulStream(Stream):
    """The same, which can be put at its place."""

    order: list[int] | None = None
    at = 0

    def __iter__(self) -> Iterator[Sample]:
        if self.order is None:
            self.order, self.at = self.indices(), 0
        while self.at < len(self.order):
            self.at += 1
            yield sample(self.order[self.at - 1], self.augment)

    def state_dict(self) -> dict[str, Any]:
        return {"order": self.order, "at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.order, self.at = state["order"], state["at"]


class Buckets(Sampler[list[int]]):
    """Shuffles its own batches in place: an epoch begins where the last one ended. Some hold an index twice."""

    def __init__(self) -> None:
        self.batches = [[first, first, *range(first + 1, first + 4)] for first in range(0, SAMPLES - 4, 7)]

    def __iter__(self) -> Iterator[list[int]]:
        random.shuffle(self.batches)
        yield from self.batches


def joined() -> Any:
    """Two streams of the hub, one of them shuffled through a buffer."""
    from datasets import Dataset as HubDataset
    from datasets import interleave_datasets

    whole = [HubDataset.from_dict({"id": list(range(first, first + 25))}) for first in (0, 25)]
    one, two = (each.to_iterable_dataset(num_shards=5) for each in whole)
    return interleave_datasets([one.shuffle(seed=5, buffer_size=8), two])


def of_rows(rows: list[dict[str, int]]) -> Any:
    return default_collate([sample(row["id"], True) for row in rows])


def source(cell: Cell) -> tuple[Any, dict[str, Any]]:
    options: dict[str, Any] = {"batch_size": 4, "num_workers": cell.workers}
    match cell.data:
        case "map":
            return Samples(cell.augment, cell.held), {**options, "shuffle": cell.shuffle}
        case "weighted":
            weights = [1.0 + index % 5 for index in range(SAMPLES)]
            return DataLoader(
                Samples(cell.augment, cell.held), sampler=WeightedRandomSampler(weights, 30), **options
            ), {}
        case "buckets":
            return DataLoader(Samples(cell.augment, cell.held), batch_sampler=Buckets(), num_workers=cell.workers), {}
        case "joined":
            return joined(), {**options, "collate_fn": of_rows}
        case "iterable":
            return Stream(cell.augment, cell.shuffle), options
        case _:
            return StatefulStream(cell.augment, cell.shuffle), options


def build(cell: Cell) -> dict[str, Any]:
    model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.3 if cell.dropout else 0.0), nn.Tanh(), nn.Linear(16, 1))
    parts = [model[0], model[3]] if cell.optimizer == "two" else [model]
    if cell.wrapped:
        model[2] = checkpoint_wrapper(model[2])
    state: dict[str, Any] = {"model": model}
    for number, part in enumerate(parts):
        if cell.optimizer == "adamw" or number == 1:
            optimizer: Any = torch.optim.AdamW(part.parameters(), lr=1e-2)
        else:
            optimizer = torch.optim.SGD(part.parameters(), lr=1e-3, momentum=0.9)
        state[f"optimizer_{number}"] = optimizer
        state[f"scheduler_{number}"] = scheduler(cell.scheduler, optimizer)
    if cell.amp:
        state["scaler"] = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)
    if cell.ema:
        state["ema"] = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    return state


def scheduler(kind: str, optimizer: Any) -> Any:
    match kind:
        case "cosine":
            return lr_scheduler.CosineAnnealingLR(optimizer, TOTAL)
        case "lambda":
            return lr_scheduler.LambdaLR(optimizer, lambda count: 0.9**count)
        case "onecycle":
            return lr_scheduler.OneCycleLR(optimizer, max_lr=2e-2, total_steps=TOTAL + 1)
        case _:
            return lr_scheduler.ReduceLROnPlateau(optimizer, patience=1)


def endless(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader


def update(state: dict[str, Any], loss: float, *, drops: bool = True) -> None:
    scaler = state.get("scaler")
    optimizers = [each for name, each in state.items() if name.startswith("optimizer")]
    for optimizer in optimizers:
        scaler.step(optimizer) if scaler else optimizer.step()
        if drops:
            optimizer.zero_grad()
    if scaler:
        scaler.update()
    for each in (each for name, each in state.items() if name.startswith("scheduler")):
        each.step(loss) if isinstance(each, lr_scheduler.ReduceLROnPlateau) else each.step()
    if "ema" in state:
        state["ema"].update_parameters(state["model"])


def kill_at_sync(number: int) -> None:
    """End this process when it is about to sync a file for the `number`-th time."""
    from trainhooks.storage import atomic

    left, sync = [number], atomic.sync_file

    def sync_or_die(descriptor: int) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(descriptor)

    atomic.sync_file = sync_or_die


def bits(loss: torch.Tensor) -> str:
    return loss.detach().float().numpy().tobytes().hex()


def everything(state: dict[str, Any]) -> dict[str, Any]:
    version, words, gauss = random.getstate()
    legacy: Any = np.random.get_state()
    return {
        **{name: each.state_dict() for name, each in state.items()},
        "gradients": [parameter.grad for parameter in state["model"].parameters()],
        "python": [version, list(words), gauss],
        "numpy": [legacy[1].tolist(), *legacy[2:]],
        "torch": torch.get_rng_state(),
    }


def main() -> None:
    out, cell, kill = Path(sys.argv[1]), Cell(**json.loads(sys.argv[2])), sys.argv[3]
    faults.plant(sys.argv[4:])
    kind, _, number = kill.partition(":")
    if kind == "sync":
        kill_at_sync(int(number))
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    state = build(cell)
    policy = CheckpointPolicy(
        every_steps=cell.every, every_seconds=None, asynchronous=cell.asynchronous, max_overhead=None
    )
    options: Any = {"state": state, "checkpoints": policy}
    with (
        training_progress_context({"seed": 3}, out, TOTAL, **options) as progress,
        (out / "trace.jsonl").open("a", buffering=1) as trace,
    ):
        data, given = source(cell)
        progress.loader(data, **given)
        others = endless(progress.loader(Samples(True), name="second", batch_size=3)) if cell.named else None
        evaluation = progress.loader(Samples(True), evaluates=True, shuffle=True) if cell.evaluates else None
        loss = torch.zeros(())
        for step, (x, y, ids) in progress.steps():
            if cell.order == "start" and step and step % cell.accumulate == 0:
                update(state, step / TOTAL)
            if others is not None:
                more, goal, numbers = next(others)
                x, y, ids = torch.cat([x, more]), torch.cat([y, goal]), torch.cat([ids, numbers])
            x = x + random.random() + float(np.random.standard_normal())  # the loop has generators of its own to keep
            with torch.autocast("cpu", torch.bfloat16, enabled=cell.amp):
                loss = nn.functional.mse_loss(state["model"](x), y) / cell.accumulate
            scaled = state["scaler"].scale(loss) if cell.amp else loss
            scaled.backward()
            trace.write(json.dumps({"step": step, "ids": ids.tolist(), "loss": bits(loss)}) + "\n")
            if kill == f"step:{step}":
                progress.flush()  # a step here takes a millisecond: the certificate wants rows to compare
                os.kill(os.getpid(), signal.SIGKILL)
            if cell.order == "late":
                update(state, loss.item(), drops=step % 4 == 3)
            elif cell.order == "usual" and (step + 1) % cell.accumulate == 0:
                update(state, loss.item())
            if evaluation is not None and step % 4 == 1:
                with progress.evaluating(), torch.no_grad():
                    seen = [(state["model"](x), ids) for x, _, ids in itertools.islice(evaluation, 9)]
                trace.write(json.dumps({"step": step, "evaluation": repr(seen)}) + "\n")
            progress.update_metrics(step=step, loss=loss)
        torch.save(everything(state), out / "final.pt")


if __name__ == "__main__":
    main()
