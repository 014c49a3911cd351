"""Hugging Face's Trainer, and TRL's, which are built on it: records, verified checkpoints, a clean stop on a signal.

    trainer = Trainer(..., callbacks=[TrainhooksCallback()])
    trainer.train(resume_from_checkpoint=newest_good_checkpoint(args.output_dir))

A signal (SIGTERM, SIGUSR1, SIGINT) lets the step end and the Trainer save; the process then leaves with exit code 75.
What is resumed, and how exactly, is up to the Trainer: its checkpoints are read here, never changed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainhooks.integrations.callback_base import CallbackBase, check_options
from trainhooks.storage import location, rehearsal

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise ImportError(
        f"This callback is for Hugging Face's Trainer ({error}). Hint: pip install transformers"
    ) from error


class TrainhooksCallback(TrainerCallback):
    """Records to `output_dir/progress`, and issues receipts for the checkpoints in `output_dir`.

    Args:
        output_dir: the arguments' `output_dir` by default; `newest_good_checkpoint` searches it.
        config: stored beside the arguments of the training.
        grace_seconds: time from a signal to the kill, if neither Slurm nor torchrun sets it.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str] | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        grace_seconds: float | None = None,
    ) -> None:
        self.output_dir = None if output_dir is None else location.path("output_dir", output_dir)
        self.config = check_options(config, grace_seconds)
        self.grace_seconds = grace_seconds
        self._run: CallbackBase | None = None
        self._ended: CallbackBase | None = None
        """The training that has ended: a later evaluation is recorded with it."""

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """In a rehearsal, let the trainer write to the scratch folder in place of its output directory."""
        plan = rehearsal.current()
        if plan is not None:
            self.output_dir = rehearsal.place(plan, self.output_dir or _output_dir(args))
            args.output_dir = str(self.output_dir)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the records where the training begins or resumes."""
        self._close(is_finished=True)  # of a training that an error ended, in a notebook
        self.on_init_end(args, state, control)  # a callback that was added later has not seen it
        members: dict[str, Any] = args.to_dict()  # type: ignore[no-untyped-call]
        self._run = CallbackBase(
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
        run = self._run or self._ended
        if run is not None and logs:
            run.saw_metrics(state.global_step, logs)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Let the trainer save and stop if a signal came, and count the time of a save as checkpointing."""
        if self._run is not None and self._run.must_stop():
            control.should_save = control.should_training_stop = True
        if self._run is not None and self._run.is_rehearsal:
            control.should_log = True  # each step is compared
            control.should_save = self._run.rehearses(state.global_step) or control.should_save
        return self.on_epoch_end(args, state, control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """If a checkpoint comes next, stop counting its time as steps."""
        if self._run is not None and control.should_save:
            self._run.saving_begins()
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Issue a receipt for the checkpoint that the trainer has just written."""
        if self._run is None:
            return
        self._run.wait_for_all()
        path = _written_last(Path(_output_dir(args)), f"checkpoint-{state.global_step}")
        self._run.saw_checkpoint(path, state.global_step, state.log_history[-1] if state.log_history else None)
        self._run.saving_ends()

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """An evaluation runs."""
        if self._run is not None:
            self._run.evaluation_runs()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """An evaluation ended."""
        if self._run is not None:
            self._run.evaluation_ends()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the records, and exit if a signal stopped the training."""
        self._close(is_finished=state.global_step >= state.max_steps)

    def _close(self, *, is_finished: bool) -> None:
        run, self._run = self._run, None
        if run is not None:
            self._ended = run
            run.close(is_finished=is_finished)


def _written_last(output_dir: Path, name: str) -> Path:
    """Return where the trainer has just saved: a hyperparameter search gives each trial a folder of its own."""
    found = [path for path in (output_dir / name, *output_dir.glob(f"*/{name}")) if path.is_dir()]
    return max(found, key=lambda path: path.stat().st_mtime, default=output_dir / name)


def _output_dir(args: TrainingArguments) -> str:
    assert args.output_dir is not None  # set in its own __post_init__
    return args.output_dir
