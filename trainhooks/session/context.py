"""One training job as its loop sees it: steps with their batches, records, checkpoints, and where it resumes."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from trainhooks.core import argument
from trainhooks.core import tokenizer as tokenizers
from trainhooks.core.drift import Change, flatten
from trainhooks.core.policy import CheckpointPolicy
from trainhooks.errors import ConfigInvalid
from trainhooks.host import provenance
from trainhooks.host.extra import require
from trainhooks.host.launch import launched
from trainhooks.host.unwinding import how_left
from trainhooks.session.checking import check_options, check_source, policy_of
from trainhooks.session.checkpointer import Checkpointer
from trainhooks.session.drift_check import DriftCheck
from trainhooks.session.late import closed
from trainhooks.session.notice import say
from trainhooks.session.resumption import Resumption
from trainhooks.session.saving import Demand, SavingTracker
from trainhooks.session.step_iterator import StepIterator
from trainhooks.session.stopping import Stopping
from trainhooks.storage import catalog, rehearsal
from trainhooks.storage.checkpoints import CHECKPOINTS, Checkpoint

if TYPE_CHECKING:
    from trainhooks.pytorch.data.evaluation import EvaluationLoader
    from trainhooks.pytorch.data.source import Loader

log = logging.getLogger("trainhooks")

UNSAVED = "closed without its last checkpoint"
"""How an attempt ended whose training is done and could not be saved."""
PREEMPTED = "preempted"
"""Tag of a checkpoint that was taken because a signal came."""


class TrainingProgressContext(SavingTracker):
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
        check_options(state, checkpoints, drift, restore, grace_seconds)
        if state is None:
            rehearsal.refuse("A loop without state=")
        policy = policy_of(state, checkpoints, checkpoint_every_steps)
        super().__init__(config, output_dir, total_steps, database=database)
        self._stopping: Stopping | None = None
        self._gate: DriftCheck | None = None
        try:
            if self._sink.files is not None:
                self._gate = self._open_gate(drift or {}, tokenizer)
            if state is not None:
                from trainhooks.pytorch.distributed import connect

                self._ranks = self._feed.ranks = connect(policy.patience_seconds)
                who = json.dumps([self.session_id, self.attempt]).encode()
                self.session_id, self.attempt = json.loads(self._ranks.share(who))
                self._stopping = Stopping(self._ranks, grace_seconds=grace_seconds)
                self._keeper = self._keep(state, policy, restore)
                self._sink.on_begin = self._keeper.begin_to_write
                if self._gate is not None:
                    self._gate.extend(self._keeper.restore_policies)
                    self._gate.add({"world": self._ranks.world, **self._keeper.facts()})
                self._go_on(self._keeper)
                self._sink.watch_first_row(self._warn_without_steps)
        except BaseException:
            self._close("not started")
            raise

    def _keep(
        self, state: Mapping[str, Any], policy: CheckpointPolicy, restore: str | Mapping[str, str] | None
    ) -> Checkpointer:
        return Checkpointer(
            self.output_dir,
            state,
            policy,
            session_id=self.session_id,
            attempt=self.attempt,
            restore=restore,
            ranks=self._ranks,
            before_publish=self._sync_records,
            on_published=self._note_published,
            on_failure=self._note_failure,
        )

    def _open_gate(self, given: Mapping[str, str], tokenizer: Any) -> DriftCheck:
        assert self._sink.files is not None
        gate = DriftCheck(given, self._sink.files.session.attempts, self._note_drift)
        gate.add({"total_steps": self.total_steps, **dict(flatten(self.config, "config"))})
        gate.add({**provenance.code(), **provenance.environment()})
        if tokenizer is not None:
            gate.add({"tokenizer": tokenizers.digest(tokenizer)})
        return gate

    def _check_drift(self, found: Checkpoint) -> None:
        if self._gate is not None:
            self._gate.go_on_from(found.manifest.attempt)

    def _warn_without_steps(self) -> None:
        """Say what a loop does without that records its first row and is not driven by `steps()`."""
        if not self._loop.counts_rows:
            return
        rehearsal.refuse("A loop that steps() does not drive")
        if self._stopping is not None:
            self._stopping.give_up()
        log.warning(
            "steps() does not drive this loop: it does not end by itself at total_steps, a signal ends it at once,"
            " and checkpoints are taken by save_checkpoint() alone. Iterate progress.steps()."
        )

    def _note_drift(self, change: Change) -> None:
        self._sink.announce(
            "drift", fact=change.name, before=change.before, after=change.after, policy=str(change.policy)
        )

    def _go_on(self, keeper: Checkpointer) -> None:
        """Go to where the newest whole checkpoint is."""
        progress = keeper.restore(self._check_drift)
        if progress is None:
            self._refuse_if_gone()
            if self._clock.reached_step:
                log.warning(
                    "earlier attempts did %d steps and there is no checkpoint in %s: the training begins anew",
                    self._clock.reached_step,
                    self.output_dir / CHECKPOINTS,
                )
            self.resume_at(0)
            return
        self._feed.resume(progress)
        self.resume_at(progress["step"])
        self._resumption = Resumption(progress, keeper, self._feed, self._ranks)
        self._saved_step = self.current_step
        self._finished = progress.get("finished")
        self._progress.is_finished = self._finished is not None

    def _refuse_if_gone(self) -> None:
        """A run that had checkpoints and has none does not begin anew by itself: weeks may be in them."""
        gone = catalog.listed(self.output_dir)
        if gone and self._gate is not None:
            newest = gone[-1]
            self._gate.refuse("checkpoints", f"{len(gone)}, the newest {newest.path}", "gone")

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
                if self._keeper is None:
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
        if not self._is_in_step:
            self._settle()  # a loader that is made anew begins where the loop was left
        opening = self._feed.describe(
            source, evaluates=evaluates, name=name, replaces=replaces, num_workers=options.get("num_workers", 0)
        )
        if self._gate is not None and self._sink.files is not None:
            self._gate.add(opening.facts)
            self._sink.files.write_session()
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
        if self._sink.late is not None:
            raise closed()
        self._settle()
        self._feed.drive_by(loader)
        if self._loop.counts_rows:  # what was recorded before, such as a first evaluation, was no step of this loop
            self._loop.counts_rows = False
            self.current_step = max(self._loop.first, self._saved_step or 0)
        with nullcontext() if self._stopping is None else self._stopping.serving():
            yield from self._steps()

    def _steps(self) -> Generator[tuple[int, Any]]:
        if self._say_if_complete():
            return
        self._loops += 1
        mine = self._loops
        self._is_leaving = self._sees_pairs = False
        self._sink.begin()
        self._stop_if_told()
        if self._keeper is not None:
            self._keeper.state.restore_random_again()
            if self._resumption is not None:
                self._resumption.look_at_restored()
        for batch in self._feed.batches():
            self._begin_step(batch)
            try:
                yield self._handed
            except GeneratorExit:
                if self._keeper is not None and self._loops == mine:  # else another loop runs: this one ended long ago
                    self._leave_step(how_left())
                raise
            self._finish_step()
            self._safe_point()
            self._stop_if_told()
            if self.current_step >= self.total_steps or self._is_leaving:
                return

    def _say_if_complete(self) -> bool:
        """Say so where there is nothing left to train, as at the start of a training that is done."""
        if self._finished is None and self.current_step < self.total_steps:
            return False
        why = "" if self._finished is None else f" ({self._finished}; progress.finish(False) continues it)"
        say(f"already complete: {self.current_step} of {self.total_steps} steps{why}")
        return True

    def _stop_if_told(self) -> None:
        """Serve a signal, between two steps: save what is not saved yet, and leave."""
        if self._stopping is None or not self._stopping.poll():
            return
        self._save_or_tell(Demand((PREEMPTED,)))
        self._stopping.leave()

    def _close(self, end: str) -> None:
        if os.getpid() != self._pid:
            return
        try:
            if self._keeper is not None:
                self._serve_at_the_end(is_whole=end == "closed" and sys.exc_info()[0] is None)
        finally:
            self._close_all(end)

    def _close_all(self, end: str) -> None:
        has_unsaved = self._has_unsaved()
        keeper, self._keeper = self._keeper, None
        stopping, self._stopping = self._stopping, None
        if self._is_unfinished:
            self._loop.attached = None  # of a step that never ended: it will be done again
        try:
            if keeper is not None:
                keeper.close()
                if end == "closed" and has_unsaved:
                    self._tell_unsaved()
            unsaved, self._unsaved = self._unsaved, None
            super()._close(end if unsaved is None or end != "closed" else UNSAVED)
            if unsaved is not None and end == "closed":  # never over another error
                raise unsaved
        finally:
            if stopping is not None:
                stopping.close(deliver=end == "closed")
