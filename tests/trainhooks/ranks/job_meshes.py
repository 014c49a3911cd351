"""Four ranks in two dimensions: python job_meshes.py OUT hsdp|tensor. Saves, and loads into objects of another seed.

`hsdp`: sharded over two, replicated over two. `tensor`: FSDP2 over tensor parallelism, with a module that the plan for
tensor parallelism leaves out.
"""

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

sys.path.insert(0, str(Path(__file__).parent))
from bits import leave

from trainhooks.core.policy import CheckpointPolicy
from trainhooks.pytorch.checkpoint.loading import load
from trainhooks.pytorch.checkpoint.saver import Saver
from trainhooks.pytorch.checkpoint.state import TrainingState
from trainhooks.pytorch.distributed import connect
from trainhooks.recovery import weights
from trainhooks.recovery.found import SavedModel
from trainhooks.storage.checkpoints import CheckpointStore

OUT, KIND = Path(sys.argv[1]), sys.argv[2]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.left_out = nn.Linear(5, 8), nn.Linear(8, 3), nn.Linear(3, 7)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.left_out(self.down(self.up(x).relu()))
        return out


def build(seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    model = Model()
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("outer", "inner"))
    if KIND == "hsdp":
        fully_shard(model, mesh=mesh)
    else:
        parallelize_module(model, mesh["inner"], {"up": ColwiseParallel(), "down": RowwiseParallel()})
        fully_shard(model, mesh=mesh["outer"])
    return {"model": model, "optimizer": torch.optim.AdamW(model.parameters(), lr=1e-2, foreach=False)}


def here(state: dict[str, Any]) -> list[Any]:
    """Placement and local part of every parameter and of what the optimizer has for it."""
    model, optimizer = state.values()
    found: list[Any] = []
    for each in model.parameters():
        kept = (each, optimizer.state[each]["exp_avg"], optimizer.state[each]["exp_avg_sq"])
        found.append([(part.placements, part.to_local().tolist()) for part in kept])
    return found


def main() -> None:
    dist.init_process_group("gloo")
    state = build(0)
    model, optimizer = state.values()
    for turn in range(2):
        model(torch.ones(2, 5) + turn).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    store = CheckpointStore(OUT, "meshes")
    policy = CheckpointPolicy(asynchronous=False)
    Saver(store, TrainingState(state), policy, attempt=1, ranks=connect()).save(2, None, {})
    dist.barrier()
    [checkpoint] = store.published()
    whole = {name: each.full_tensor() for name, each in model.state_dict().items()}
    read = weights.read(SavedModel(path=checkpoint.path, is_ours=True))
    assert all(torch.equal(whole[name], read[name]) for name in whole)
    other = build(5)
    load(checkpoint, TrainingState(other), rank=dist.get_rank())
    assert here(other) == here(state)
    print("the same", flush=True)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    leave(main)
