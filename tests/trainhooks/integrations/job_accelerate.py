"""A small training with Accelerate: python job_accelerate.py OUTPUT_DIR KILL_AT|never session|states."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.utils.data import Dataset

from trainhooks import training_progress_context
from trainhooks.integrations.accelerate import load_state, save_state, training_state

TOTAL = 24


class Noisy(Dataset[Any]):
    """Augmented samples."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x = torch.linspace(0, 1, 4) * index / 40 + torch.randn(4) / 10
        return x, x.sum(dim=0, keepdim=True)


def main() -> None:
    out, kill_at, kind = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    set_seed(1)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=3)
    net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 1))
    adam = torch.optim.AdamW(net.parameters(), lr=1e-2)
    model, optimizer, scheduler = accelerator.prepare(net, adam, torch.optim.lr_scheduler.ExponentialLR(adam, 0.9))

    def train(step: int, batch: tuple[Tensor, Tensor]) -> None:
        if str(step) == kill_at:
            progress.flush()  # rows for the certificate
            os.kill(os.getpid(), signal.SIGKILL)
        with accelerator.accumulate(model):
            loss = nn.functional.mse_loss(model(batch[0]), batch[1])
            accelerator.backward(loss)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        progress.update_metrics(step=step, loss=loss)

    if kind == "session":
        state = training_state(accelerator, model=model, optimizer=optimizer, scheduler=scheduler)
        with training_progress_context({"seed": 1}, out, TOTAL, state=state, checkpoint_every_steps=4) as progress:
            progress.loader(Noisy(), batch_size=4, num_workers=2)
            for step, batch in progress.steps():
                train(step, batch)
    else:
        with training_progress_context({"seed": 1}, out, TOTAL) as progress:
            first = load_state(accelerator, progress)
            print("from", first, flush=True)
            for step in range(first, TOTAL):
                x = torch.full((4, 4), step / TOTAL)
                train(step, (x, x.sum(1, keepdim=True)))
                if step % 6 == 5:  # where a window closes: Accelerate does not save gradients
                    save_state(accelerator, progress)
    digest = {name: value.double().sum().item() for name, value in accelerator.unwrap_model(model).state_dict().items()}
    (out / "final.json").write_text(json.dumps([digest, torch.rand(1).item()]))


if __name__ == "__main__":
    main()
