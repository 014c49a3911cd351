"""A training that a test tells to go: python job.py OUT. Says in OUT/phase where it is."""

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from trainhooks import training_progress_context

TOTAL = 20
OUT = Path(sys.argv[1])
OUT.mkdir(parents=True, exist_ok=True)


def say(phase: str) -> None:
    with (OUT / "phase").open("a") as file:
        file.write(phase + "\n")


class Noisy(Dataset[Any]):
    """Augmented samples: each draws from torch's generator."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        time.sleep(0.001)
        x = torch.linspace(0, 1, 8) * index + torch.randn(8)
        return x, x.sum(dim=0, keepdim=True)


class Slow:
    """Something whose saving takes a while."""

    def state_dict(self) -> dict[str, int]:
        say("save")
        time.sleep(0.03)
        return {"nothing": 0}

    def load_state_dict(self, state: dict[str, int]) -> None:
        assert state == {"nothing": 0}


def main() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.3), nn.Linear(16, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    state = {"model": model, "optimizer": optimizer, "slow": Slow()}
    with training_progress_context({"seed": 3}, OUT, TOTAL, state=state, checkpoint_every_steps=6) as progress:
        progress.loader(Noisy(), batch_size=4, num_workers=4)
        say("warm-up")
        time.sleep(0.05)
        for step, (x, y) in progress.steps():
            say("step")
            time.sleep(0.01)
            loss = nn.functional.mse_loss(model(x), y) / 2
            loss.backward()
            if step % 2 == 1:
                optimizer.step()
                optimizer.zero_grad()
            progress.update_metrics(step=step, loss=loss)
            if step % 10 == 4:
                with progress.evaluating(), torch.no_grad():
                    for _ in range(50):
                        say("eval")
                        if progress.should_stop:
                            break
                        model(x * 0)  # draws: dropout is on
                        time.sleep(0.002)
            if step % 10 == 9:
                say("epoch")
        weights = b"".join(value.numpy().tobytes() for value in model.state_dict().values())
        (OUT / "final.json").write_text(json.dumps([hashlib.sha256(weights).hexdigest(), progress.current_step]))


if __name__ == "__main__":
    main()
