"""Runs of every kind, made by their own writers: small, real, and on the CPU."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainhooks import CheckpointPolicy, training_progress_context

STEPS = 60


def train(out: Path, *, stop_after: int | None = None, name: str = "demo") -> nn.Linear:
    """Train a line with trainhooks; `stop_after` leaves it in the middle of a step."""
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    data = torch.utils.data.TensorDataset(torch.linspace(-1, 1, 400).reshape(100, 4))
    config = {"seed": 1, "run_name": name, "lr": 0.05}
    policy = CheckpointPolicy(every_steps=20, every_seconds=None, asynchronous=False)
    with training_progress_context(
        config, out, STEPS, state={"model": model, "optimizer": optimizer}, checkpoints=policy
    ) as progress:
        progress.loader(data, batch_size=4)
        for step, (x,) in progress.steps():
            loss = (model(x) - x.sum(dim=1, keepdim=True)).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            progress.record_inputs(lengths=[4] * len(x), labels=[step // 20] * len(x))
            more = {"val_loss": loss} if step % 10 == 9 else {}
            progress.update_metrics(step=step, loss=loss, learning_rate=0.05, samples_processed=4 * step + 4, **more)
            if step == stop_after:
                raise KeyboardInterrupt
    return model


@pytest.fixture
def ours() -> Callable[..., nn.Linear]:
    return train


@pytest.fixture(scope="session")
def hugging_face(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the Hugging Face Trainer leaves after 12 steps."""
    from transformers import Trainer, TrainingArguments

    class Line(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 1)

        def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, Any]:
            out = self.layer(x)
            return {"loss": (out - x.sum(dim=1, keepdim=True)).pow(2).mean(), "logits": out}

    rows = [{"x": torch.randn(2), "labels": torch.zeros(1)} for _ in range(16)]
    out = tmp_path_factory.mktemp("runs") / "hf_run"
    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=12,
        per_device_train_batch_size=4,
        logging_steps=2,
        eval_strategy="steps",
        eval_steps=4,
        save_steps=4,
        load_best_model_at_end=True,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    Trainer(model=Line(), args=arguments, train_dataset=rows, eval_dataset=rows[:4]).train()
    return out


@pytest.fixture(scope="session")
def lightning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Lightning's CSV logger and checkpoint callback leave after 3 epochs."""
    import pytorch_lightning as pl
    from pytorch_lightning.callbacks import ModelCheckpoint
    from pytorch_lightning.loggers import CSVLogger

    class Line(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.save_hyperparameters({"width": 2})
            self.layer = nn.Linear(2, 1)

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            loss = self.layer(batch[0]).pow(2).mean()
            self.log("train_loss", loss)
            return loss

        def validation_step(self, batch: Any, index: int) -> None:
            self.log("val_loss", self.layer(batch[0]).pow(2).mean())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    root = tmp_path_factory.mktemp("runs")
    logger = CSVLogger(str(root), name="lightning_logs")
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(16, 2)), batch_size=4)
    trainer = pl.Trainer(
        max_epochs=3,
        logger=logger,
        callbacks=[ModelCheckpoint(dirpath=Path(logger.log_dir) / "checkpoints", monitor="val_loss")],
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning uses what torch deprecates
        trainer.fit(Line(), data, data)
    return root
