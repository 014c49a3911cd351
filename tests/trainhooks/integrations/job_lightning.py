"""A small training by PyTorch Lightning: python job_lightning.py OUTPUT_DIR WHEN plain|callback|keyed|manual.

WHEN: never; STEP (SIGKILL when it ends); term-early-STEP, term-late-STEP (SIGTERM before or after the callback's hook).
keyed: with the callback, on samples that have the columns of `kdproxy export`. manual: two optimizers by hand.
"""

import json
import os
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from trainhooks import newest_good_checkpoint, read_metrics
from trainhooks.integrations.lightning import TrainhooksCallback
from trainhooks.storage.receipts import issued

TOTAL = 26
EPOCH = 10


class Line(LightningModule):
    """Learns a sum."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layers = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = (batch["x"], batch["y"]) if isinstance(batch, dict) else batch
        loss = nn.functional.mse_loss(self.layers(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", nn.functional.mse_loss(self.layers(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


class ByHand(Line):
    """Steps two optimizers each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        optimizers: Any = self.optimizers()
        for each in optimizers:
            each.zero_grad()
        self.manual_backward(loss)
        for each in optimizers:
            each.step()
        return loss

    def configure_optimizers(self) -> Any:
        return [torch.optim.AdamW(layer.parameters(), lr=1e-2) for layer in (self.layers[0], self.layers[2])]


class Killer(Callback):
    """SIGKILL when a step ends, once what was saved before has its receipt."""

    def __init__(self, out: Path, kill_at: str) -> None:
        self.out = out
        self.kill_at = kill_at

    def tell(self, trainer: Trainer, when: str) -> None:
        if f"term-{when}-{trainer.global_step}" == self.kill_at:
            self.kill_at = "told"
            os.kill(os.getpid(), signal.SIGTERM)

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        self.tell(trainer, "early")

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self.tell(trainer, "late")
        if str(trainer.global_step) == self.kill_at:
            while not any(receipt.step == EPOCH * (trainer.global_step // EPOCH) for receipt in issued(self.out)):
                time.sleep(0.005)
            while read_metrics(self.out)[-1]["step"] < trainer.global_step - 1:  # rows for the certificate
                time.sleep(0.005)
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    out, kill_at, kind = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    seed_everything(1, verbose=False)
    x = torch.randn(40, 4)
    data = TensorDataset(x, x.sum(1, keepdim=True))
    pairs = enumerate(zip(*data.tensors, strict=True))
    rows = [{"x": x, "y": y, "id": f"s{n}", "key": f"{n:064x}", "ordinal": n % 2} for n, (x, y) in pairs]
    loader: Any = DataLoader(rows if kind == "keyed" else data, batch_size=2)  # type: ignore[arg-type]
    saving = ModelCheckpoint(out / "checkpoints", filename="{step}", save_top_k=-1, save_on_train_epoch_end=True)
    watching = [TrainhooksCallback(out, config={"experiment": "tiny"})] if kind != "plain" else []
    trainer = Trainer(
        max_steps=-1 if kind == "manual" else 2 * TOTAL if kind == "manual-steps" else TOTAL,
        max_epochs=1 if kind == "manual" else None,
        accumulate_grad_batches=1 if kind.startswith("manual") else 2,
        check_val_every_n_epoch=1,
        log_every_n_steps=1,
        callbacks=[saving, *watching, Killer(out, kill_at)],
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=out,
    )
    model = ByHand() if kind.startswith("manual") else Line()
    found = newest_good_checkpoint(out) if kind != "plain" else None
    print("from", found, flush=True)
    trainer.fit(model, loader, DataLoader(data, batch_size=8), ckpt_path=found)
    digest = {name: value.double().sum().item() for name, value in model.state_dict().items()}
    (out / "final.json").write_text(json.dumps(digest))


if __name__ == "__main__":
    main()
