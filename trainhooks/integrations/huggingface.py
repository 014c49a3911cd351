"""Hugging Face's Trainer, and TRL's, which are built on it: records, verified checkpoints, a stop when told to.

    trainer = Trainer(..., callbacks=[TrainhooksCallback()])
    trainer.train(resume_from_checkpoint=newest_good_checkpoint(args.output_dir))

What is resumed, and how exactly, stays the Trainer's own matter: its checkpoints are read here, never changed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainhooks.integrations.witness import Witness

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
    """

    def __init__(self, output_dir: str | os.PathLike[str] | None = None, *, config: Mapping[str, Any] | None = None):
        self.output_dir = output_dir
        self.config = dict(config or {})
        self._witness: Witness | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the records where the training begins or goes on."""
        self._close()
        members: dict[str, Any] = args.to_dict()  # type: ignore[no-untyped-call]
        self._witness = Witness(
            {**members, **self.config},
            self.output_dir or _output_dir(args),
            total_steps=state.max_steps,
            step=state.global_step,
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
        if self._witness is not None and logs:
            self._witness.saw_metrics(state.global_step, logs)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """See whether a checkpoint comes next: its time does not count as steps."""
        if self._witness is not None and control.should_save:
            self._witness.saving_begins()

    on_epoch_end = on_step_end

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Vouch for the checkpoint that the trainer has just written."""
        if self._witness is None:
            return
        self._witness.wait_for_all()
        path = Path(_output_dir(args), f"checkpoint-{state.global_step}")
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
        """Close the records."""
        self._close()

    def _close(self) -> None:
        witness, self._witness = self._witness, None
        if witness is not None:
            witness.close()


def _output_dir(args: TrainingArguments) -> str:
    assert args.output_dir is not None  # set in its own __post_init__
    return args.output_dir
