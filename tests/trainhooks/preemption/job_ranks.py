"""A DistributedDataParallel training: python job_ranks.py OUT. Says in OUT/ids-RANK which samples each step took."""

import hashlib
import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from trainhooks import training_progress_context

OUT = Path(sys.argv[1])


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    rank, is_alone = int(os.environ["RANK"]), os.environ["WORLD_SIZE"] == "1"
    torch.manual_seed(1)
    model: nn.Module = nn.Linear(4, 1)
    if not is_alone:
        dist.init_process_group("gloo")
        model = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    state = {"model": model, "optimizer": optimizer}
    with training_progress_context({"seed": 3}, OUT, 40, state=state, checkpoint_every_steps=7) as progress:
        progress.loader([torch.full((4,), float(row)) for row in range(96)], batch_size=3)
        for _, x in progress.steps():
            optimizer.zero_grad()
            model(x + torch.randn(3, 4)).pow(2).mean().backward()
            optimizer.step()
            with (OUT / f"ids-{rank}").open("a") as file:
                file.write(" ".join(str(int(row)) for row in x[:, 0]) + "\n")
            time.sleep(0.01)
        weights = b"".join(value.numpy().tobytes() for value in model.state_dict().values())
        (OUT / f"final-{rank}").write_text(hashlib.sha256(weights).hexdigest())
    if not is_alone:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
