"""One training job as its loop sees it: steps with their batches, records, checkpoints, and where it resumes."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from trainhooks.core import argument
from trainhooks.core import seed as seeds
from trainhooks.core.policy import CheckpointPolicy
from trainhooks.errors import ConfigInvalid
from trainhooks.host.extra import require
from trainhooks.host.launch import launched
from trainhooks.host.unwinding import how_left
from trainhooks.session.checking import check_options, check_source, policy_of
from trainhooks.session.drift_check import DriftCheck
from trainhooks.session.feed import Feed
from trainhooks.session.late import closed
from trainhooks.session.notice import say
from trainhooks.session.records import Records
from trainhooks.session.running_step import RunningStep
from trainhooks.session.saving import CheckpointRequest, Saving
from trainhooks.session.starting import connect, drift_check_of, resume, saving_of
from trainhooks.session.step_iterator import StepIterator
from trainhooks.session.stopping import Stopping
from trainhooks.session.tracker import ProgressTracker
from trainhooks.storage import rehearsal
from trainhooks.storage.checkpoints import Checkpoint

if TYPE_CHECKING:
    from trainhooks.pytorch.data.evaluation import EvaluationLoader
    from trainhooks.pytorch.data.source import Loader

log = logging.getLogger("trainhooks")

UNSAVED = "closed without its last checkpoint"
"""How an attempt ended whose training is done and could not be saved."""
FINISHED = "finished"
"""Tag of the checkpoint of a training that is done before its last step."""
PREEMPTED = "preempted"
"""Tag of a checkpoint that was taken because a signal came."""


class TrainingProgressContext(ProgressTracker):
    """A training job that resumes where it stopped; a `ProgressTracker` too. Made by `training_progress_context`.

    Args:
        state: the live objects by name: model, optimizer, scheduler, scaler. With it checkpoints are taken and an
            earlier attempt is resumed; without it the session only records.
        checkpoints: when they are taken, which ones stay, how they are written.
        checkpoint_every_steps: take one whenever so many steps are finished, and let the training stand still until it
            is durable: short for `checkpoints=CheckpointPolicy(every_steps=..., asynchronous=False, ...)`.
        grace_seconds: from a signal (SIGTERM, SIGUSR1, SIGINT) to the kill, where neither Slurm nor torchrun says it.
            With `state` a signal is served when a step ends: the training is saved and left with exit code 75.
        drift: how to treat differences from the attempt that is resumed: name or pattern to `block`, `warn` or
            `allow`, before the defaults of `core/drift.py`.
        restore: whose hyperparameters hold where an optimizer or scheduler is built with others than before:
            `checkpoint` (the saved ones) or `state-only` (the new ones, with the saved moments and counters), for all
            or by name. Without a word a difference is refused.
        tokenizer: one that must not change: see `core/tokenizer.py`.
        database: see `ProgressTracker`.
    """

    def __init__(
        self,
        config: Any,
        output_dir: str | os.PathLike[str],
        total_steps: int,
        *,
        state: Mapping[str, Any] | None = None,
        checkpoints: CheckpointPolicy | None = None,
        checkpoint_every_steps: int | None = None,
        grace_seconds: float | None = None,
        drift: Mapping[str, str] | None = None,
        restore: str | Mapping[str, str] | None = None,
        tokenizer: Any = None,
        database: str | os.PathLike[str] | bool = True,
    ) -> None:
        # It is a ProgressTracker by its interface alone: what it does is in the parts that are made here.
        check_options(state, checkpoints, drift, restore, grace_seconds)
        if state is None:
            rehearsal.refuse("A loop without state=")
        policy = policy_of(state, checkpoints, checkpoint_every_steps)
        plan = rehearsal.current()
        self._records = Records(
            config,
            rehearsal.place(plan, output_dir),
            total_steps,
            database=database if plan is None else False,
            at_exit=self._close_at_exit,
        )
        self._pid = os.getpid()
        self._feed = Feed(seeds.derive("session", self.config.get("seed", 0)))
        self._step = RunningStep(self._records, self._feed)
        self._stopping: Stopping | None = None
        self._saving: Saving | None = None
        """Of a session with `state`, until it is closed."""
        self._drift_check: DriftCheck | None = None
        try:
            self._drift_check = drift_check_of(self._records, drift or {}, tokenizer)
            if state is not None:
                ranks = self._feed.ranks = connect(self._records, policy)
                self._stopping = Stopping(ranks, grace_seconds=grace_seconds)
                self._saving = saving_of(
                    state,
                    policy,
                    restore,
                    records=self._records,
                    feed=self._feed,
                    ranks=ranks,
                    step=self._step,
                    plan=plan,
                    drift_check=self._drift_check,
                )
                self._records.sink.on_begin = self._saving.checkpointer.begin_to_write
                resume(self._saving, self._drift_check, records=self._records, feed=self._feed, ranks=ranks)
                self._records.sink.watch_first_row(self._warn_without_steps)
        except BaseException:
            self._close("not started")
            raise

    def _warn_without_steps(self) -> None:
        """Before the first row: warn if `steps()` does not drive the loop, which then lacks what it does."""
        if not self._records.loop.counts_rows:
            return
        rehearsal.refuse("A loop that steps() does not drive")
        if self._stopping is not None:
            self._stopping.give_up()
        log.warning(
            "steps() does not drive this loop: it does not end by itself at total_steps, a signal ends it at once,"
            " and checkpoints are taken by save_checkpoint() alone. Iterate progress.steps()."
        )

    # -- checkpoints and the end ------------------------------------------------------------------------------

    def save_checkpoint(
        self, *, tags: str | Sequence[str] = (), metrics: Mapping[str, float] | None = None
    ) -> Checkpoint | None:
        """Save everything and return once it is durable; within a step of `steps()`, do so when that step ends.

        Returns:
            The checkpoint; None within a step, and on ranks other than 0.

        Args:
            tags: to find it by; what is tagged `pinned` is never deleted.
            metrics: beside the last recorded ones, such as the figures of an evaluation; for `keep_best`.

        Raises:
            CheckpointFailed: it could not be written. The earlier ones are whole.
        """
        if self._saving is None and self._records.sink.late is not None:
            raise closed()
        if self._saving is None:
            raise ConfigInvalid("There is nothing to save.", hint="Give state={'model': model, ...} when opening.")
        return self._saving.request(
            CheckpointRequest(
                argument.texts("save_checkpoint(tags=)", tags), argument.numbers("save_checkpoint(metrics=)", metrics)
            )
        )

    def stop(self) -> None:
        """Save when the running step ends, and end `steps()` there: the way to leave a loop and resume it later."""
        self._records.loop.is_leaving = True
        if self._saving is not None and self._step.is_unfinished:
            self.save_checkpoint()

    def finish(self, reason: str | bool = True) -> None:
        """Say that the training is done, as early stopping does: its checkpoint says so, and `steps()` ends.

        The next start trains no further and shows 100 %. With several ranks all of them call it in the same step.

        Args:
            reason: stands in the checkpoint and in the log; False: the training continues after all.

        Raises:
            CheckpointFailed: outside a step, the checkpoint could not be written.
        """
        if not isinstance(reason, bool | str):
            raise argument.wrong("finish(reason)", reason, "a text, True or False")
        if reason is False:
            self._records.set_finish_reason(None)
            return
        self._records.set_finish_reason(reason if isinstance(reason, str) and reason else "finish() was called")
        self._records.loop.is_leaving = True
        if self._saving is not None:
            self.save_checkpoint(tags=(FINISHED,))

    @property
    def should_stop(self) -> bool:
        """Whether a signal asks this training to stop: ask between the batches of an evaluation, and break.

        With several ranks the answer is the same on all of them, and all have to ask equally often.
        """
        return self._stopping is not None and self._stopping.poll() != 0

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Count the time of this block as evaluation, and give the training its random numbers back afterwards.

        So an evaluation may be cut short, or left out, without changing what the training comes to.
        """
        with super().evaluating():
            before_evaluating, self._feed.is_evaluating = self._feed.is_evaluating, True
            try:
                if self._saving is None:
                    yield
                    return
                from trainhooks.pytorch import rng

                before = rng.capture()
                try:
                    yield
                finally:
                    rng.restore(before)
            finally:
                self._feed.is_evaluating = before_evaluating

    def loader(
        self,
        source: Any,
        *,
        evaluates: bool = False,
        name: str | None = None,
        replaces: bool = False,
        **options: Any,
    ) -> Loader | EvaluationLoader:
        """Make a loader that resumes at the session's position.

        Args:
            source: a data set (map-style or iterable), a `DataLoader`, or a loader with `state_dict` and
                `load_state_dict`; what becomes of each, and the options: see docs/training.md.
            evaluates: it is for an evaluation: each `iter()` begins at the first sample, unshuffled by default, and
                only the number of the pass is saved. Within `evaluating()` every loader is.
            name: of a further stream of training data, with a position of its own; or of an evaluation.
            replaces: the data takes the place of what the training read so far, and begins at its first sample;
                a resume in the middle of it continues there.

        Raises:
            ConfigInvalid: the source or an option cannot be used, or a second source comes and nothing says what for.
            PositionInvalid: the data is not that of the checkpoint.
        """
        evaluates = evaluates or self._feed.is_evaluating
        if evaluates and replaces:
            raise ConfigInvalid("evaluates= and replaces= cannot both be given.", hint="An evaluation has no position.")
        if name is not None and (not isinstance(name, str) or not name):
            raise argument.wrong("loader(name=)", name, "a text")
        require("loader()", "torch")
        from trainhooks.pytorch.data.options import check

        check_source(source)
        check(options)
        if not self._step.is_running:
            self._settle()  # a loader that is made anew begins where the loop was left
        opening = self._feed.describe(
            source, evaluates=evaluates, name=name, replaces=replaces, num_workers=options.get("num_workers", 0)
        )
        if self._drift_check is not None and self._records.sink.files is not None:
            self._drift_check.add(opening.facts)
            self._records.sink.files.write_session()
        launch = launched()
        return self._feed.open(opening, **{"rank": launch.rank, "world": launch.world, **options})

    def steps(self, loader: Loader | None = None) -> Iterator[tuple[int, Any]]:
        """Return an iterator of (step, batch), epoch after epoch, until `total_steps` are done.

        Args:
            loader: whose batches they are, where the training has several streams of data.

        When the loop comes back for the next batch, its step is finished: that is the safe point. After the last of
        them a checkpoint is taken. A loop that is left early (`break`) has one taken by `save_checkpoint()`, before it
        leaves or after: the step that it leaves then counts as finished. A step that an error breaks off does not
        count, and its batch is given again. Of a loop by `next()` it cannot be seen how it ended: see docs/training.md.

        Raises:
            CheckpointFailed: the one that the step asked for could not be written.
        """
        return StepIterator(lambda: self._steps_of(loader))

    def _steps_of(self, loader: Loader | None) -> Generator[tuple[int, Any]]:
        loop = self._records.loop
        if self._records.sink.late is not None:
            raise closed()
        self._settle()
        self._feed.drive_by(loader)
        if loop.counts_rows:  # what was recorded before, such as a first evaluation, was no step of this loop
            loop.counts_rows = False
            loop.finished = max(loop.first, 0 if self._saving is None else self._saving.saved_step or 0)
        with nullcontext() if self._stopping is None else self._stopping.serving():
            yield from self._steps()

    def _settle(self) -> None:
        """End the step that a loop was left in. A loop that is left in each step has its safe points here."""
        before = self.current_step
        self._step.settle()
        if self._saving is not None and self.current_step > before:
            self._saving.at_safe_point()

    def _steps(self) -> Generator[tuple[int, Any]]:
        loop, step = self._records.loop, self._step
        if self._say_if_complete():
            return
        mine = step.begin_loop()
        loop.is_leaving = False
        self._records.sink.begin()
        self._stop_if_signalled()
        if self._saving is not None:
            self._saving.samples.begin()
        if step.check is not None:
            step.check.state.restore_random_again()
            step.check.compare_restored()
        for batch in self._feed.batches():
            handed = step.begin(batch)
            try:
                yield handed
            except GeneratorExit:
                if self._saving is not None and step.loops == mine:  # else another loop runs: this one ended long ago
                    self._saving.step_left(how_left())
                raise
            step.finish()
            if self._saving is not None:
                self._saving.at_safe_point()
            self._stop_if_signalled()
            if loop.finished >= self.total_steps or loop.is_leaving:
                return

    def _say_if_complete(self) -> bool:
        """Say so where there is nothing left to train, as at the start of a training that is done."""
        reason = self._records.loop.finish_reason
        if reason is None and self.current_step < self.total_steps:
            return False
        why = "" if reason is None else f" ({reason}; progress.finish(False) continues it)"
        say(f"already complete: {self.current_step} of {self.total_steps} steps{why}")
        return True

    def _stop_if_signalled(self) -> None:
        """Serve a signal, between two steps: save what is not saved yet, and leave."""
        if self._stopping is None or not self._stopping.poll():
            return
        if self._saving is not None:
            self._saving.save_or_log(CheckpointRequest((PREEMPTED,)))
        self._stopping.leave()

    def _close_at_exit(self) -> None:
        if self._saving is not None:
            self._saving.session_ends(is_whole=not hasattr(sys, "last_value"))  # set by an error that nobody caught
        super()._close_at_exit()

    def _close(self, end: str) -> None:
        if os.getpid() != self._pid:
            return
        try:
            if self._saving is not None:
                self._saving.session_ends(is_whole=end == "closed" and sys.exc_info()[0] is None)
        finally:
            self._close_all(end)

    def _close_all(self, end: str) -> None:
        saving, self._saving = self._saving, None
        stopping, self._stopping = self._stopping, None
        has_unsaved_step = saving is not None and saving.has_unsaved_step
        self._step.drop()
        try:
            failure = None
            if saving is not None:
                saving.checkpointer.close()
                failure = saving.failure
                if end == "closed" and has_unsaved_step:
                    saving.warn_of_unsaved_step()
            super()._close(end if failure is None or end != "closed" else UNSAVED)
            if failure is not None and end == "closed":  # never over another error
                raise failure
        finally:
            self._feed.close()
            if stopping is not None:
                stopping.close(deliver=end == "closed")
