"""PyTorch Lightning's Trainer: records and verified checkpoints.

    trainer = Trainer(..., callbacks=[TrainhooksCallback("run"), ModelCheckpoint("run/checkpoints", save_top_k=3)])
    trainer.fit(model, data, ckpt_path=newest_good_checkpoint("run"))

A signal (SIGTERM, SIGUSR1, SIGINT) lets the step end and the Trainer save to `run/checkpoints/preempted.ckpt`; the
process then leaves with exit code 75. What is resumed, and how exactly, stays the Trainer's own matter: its checkpoints
are read here, never changed. Seen with pytorch-lightning 2.6: what was saved at an epoch's end goes on exactly; what
was saved inside one runs its last batch again (Lightning-AI/pytorch-lightning#19815) and, unless the loader has a state
of its own, begins the epoch's data anew.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trainhooks.integrations.callback_base import CallbackBase

try:
    from pytorch_lightning import Callback, LightningModule, Trainer
    from pytorch_lightning.plugins.io import AsyncCheckpointIO, CheckpointIO
    from pytorch_lightning.utilities.exceptions import SIGTERMException
except ImportError as error:
    raise ImportError(
        f"This callback needs PyTorch Lightning ({error}). Hint: pip install pytorch-lightning"
    ) from error

log = logging.getLogger("trainhooks")


class TrainhooksCallback(Callback):
    """Records to `output_dir/progress`, and vouches for every checkpoint that the Trainer writes, wherever that is.

    Args:
        output_dir: where `newest_good_checkpoint` is to look.
        config: stored beside the module's hyperparameters.
        grace_seconds: from a signal to the kill, where neither Slurm nor torchrun says it.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        *,
        config: Mapping[str, Any] | None = None,
        grace_seconds: float | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.config = dict(config or {})
        self.grace_seconds = grace_seconds
        self._witness: CallbackBase | None = None
        self._ended: CallbackBase | None = None
        """Of the training that has ended: a later evaluation is recorded with it."""
        self._recorded_step = 0
        self._logged: dict[str, Any] = {}
        self._preempted = self.output_dir / "checkpoints" / "preempted.ckpt"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stand behind what writes checkpoints: no hook of a callback comes after the writing."""
        io = trainer.strategy.checkpoint_io
        if isinstance(io, AsyncCheckpointIO):
            log.warning("checkpoints that AsyncCheckpointIO writes get no receipt: it does not say when one is whole")
        elif not isinstance(io, VouchingIO):
            trainer.strategy.checkpoint_io = VouchingIO(
                io, lambda path, step: self._saw_checkpoint(path, _step(trainer, step))
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the records where the training begins or goes on."""
        self._close(is_finished=True)  # of a training that an error ended, in a notebook
        self._witness = CallbackBase(
            {**dict(pl_module.hparams), **self.config},
            self.output_dir,
            total_steps=_total(trainer),
            step=_step(trainer, trainer.global_step),
            grace_seconds=self.grace_seconds,
        )
        self._recorded_step = _step(trainer, trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record a step's loss and learning rate, and what the module has logged as often as loggers get it."""
        step = _step(trainer, trainer.global_step)
        if self._witness is None:
            return
        self._witness.saw_batch(batch, epoch=trainer.current_epoch)
        if step == self._recorded_step:  # inside an accumulation window
            return
        self._recorded_step = step
        members: dict[str, Any] = {}
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined] # set by its logger connector
        if step % every == 0:
            members |= self._fresh(trainer)
        if isinstance(outputs, Mapping) and outputs.get("loss") is not None:
            members["loss"] = outputs["loss"] * trainer.accumulate_grad_batches  # it comes divided by them
        if trainer.optimizers:
            members["learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        self._witness.saw_metrics(step, members)
        if self._witness.is_told_to_stop() and not trainer.should_stop:
            trainer.save_checkpoint(self._preempted)
            trainer.should_stop = True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """An evaluation is under way."""
        if self._witness is not None:
            self._witness.evaluation_goes_on()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record what an evaluation has found."""
        if self._witness is not None:
            self._witness.evaluation_ends()
        self._saw_evaluation(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record what a test has found, with the training before it."""
        self._saw_evaluation(trainer)

    def _saw_evaluation(self, trainer: Trainer) -> None:
        witness = self._witness or self._ended
        if witness is not None:
            witness.saw_metrics(_step(trainer, trainer.global_step), self._fresh(trainer))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the records. Lightning's own exit at SIGTERM saves nothing and has no code: ours goes before it.

        It is raised when a step has ended, on all ranks, also where the signal came too late for `on_train_batch_end`.
        """
        if self._witness is not None and isinstance(exception, SIGTERMException):
            told = [self._witness.is_told_to_stop() for _ in range(2)]  # several ranks agree in the second call
            if any(told) and not trainer.should_stop:
                trainer.save_checkpoint(self._preempted)
        self._close(is_finished=False)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Close the records, and leave if the training has stopped since it was told to."""
        self._close(is_finished=_is_done(trainer))
        if isinstance(io := trainer.strategy.checkpoint_io, VouchingIO):
            trainer.strategy.checkpoint_io = io.inner

    def _fresh(self, trainer: Trainer) -> dict[str, Any]:
        """Return what was logged since the last call: the Trainer keeps old values, such as those of a validation."""
        before, self._logged = self._logged, dict(trainer.callback_metrics)
        return {name: each for name, each in self._logged.items() if each is not before.get(name)}

    def _saw_checkpoint(self, path: str | Path, step: int) -> None:
        if self._witness is not None:
            self._witness.saw_checkpoint(path, step)

    def _close(self, *, is_finished: bool) -> None:
        witness, self._witness = self._witness, None
        if witness is not None:
            self._ended = witness
            witness.close(is_finished=is_finished)


def _is_manual(trainer: Trainer) -> bool:
    module = trainer.lightning_module
    return module is not None and not module.automatic_optimization


def _step(trainer: Trainer, step: int) -> int:
    """Return the finished steps. `step` is what the Trainer counts.

    With optimizers that the module steps by hand that is the steps of each of them; then a batch is a step.
    """
    return trainer.fit_loop.epoch_loop.batch_progress.total.ready if _is_manual(trainer) else step


def _total(trainer: Trainer) -> int:
    total: int = trainer.estimated_stepping_batches  # type: ignore[assignment] # an endless one is refused
    if not _is_manual(trainer) or trainer.max_steps == -1:
        return total
    by_steps = math.ceil(trainer.max_steps / max(1, len(trainer.optimizers)))
    if trainer.max_epochs == -1 or trainer.num_training_batches == math.inf:
        return by_steps
    return min(by_steps, int(trainer.num_training_batches) * max(trainer.max_epochs or 1, 1))


def _is_done(trainer: Trainer) -> bool:
    if trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps:
        return True
    return _step(trainer, trainer.global_step) >= _total(trainer)


class VouchingIO(CheckpointIO):
    """Does what another CheckpointIO does, and tells of each checkpoint once it is written."""

    def __init__(self, inner: CheckpointIO, saved: Callable[[str | Path, int], None]) -> None:
        self.inner = inner
        self._saved = saved

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write, then tell."""
        self.inner.save_checkpoint(checkpoint, path, storage_options=storage_options)
        self._saved(path, checkpoint["global_step"])

    def load_checkpoint(self, path: str | Path, *args: Any, **options: Any) -> dict[str, Any]:
        """Read."""
        return self.inner.load_checkpoint(path, *args, **options)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete."""
        self.inner.remove_checkpoint(path)

    def teardown(self) -> None:
        """End what is under way."""
        self.inner.teardown()
