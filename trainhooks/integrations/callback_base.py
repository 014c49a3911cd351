"""What every callback does: record metrics, issue receipts for the checkpoints of the trainer, and serve signals."""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from trainhooks.core import argument
from trainhooks.core.origin import Origin, origin_of_batch, together
from trainhooks.core.ranks import Ranks
from trainhooks.core.row import RESERVED
from trainhooks.pytorch.distributed import connect
from trainhooks.session import ProgressTracker
from trainhooks.session.rehearsing import Rehearsing
from trainhooks.session.stopping import Stopping
from trainhooks.storage import rehearsal
from trainhooks.storage.receipts import Receipts


def check_options(config: Any, grace_seconds: Any) -> dict[str, Any]:
    """Return a callback's configuration, checked where the callback is made.

    Raises:
        ConfigInvalid: an option of another kind.
    """
    if config is not None and not isinstance(config, Mapping):
        raise argument.wrong("config=", config, "a dict of settings by name")
    if grace_seconds is not None and not argument.is_number(grace_seconds, least=0):
        raise argument.wrong("grace_seconds=", grace_seconds, "a number of seconds from 0 on")
    return dict(config or {})


class CallbackBase:
    """Records one `fit` or `train` of a trainer that owns the loop. Created, polled and closed on every rank.

    Args:
        config: stored with the run.
        output_dir: receives `progress/`.
        total_steps: optimizer steps of the whole training.
        step: finished steps.
        grace_seconds: time from a signal to the kill, if neither Slurm nor torchrun sets it.

    Raises:
        SessionBusy: another process writes to this directory.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        output_dir: str | os.PathLike[str],
        *,
        total_steps: int,
        step: int,
        grace_seconds: float | None,
    ) -> None:
        self._ranks: Ranks = connect()
        plan = rehearsal.current()
        self._rehearsing = None if plan is None else Rehearsing(plan)
        self.tracker = ProgressTracker(config, output_dir, total_steps, database=plan is None)
        self.tracker.resume_at(step)
        self._receipts = Receipts(Path(output_dir))
        self._stopping = Stopping(self._ranks, grace_seconds=grace_seconds)
        self._evaluation, self._saving = ExitStack(), ExitStack()
        self._is_evaluating = False
        self._must_stop = False
        self._origins: list[Origin] = []
        self._sees_batches = False

    def saw_metrics(self, step: int, members: Mapping[str, Any]) -> None:
        """Record numbers when `step` optimizer steps are finished; anything but a number is left out."""
        numbers = {name: each for name, each in members.items() if name not in RESERVED and _is_number(each)}
        if numbers:
            if self._origins or not self._sees_batches:  # a trainer that shows no batches: unknown
                self.tracker.record_origin(together(self._origins))
                self._origins.clear()
            self.tracker.update_metrics(max(0, step - 1), **numbers)

    def saw_batch(self, batch: Any, *, epoch: int) -> None:
        """Note a batch's columns `id`, `key` and `ordinal` for the row of its step."""
        self._sees_batches = True
        self._origins.append(origin_of_batch(batch, epoch=epoch))

    def saw_checkpoint(self, path: str | os.PathLike[str], step: int, metrics: Mapping[str, Any] | None = None) -> None:
        """Register a complete checkpoint and issue a receipt, on rank 0 only.

        A thread writes the receipt. A checkpoint without one, such as after a kill, is not resumed from.
        """
        if self._ranks.rank == 0:
            self._receipts.issue(Path(path), step=step)
            numbers = {name: float(each) for name, each in (metrics or {}).items() if _is_number(each)}
            self.tracker.record_checkpoint(Path(path), step=step, metrics=numbers)

    def wait_for_all(self) -> None:
        """Return once every rank is here, and so has written its part of a checkpoint."""
        self._ranks.barrier()

    def evaluation_runs(self) -> None:
        """Count the time as evaluation, from the first call until `evaluation_ends`."""
        if not self._is_evaluating:
            self._is_evaluating = True
            self._evaluation.enter_context(self.tracker.evaluating())

    def evaluation_ends(self) -> None:
        """Count the time as steps again."""
        self._is_evaluating = False
        self._evaluation.close()

    def saving_begins(self) -> None:
        """Count the time from now on as saving."""
        self.saving_ends()
        self._saving.enter_context(self.tracker.checkpointing())

    def saving_ends(self) -> None:
        """Count the time as steps again."""
        self._saving.close()

    def rehearses(self, step: int) -> bool:
        """In a rehearsal, end the process where the plan says so; returns whether the trainer is to save now."""
        if self._rehearsing is None:
            return False
        self._rehearsing.follow(step, self._ranks, settle=self._settle)
        return self._rehearsing.is_save_due(step)

    def _settle(self) -> None:
        self._receipts.wait()
        self.tracker.flush()

    @property
    def is_rehearsal(self) -> bool:
        """Whether this is a part of `trainhooks rehearse`."""
        return self._rehearsing is not None

    def must_stop(self) -> bool:
        """Whether all ranks must save and stop now because a signal came. Call it after each step, on every rank."""
        self._must_stop = self._stopping.poll() != 0
        return self._must_stop

    def close(self, *, is_finished: bool) -> None:
        """Wait for receipts and write everything.

        Args:
            is_finished: whether the training is finished; one that a signal stopped is not.

        Raises:
            Preempted: SIGTERM or SIGUSR1 stopped the training; the exit code asks the scheduler to requeue it.
            KeyboardInterrupt: SIGINT stopped it.
        """
        self._evaluation.close()
        self._saving.close()
        try:
            self._receipts.close()
            self.tracker.close()
            if self._must_stop and not is_finished:
                self._stopping.leave()
        finally:
            self._stopping.close(deliver=is_finished)


def _is_number(each: Any) -> bool:
    """Whether it is a number; a tensor or numpy scalar counts, a bool does not."""
    return isinstance(each, int | float | np.number | Tensor) and not isinstance(each, bool)
