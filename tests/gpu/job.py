"""A training on the GPU that a test kills and starts again: python job.py OUTPUT_DIR KILL_AT|never sync|async.

Mixed precision with a GradScaler, dropout on the device, fused AdamW, accumulation over two steps: under PyTorch's
deterministic flags two uninterrupted runs are equal bit for bit, and so must a resumed one be.
"""

import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import Dataset  # noqa: E402

from trainhooks import CheckpointPolicy, training_progress_context  # noqa: E402

TOTAL = 40
WIDTH = 256


class Noisy(Dataset[Any]):
    """Augmented samples."""

    def __len__(self) -> int:
        return 200

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.linspace(-1, 1, WIDTH) * (index % 7) + torch.randn(WIDTH)


def main() -> None:
    out, kill_at, how = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(1)
    layers = [
        layer for _ in range(4) for layer in (nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.GELU(), nn.Dropout(0.2))
    ]
    model = nn.Sequential(*layers, nn.Linear(WIDTH, WIDTH)).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=TOTAL)
    scaler = torch.amp.GradScaler(init_scale=2.0**24, growth_interval=3)  # overflows, shrinks and grows on the way
    state = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "scaler": scaler}
    policy = CheckpointPolicy(every_steps=3, every_seconds=None, max_overhead=None, asynchronous=how == "async")
    losses = []
    with training_progress_context({"seed": 3}, out, TOTAL, state=state, checkpoints=policy) as progress:
        began_at = progress.current_step
        progress.loader(Noisy(), batch_size=8)
        for step, x in progress.steps():
            if str(step) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            x = x.cuda(non_blocking=True)
            with torch.autocast("cuda", torch.float16):
                loss = (model(x + 0.1 * torch.randn_like(x)) - x).square().mean() / 2
            scaler.scale(loss).backward()
            if step % 2 == 1:
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
                scheduler.step()
            progress.update_metrics(step=step, loss=loss)
            losses.append(loss.item().hex())
    final = {
        "began_at": began_at,
        "losses": losses,
        "model": digest(model.state_dict()),
        "optimizer": digest(optimizer.state_dict()["state"]),
        "scaler": scaler.state_dict(),
        "lr": scheduler.get_last_lr(),
        "drawn": torch.rand(3, device="cuda").tolist(),
        "device": torch.cuda.get_device_name(),
    }
    (out / "final.json").write_text(json.dumps(final))


def digest(state: Any) -> str:
    hashed = hashlib.sha256()
    for key in sorted(state, key=str):
        value = state[key]
        if isinstance(value, dict):
            hashed.update(digest(value).encode())
        else:
            hashed.update(f"{key} {value.dtype} {value.device}".encode())
            hashed.update(value.detach().cpu().numpy().tobytes())
    return hashed.hexdigest()


if __name__ == "__main__":
    main()
