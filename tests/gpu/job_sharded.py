"""An FSDP2 training, one process a GPU, that a test kills and starts again: job_sharded.py OUT KILL_AT|never|leak.

bfloat16 computation, dropout on the device, fused AdamW, accumulation over two steps, saves beside the training with a
snapshot on the device. `leak`: save while every weight changes at once, and say what the checkpoint holds.
DEVICE=cpu runs the same over gloo, to try the job itself.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from job import digest  # noqa: E402
from torch import nn  # noqa: E402
from torch.distributed.device_mesh import init_device_mesh  # noqa: E402
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard  # noqa: E402
from torch.distributed.tensor import DTensor  # noqa: E402

from trainhooks import CheckpointPolicy, training_progress_context  # noqa: E402
from trainhooks.pytorch.checkpoint.loading import load  # noqa: E402
from trainhooks.pytorch.checkpoint.saver import Saver  # noqa: E402
from trainhooks.pytorch.checkpoint.state import TrainingState  # noqa: E402
from trainhooks.pytorch.distributed import connect  # noqa: E402
from trainhooks.storage.checkpoints import CheckpointStore  # noqa: E402

TOTAL = 24
DEVICE = os.environ.get("DEVICE", "cuda")
WIDTH = 512 if DEVICE == "cuda" else 32
OUT, WHAT, RANK = Path(sys.argv[1]), sys.argv[2], int(os.environ["RANK"])
POLICY = CheckpointPolicy(every_steps=5, every_seconds=None, max_overhead=None)


def build() -> dict[str, Any]:
    torch.manual_seed(1)
    model = nn.Sequential(
        *(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.GELU(), nn.Dropout(0.2)) for _ in range(4))
    ).to(DEVICE)
    mesh = init_device_mesh(DEVICE, (dist.get_world_size(),))
    half = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for layer in model:
        fully_shard(layer, mesh=mesh, mp_policy=half)
    fully_shard(model, mesh=mesh, mp_policy=half)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    return {"model": model, "optimizer": optimizer}


def mine(value: Any) -> Any:
    """What this rank has of a state dict's tensors."""
    if isinstance(value, dict):
        return {key: mine(each) for key, each in value.items()}
    return value.to_local() if isinstance(value, DTensor) else value


def train(state: dict[str, Any]) -> dict[str, Any]:
    model, optimizer = state.values()
    losses = []
    with training_progress_context({"seed": 3}, OUT, TOTAL, state=state, checkpoints=POLICY) as progress:
        began_at = progress.current_step
        progress.loader([torch.linspace(-1, 1, WIDTH) * (n % 7) for n in range(400)], batch_size=8)
        for step, x in progress.steps():
            if str(step) == WHAT:
                for thread in threading.enumerate():
                    if thread.name == "trainhooks-checkpoint":
                        thread.join()  # steps are short: there is to be something to resume from
                os.kill(os.getpid(), signal.SIGKILL)
            x = x.to(DEVICE)
            loss = (model(x + 0.1 * torch.randn_like(x)) - x).float().square().mean() / 2
            loss.backward()
            if step % 2 == 1:
                optimizer.step()
                optimizer.zero_grad()
            progress.update_metrics(step=step, loss=loss)
            losses.append(loss.item().hex())
    state_dicts = mine(model.state_dict()), mine(optimizer.state_dict()["state"])
    return {
        "began_at": began_at,
        "losses": losses,
        "model": digest(state_dicts[0]),
        "optimizer": digest(state_dicts[1]),
        "drawn": torch.rand(3, device=DEVICE).tolist(),
    }


def leak(state: dict[str, Any]) -> dict[str, Any]:
    """Save 1.0, 2.0, ... while 100 is added to every weight at once; returns what this rank has of each checkpoint."""
    training, model = TrainingState(state), state["model"]
    saver = Saver(CheckpointStore(OUT / "checkpoints", "leak"), training, POLICY, attempt=1, ranks=connect())
    weights = [parameter.detach().to_local() for parameter in model.parameters()]
    blocked, held = [], []
    for moment in range(1, 5):
        for each in weights:
            each.fill_(float(moment))
        saver.begin(moment, None, {})
        for each in weights:
            each.add_(100.0)
        saver.close()
        dist.barrier()
        newest = CheckpointStore(OUT / "checkpoints", "leak").published()[-1]
        load(newest, training, rank=RANK)
        held.append(sorted({value for each in weights for value in each.unique().tolist()}))
        blocked.append(saver.records[-1].blocked_seconds)
        dist.barrier()
    return {"held": held, "blocked_seconds": blocked}


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    if DEVICE == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.use_deterministic_algorithms(True)
    dist.init_process_group("nccl" if DEVICE == "cuda" else "gloo")
    said = (leak if WHAT == "leak" else train)(build())
    (OUT / f"final-{RANK}.json").write_text(json.dumps(said))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
