"""An FSDP2 training on some ranks: python job_sharded.py OUT [KILL_RANK KILL_STEP]. One rank alone does not shard.

Sizes that two or three ranks do not divide, a parameter of one element, an embedding tied to the head, a buffer that is
not sharded, gradients that are kept over two steps. Says in OUT/trace-RANK what each step computed, in OUT/loaded-RANK
what it went on from, put together over the ranks, and in OUT/final-RANK what this rank had of everything at the end.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

sys.path.insert(0, str(Path(__file__).parent))
from bits import digest, leave, settle

from trainhooks import CheckpointPolicy, training_progress_context
from trainhooks.pytorch.checkpoint import sharding

OUT = Path(sys.argv[1])
TOTAL = int(os.environ.get("TOTAL", "11"))
EVERY = 3
HOW = os.environ.get("HOW", "synchronous")


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(6, 7), nn.Dropout(0.2), nn.Linear(7, 6)) for _ in range(2))
        self.scale = nn.Parameter(torch.ones(1))  # less than one element a rank
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.seen: Tensor

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        hidden = self.embed(x)
        for layer in self.layers:
            hidden = hidden + layer(hidden)
        out: Tensor = self.head(hidden * self.scale)
        return out


def build() -> dict[str, Any]:
    torch.manual_seed(1)
    model = Model()
    if dist.get_world_size() > 1:
        for layer in model.layers:
            fully_shard(layer)
        fully_shard(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    return {"model": model, "optimizer": optimizer, "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 4, 0.5)}


def mine(value: Any) -> Any:
    """What this rank has of a state: local parts of what is sharded."""
    if isinstance(value, DTensor):
        return [str(value.placements), value.to_local()]
    if isinstance(value, dict):
        return {key: mine(each) for key, each in value.items()}
    return value


def whole(value: Any) -> Any:
    """All of it, as every rank would have it alone."""
    if isinstance(value, DTensor):
        return value.full_tensor()
    if isinstance(value, dict):
        return {key: whole(each) for key, each in value.items()}
    return value


def lose(name: str) -> None:
    """Plant a bug: this rank forgets that it has a part of a tensor of that shape."""
    own_box, shape = sharding.own_box, Model().get_parameter(name).shape
    sharding.own_box = lambda tensor: None if tensor.shape == shape else own_box(tensor)


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    if HOW == "incomplete" and rank == 1:
        lose("layers.0.0.weight")
    kill_step = int(sys.argv[3]) if len(sys.argv) > 2 and int(sys.argv[2]) == rank else None
    state = build()
    model, optimizer, scheduler = state.values()
    is_asynchronous = HOW == "asynchronous"
    policy = CheckpointPolicy(
        every_steps=EVERY, every_seconds=None, asynchronous=is_asynchronous, max_overhead=None, patience_seconds=30
    )
    with (
        training_progress_context({"seed": 3}, OUT, TOTAL, state=state, checkpoints=policy) as progress,
        (OUT / f"trace-{rank}").open("a", buffering=1) as trace,
    ):
        print("from", progress.current_step, flush=True)
        loaded = {name: digest(whole(each.state_dict())) for name, each in state.items()}
        gradients = digest([whole(each.grad) for each in model.parameters()])
        (OUT / f"loaded-{rank}").write_text(json.dumps([loaded, gradients]))
        progress.loader([torch.tensor([n % 11, n % 7, n % 5]) for n in range(64)], batch_size=2)
        for step, x in progress.steps():
            if step == kill_step:
                settle()
                os.kill(os.getpid(), signal.SIGKILL)
            loss = nn.functional.cross_entropy(model(x).flatten(0, 1), x.flatten()) / 2
            loss.backward()
            trace.write(json.dumps([step, x.tolist(), digest(loss.detach())]) + "\n")
            if step % 2 == 1:
                optimizer.step()
                optimizer.zero_grad()
                scheduler.step()
            progress.update_metrics(step=step, loss=loss)
    parts = {name: digest(mine(each.state_dict())) for name, each in state.items()}
    parts |= {"gradients": digest([mine(each.grad) for each in model.parameters()]), "drawn": digest(torch.rand(3))}
    (OUT / f"final-{rank}").write_text(json.dumps(parts))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    leave(main)
