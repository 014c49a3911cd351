"""PyTorch Lightning's Trainer: records and verified checkpoints.

    trainer = Trainer(..., callbacks=[TrainhooksCallback("run"), ModelCheckpoint("run/checkpoints", save_top_k=3)])
    trainer.fit(model, data, ckpt_path=newest_good_checkpoint("run"))

A signal (SIGTERM, SIGUSR1, SIGINT) lets the step end and the Trainer save to `run/checkpoints/preempted.ckpt`; the
process then leaves with exit code 75. What is resumed, and how exactly, is up to the Trainer: its checkpoints are read
here, never changed. Observed with pytorch-lightning 2.6: a checkpoint saved at the end of an epoch resumes exactly; one
saved inside an epoch repeats its last batch (Lightning-AI/pytorch-lightning#19815) and, unless the loader has a state
of its own, restarts the data of the epoch.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trainhooks.integrations.callback_base import CallbackBase, check_options
from trainhooks.storage import location

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
    """Records to `output_dir/progress`, and issues a receipt for each checkpoint of the Trainer, wherever it is.

    Args:
        output_dir: where `newest_good_checkpoint` searches.
        config: stored beside the module's hyperparameters.
        grace_seconds: time from a signal to the kill, if neither Slurm nor torchrun sets it.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        *,
        config: Mapping[str, Any] | None = None,
        grace_seconds: float | None = None,
    ) -> None:
        self.output_dir = location.path("output_dir", output_dir)
        self.config = check_options(config, grace_seconds)
        self.grace_seconds = grace_seconds
        self._run: CallbackBase | None = None
        self._ended: CallbackBase | None = None
        """The training that has ended: a later evaluation is recorded with it."""
        self._recorded_step = 0
        self._logged: dict[str, Any] = {}
        self._preempted = self.output_dir / "checkpoints" / "preempted.ckpt"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Wrap the CheckpointIO: no hook of a callback comes after the write."""
        io = trainer.strategy.checkpoint_io
        if isinstance(io, AsyncCheckpointIO):
            log.warning(
                "checkpoints of AsyncCheckpointIO get no receipt, since it does not report when one is complete:"
                " newest_good_checkpoint ignores them"
            )
        elif not isinstance(io, VouchingIO):
            trainer.strategy.checkpoint_io = VouchingIO(
                io, lambda path, step: self._saw_checkpoint(path, _step(trainer, step))
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the records when the training starts or resumes."""
        self._close(is_finished=True)  # a training that an error ended, in a notebook
        self._run = CallbackBase(
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
        """Record a step's loss and learning rate, and what the module has logged, as often as its loggers get it."""
        step = _step(trainer, trainer.global_step)
        if self._run is None:
            return
        self._run.saw_batch(batch, epoch=trainer.current_epoch)
        if step == self._recorded_step:  # inside an accumulation window
            return
        self._recorded_step = step
        members: dict[str, Any] = {}
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined] # set by its logger connector
        if step % every == 0:
            members |= self._fresh(trainer)
        if isinstance(outputs, Mapping) and outputs.get("loss") is not None:
            members["loss"] = outputs["loss"] * trainer.accumulate_grad_batches  # Lightning has divided it by them
        if trainer.optimizers:
            members["learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        self._run.saw_metrics(step, members)
        if self._run.must_stop() and not trainer.should_stop:
            trainer.save_checkpoint(self._preempted)
            trainer.should_stop = True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """An evaluation runs."""
        if self._run is not None:
            self._run.evaluation_runs()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the results of an evaluation."""
        if self._run is not None:
            self._run.evaluation_ends()
        self._saw_evaluation(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the results of a test with the training before it."""
        self._saw_evaluation(trainer)

    def _saw_evaluation(self, trainer: Trainer) -> None:
        run = self._run or self._ended
        if run is not None:
            run.saw_metrics(_step(trainer, trainer.global_step), self._fresh(trainer))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the records. Lightning's own exit on SIGTERM saves nothing and has no exit code: ours comes first.

        It is raised after a step, on all ranks, even if the signal came too late for `on_train_batch_end`.
        """
        if self._run is not None and isinstance(exception, SIGTERMException):
            answers = [self._run.must_stop() for _ in range(2)]  # several ranks agree in the second call
            if any(answers) and not trainer.should_stop:
                trainer.save_checkpoint(self._preempted)
        self._close(is_finished=False)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Close the records, and exit if a signal stopped the training."""
        self._close(is_finished=_is_done(trainer))
        if isinstance(io := trainer.strategy.checkpoint_io, VouchingIO):
            trainer.strategy.checkpoint_io = io.inner

    def _fresh(self, trainer: Trainer) -> dict[str, Any]:
        """Return what was logged since the last call: the Trainer keeps old values, such as those of a validation."""
        before, self._logged = self._logged, dict(trainer.callback_metrics)
        return {name: each for name, each in self._logged.items() if each is not before.get(name)}

    def _saw_checkpoint(self, path: str | Path, step: int) -> None:
        if self._run is not None:
            self._run.saw_checkpoint(path, step)

    def _close(self, *, is_finished: bool) -> None:
        run, self._run = self._run, None
        if run is not None:
            self._ended = run
            run.close(is_finished=is_finished)


def _is_manual(trainer: Trainer) -> bool:
    module = trainer.lightning_module
    return module is not None and not module.automatic_optimization


def _step(trainer: Trainer, step: int) -> int:
    """Return the finished steps. `step` is the Trainer's count.

    With manual optimization the Trainer counts the steps of every optimizer; then each batch is a step.
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
    """Delegates to another CheckpointIO, and reports each checkpoint once it is written."""

    def __init__(self, inner: CheckpointIO, saved: Callable[[str | Path, int], None]) -> None:
        self.inner = inner
        self._saved = saved

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write, then report."""
        self.inner.save_checkpoint(checkpoint, path, storage_options=storage_options)
        self._saved(path, checkpoint["global_step"])

    def load_checkpoint(self, path: str | Path, *args: Any, **options: Any) -> dict[str, Any]:
        """Read."""
        return self.inner.load_checkpoint(path, *args, **options)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete."""
        self.inner.remove_checkpoint(path)

    def teardown(self) -> None:
        """Finish pending writes."""
        self.inner.teardown()
