"""Hugging Face's Trainer, and TRL's, which are built on it: records, verified checkpoints, a stop when told to.

    trainer = Trainer(..., callbacks=[TrainhooksCallback()])
    trainer.train(resume_from_checkpoint=newest_good_checkpoint(args.output_dir))

A signal (SIGTERM, SIGUSR1, SIGINT) lets the step end and the Trainer save; the process then leaves with exit code 75.
What is resumed, and how exactly, stays the Trainer's own matter: its checkpoints are read here, never changed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainhooks.integrations.callback_base import CallbackBase

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise ImportError(
        f"This callback is for Hugging Face's Trainer ({error}). Hint: pip install transformers"
    ) from error


class TrainhooksCallback(TrainerCallback):
    """Records to `output_dir/progress`, and vouches for the checkpoints in it.

    Args:
        output_dir: the arguments' `output_dir` by default; it is where `newest_good_checkpoint` is to look.
        config: stored beside the arguments of the training.
        grace_seconds: from a signal to the kill, where neither Slurm nor torchrun says it.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str] | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        grace_seconds: float | None = None,
    ) -> None:
        self.output_dir = output_dir
        self.config = dict(config or {})
        self.grace_seconds = grace_seconds
        self._witness: CallbackBase | None = None
        self._ended: CallbackBase | None = None
        """Of the training that has ended: a later evaluation is recorded with it."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the records where the training begins or goes on."""
        self._close(is_finished=True)  # of a training that an error ended, in a notebook
        members: dict[str, Any] = args.to_dict()  # type: ignore[no-untyped-call]
        self._witness = CallbackBase(
            {**members, **self.config},
            self.output_dir or _output_dir(args),
            total_steps=state.max_steps,
            step=state.global_step,
            grace_seconds=self.grace_seconds,
        )

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Record what the trainer logs."""
        witness = self._witness or self._ended
        if witness is not None and logs:
            witness.saw_metrics(state.global_step, logs)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Let the trainer save and stop if a signal came, and count the time of any save as such."""
        if self._witness is not None and self._witness.is_told_to_stop():
            control.should_save = control.should_training_stop = True
        return self.on_epoch_end(args, state, control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """See whether a checkpoint comes next: its time does not count as steps."""
        if self._witness is not None and control.should_save:
            self._witness.saving_begins()
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Vouch for the checkpoint that the trainer has just written."""
        if self._witness is None:
            return
        self._witness.wait_for_all()
        path = _written_last(Path(_output_dir(args)), f"checkpoint-{state.global_step}")
        self._witness.saw_checkpoint(path, state.global_step, state.log_history[-1] if state.log_history else None)
        self._witness.saving_ends()

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """An evaluation is under way."""
        if self._witness is not None:
            self._witness.evaluation_goes_on()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """An evaluation is over."""
        if self._witness is not None:
            self._witness.evaluation_ends()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the records, and leave if the training has stopped since it was told to."""
        self._close(is_finished=state.global_step >= state.max_steps)

    def _close(self, *, is_finished: bool) -> None:
        witness, self._witness = self._witness, None
        if witness is not None:
            self._ended = witness
            witness.close(is_finished=is_finished)


def _written_last(output_dir: Path, name: str) -> Path:
    """Return where the trainer has just saved: a hyperparameter search gives each trial a folder of its own."""
    found = [path for path in (output_dir / name, *output_dir.glob(f"*/{name}")) if path.is_dir()]
    return max(found, key=lambda path: path.stat().st_mtime, default=output_dir / name)


def _output_dir(args: TrainingArguments) -> str:
    assert args.output_dir is not None  # set in its own __post_init__
    return args.output_dir
