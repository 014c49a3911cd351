"""A training whose loader workers are spawned: python job_spawn.py OUTPUT_DIR KILL_AT(-1: never)."""

import json
import os
import random
import signal
import sys
from pathlib import Path

import numpy
import torch
from torch import nn
from torch.utils.data import Dataset

from trainhooks import training_progress_context

TOTAL = 8


class Noisy(Dataset[torch.Tensor]):
    """Augments with every kind of random numbers."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> torch.Tensor:
        noise = random.random() + numpy.random.rand() + torch.rand(()).item()
        return torch.full((4,), float(index)) + noise


def main() -> None:
    out, kill_at = Path(sys.argv[1]), int(sys.argv[2])
    torch.multiprocessing.set_start_method("spawn")
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(model.parameters())
    state = {"model": model, "optimizer": optimizer}
    with training_progress_context(
        {"seed": 1}, out, TOTAL, state=state, checkpoint_every_steps=2, database=False
    ) as progress:
        progress.loader(Noisy(), batch_size=2, num_workers=2)
        for step, batch in progress.steps():
            optimizer.zero_grad()
            loss = model(batch).square().mean()
            loss.backward()
            optimizer.step()
            progress.update_metrics(step, loss)
            if step == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
    final = {name: tensor.tolist() for name, tensor in model.state_dict().items()}
    (out / "final.json").write_text(json.dumps(final))


if __name__ == "__main__":
    main()
