"""A small training that a test kills and starts again: python job.py OUTPUT_DIR KILL_AT|never WORKERS."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from trainhooks import training_progress_context

TOTAL = 30


class Noisy(Dataset[Any]):
    """Augmented samples: each draws from torch's generator."""

    def __len__(self) -> int:
        return 50

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        x = torch.linspace(0, 1, 8) * index + torch.randn(8)
        return x, x.sum(dim=0, keepdim=True), index


def main() -> None:
    out, kill_at, workers = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.3), nn.Linear(16, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, TOTAL)
    state = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    with training_progress_context({"seed": 3}, out, TOTAL, state=state, checkpoint_every_steps=4) as progress:
        progress.loader(Noisy(), batch_size=4, num_workers=workers)
        for step, (x, y, ids) in progress.steps():
            if str(step) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            loss = nn.functional.mse_loss(model(x), y) / 2
            loss.backward()
            if step % 2 == 1:
                optimizer.step()
                optimizer.zero_grad()
                scheduler.step()
            progress.update_metrics(step=step, loss=loss.item(), ids=ids.tolist())
        digest = {name: value.double().sum().item() for name, value in model.state_dict().items()}
        (out / "final.json").write_text(json.dumps([digest, torch.rand(1).item()]))


if __name__ == "__main__":
    main()
