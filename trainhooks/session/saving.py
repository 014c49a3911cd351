"""Checkpoints of a training as its loop goes: when one is taken, also on demand, and what each one covers."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainhooks.core import argument
from trainhooks.core import seed as seeds
from trainhooks.core.certificate import BEGUN
from trainhooks.core.ranks import Alone, Ranks
from trainhooks.core.timing import Phase
from trainhooks.errors import CheckpointFailed, ConfigInvalid
from trainhooks.host.unwinding import Left
from trainhooks.session import left_step
from trainhooks.session.checkpointer import Checkpointer
from trainhooks.session.evidence import Evidence
from trainhooks.session.feed import Feed
from trainhooks.session.handed import Handed
from trainhooks.session.late import closed
from trainhooks.session.rehearsing import Rehearsing
from trainhooks.session.resumption import Resumption
from trainhooks.session.tracker import ProgressTracker
from trainhooks.storage import catalog, rehearsal
from trainhooks.storage.checkpoints import Checkpoint

log = logging.getLogger("trainhooks")

FINISHED = "finished"
"""Tag of the checkpoint of a training that is done before its last step."""


@dataclass(frozen=True, slots=True)
class Demand:
    """A checkpoint that is to be taken whatever the policy says."""

    tags: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)

    def joined(self, other: Demand) -> Demand:
        """Return one that does for both."""
        return Demand((*self.tags, *other.tags), {**self.metrics, **other.metrics})


class SavingTracker(ProgressTracker):
    """A tracker that has its training's state and data, and saves both between two steps."""

    def __init__(
        self,
        config: Any,
        output_dir: str | os.PathLike[str],
        total_steps: int,
        *,
        database: str | os.PathLike[str] | bool = True,
    ) -> None:
        plan = rehearsal.current()
        place = rehearsal.place(plan, output_dir)
        super().__init__(config, place, total_steps, database=database if plan is None else False)
        self._rehearsing = None if plan is None else Rehearsing(plan)
        self._feed = Feed(seeds.derive("session", self.config.get("seed", 0)))
        self._ranks: Ranks = Alone()
        self._evidence = Evidence(self._feed)
        self._evidence.is_thorough = plan is not None
        self._resumption: Resumption | None = None
        """What is to be compared with the checkpoint, until the first steps have been."""
        self._keeper: Checkpointer | None = None
        self._saved_step: int | None = None
        """Steps that the checkpoint covers which was resumed from or saved last on demand."""
        self._is_in_step = False
        """Whether the loop's body is running."""
        self._is_unfinished = False
        """Whether a step has begun and not ended: the loop is in it, or was left in it."""
        self._handed = Handed(0, None)
        """What the loop got for the running step."""
        self._left = Left.UNKNOWN
        """How the loop was left in the unfinished step."""
        self._loops = 0
        """Loops over `steps()` so far."""
        self._sees_pairs = False
        """Whether the running loop has taken apart what it got in earlier steps."""
        self._broken_off: Any = None
        """The batch of the step that an error broke off last."""
        self._demand: Demand | None = None
        """The checkpoint that the running step has asked for."""
        self._is_leaving = False
        """Whether the loop ends at the next safe point."""
        self._finished: str | None = None
        """Why the training is done before its last step."""
        self._unsaved: CheckpointFailed | None = None
        """The checkpoint of the training's end that could not be written."""

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
        if self._keeper is None and self._sink.late is not None:
            raise closed()
        if self._keeper is None:
            raise ConfigInvalid("There is nothing to save.", hint="Give state={'model': model, ...} when opening.")
        demand = Demand(
            argument.texts("save_checkpoint(tags=)", tags), argument.numbers("save_checkpoint(metrics=)", metrics)
        )
        if self._is_in_step:
            self._demand = demand if self._demand is None else self._demand.joined(demand)
            return None
        self._settle()
        if self._demand is not None:
            demand = self._take_demand().joined(demand)
        return self._save(self._keeper, demand)

    def stop(self) -> None:
        """Save when the running step ends, and end `steps()` there: the way to leave a loop and resume it later."""
        self._is_leaving = True
        if self._keeper is not None and self._is_unfinished:
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
            self._finished, self._progress.is_finished = None, False
            return
        self._finished = reason if isinstance(reason, str) and reason else "finish() was called"
        self._progress.is_finished = True
        self._is_leaving = True
        if self._keeper is not None:
            self.save_checkpoint(tags=(FINISHED,))

    def _save(self, keeper: Checkpointer, demand: Demand) -> Checkpoint | None:
        self._sink.begin()
        self._add_arrived(waits=True)
        self.flush()
        with self._clock.counting(Phase.CHECKPOINT):
            checkpoint = keeper.save(
                self.current_step, self._where(), {**self._latest(), **demand.metrics}, demand.tags
            )
        self._evidence.saved()
        self._saved_step = self.current_step
        self._unsaved = None
        return checkpoint

    def _save_or_tell(self, demand: Demand) -> None:
        """Save where the training ends or is left, which nothing holds up."""
        if self._keeper is None or self.current_step in (0, self._saved_step):
            return
        try:
            self._save(self._keeper, demand)
        except CheckpointFailed as error:
            log.error("%s", error)
            self._unsaved = error

    def _leave_step(self, left: Left) -> None:
        """The loop was left in a step: one that has asked for a checkpoint is saved now, unless an error broke it off.

        Half a step is none, and will be done again.
        """
        self._is_in_step = False
        self._left = left
        if self._demand is None or left is Left.UNKNOWN:
            return
        demand = self._take_demand()
        if left is Left.BY_ERROR:
            self._tell_dropped()
            return
        self._finish_step()
        self._save_or_tell(demand)

    def _serve_at_the_end(self, *, is_whole: bool) -> None:
        """The session ends. What a step asked for is taken now where the loop read `steps()` with `next()`.

        Nothing shows how that loop was left: `is_whole` says that no error ends the session.
        """
        if self._demand is None:
            return
        demand = self._take_demand()
        if not is_whole:
            self._tell_dropped()
            return
        self._settle()
        self._save_or_tell(demand)

    def _settle(self) -> None:
        """Decide what becomes of the step that a loop was left in: it counts, or its batch is given again.

        Raises:
            ConfigInvalid: an error has broken it off twice.
        """
        if not self._is_unfinished:
            return
        has_stepped = self._keeper is not None and self._keeper.state.has_stepped
        is_untouched = self._loop.attached is not None and not has_stepped
        is_dropped = not self._handed.is_seen and (self._sees_pairs or is_untouched)
        if self._left is Left.BY_ERROR and not has_stepped and self._is_broken_again():
            raise ConfigInvalid(
                f"An error broke off step {self.current_step} twice with the same batch: it would end every loop.",
                hint="Fix what fails. To leave the batch out, catch the error within the loop's body: the step counts.",
                code="step_fails",
            )
        left = Left.BY_ITSELF if self._keeper is None else self._left
        if left_step.counts(
            self.current_step, left, is_dropped=is_dropped, is_untouched=is_untouched, has_stepped=has_stepped
        ):
            self._finish_step()
            return
        if self._left is Left.BY_ERROR:
            self._broken_off = self._handed.batch
        self._feed.take_back(self._handed.batch)
        self._is_in_step = self._is_unfinished = False
        self._left = Left.UNKNOWN
        self._loop.attached = None

    def _is_broken_again(self) -> bool:
        return self._broken_off is not None and self._broken_off is self._handed.batch

    def _close_at_exit(self) -> None:
        self._serve_at_the_end(is_whole=not hasattr(sys, "last_value"))  # set by an error that nobody caught
        super()._close_at_exit()

    def _tell_dropped(self) -> None:
        log.warning(
            "step %d asked for a checkpoint and an error broke it off: none is taken, since it would hold half a step",
            self.current_step,
        )

    def _take_demand(self) -> Demand:
        demand, self._demand = self._demand or Demand(), None
        return demand

    def _has_unsaved(self) -> bool:
        """Whether the loop was left in a step; one that a wrapper such as zip began and never gave to it is none."""
        if self._keeper is None or not self._is_unfinished:
            return False
        is_untouched = self._loop.attached is not None and not self._keeper.state.has_stepped
        return not (is_untouched and self._saved_step == self.current_step)

    def _tell_unsaved(self) -> None:
        newest = catalog.newest(self.output_dir)
        log.warning(
            "the loop was left in step %d, and what it did since %s is in no checkpoint: to keep it, call"
            " save_checkpoint() before the break",
            self.current_step,
            "the beginning" if newest is None else newest.name,
        )

    def _where(self) -> dict[str, Any]:
        finished = {} if self._finished is None else {"finished": self._finished}
        return {"step": self.current_step, **finished, **self._feed.state(), **self._expected()}

    def _expected(self) -> dict[str, Any]:
        """What a resume is compared with: the next batches, and where the random numbers are."""
        from trainhooks.pytorch import fingerprint

        rank = self._ranks.rank
        return {"rank": rank, "next": self._feed.next_batches(rank), "random": fingerprint.of_generators()}

    def _latest(self) -> dict[str, float]:
        return self._sink.latest()

    def _sync_records(self) -> None:
        """What a checkpoint follows from is on the medium before the checkpoint is."""
        self._sink.sync()

    def _note_published(self, checkpoint: Checkpoint) -> None:
        if self._sink.files is not None:
            self._sink.files.note_checkpoints()

    def _note_failure(self, step: int, failure: str) -> None:
        self._sink.event("checkpoint_failure", step=step, error=failure)

    def _begin_step(self, batch: Any) -> None:
        """The loop is about to get a batch."""
        self.attach(self._feed.made_of())
        if self._keeper is not None:
            self._keeper.state.begin_step()
            self._add_arrived()
            digests = self._evidence.begins(self.current_step, batch)
            self.attach(digests)
            if self._evidence.is_first:
                self._leave_first(digests)
        self._is_in_step = self._is_unfinished = True
        self._handed = Handed(self.current_step, batch)

    def _leave_first(self, digests: dict[str, Any]) -> None:
        """The first step after a save or a resume begins: compare it, and leave on the disk that it began."""
        if self._resumption is not None:
            found = self._resumption.look_at_first(self._feed.origin)
            if self._sink.files is not None:
                self._sink.files.check(found)
                self._sink.files.check_begun(self.current_step, digests, is_all=not self._resumption.expects_streams)
        if self.current_step > 0:
            self._sink.announce(BEGUN, step=self.current_step, **digests)
            self._sink.urge()

    def _end_first(self) -> None:
        """The first step after a save or a resume is done: what it came to goes to the medium at once."""
        resumption, self._resumption = self._resumption, None
        if resumption is not None and resumption.expects_streams:
            found = resumption.look_at_streams()
            if self._sink.files is not None:
                self._sink.files.check(found, is_last=True)
        self._sink.urge()

    def _add_arrived(self, *, waits: bool = False) -> None:
        """Put what has come from a device behind the step that it is of."""
        arrived = self._evidence.arrived(waits=waits)
        if arrived is not None:
            self._sink.add(*arrived)
            self._sink.urge()

    def _finish_step(self) -> None:
        """The loop is done with it."""
        self._is_in_step = self._is_unfinished = False
        self._left, self._broken_off = Left.UNKNOWN, None
        self._sees_pairs = self._sees_pairs or self._handed.is_seen
        if asked := self._feed.asked_for():
            self.attach(asked)
        is_first = False
        if self._keeper is not None:
            is_first = self._evidence.is_first
            self.attach(self._evidence.ends(self.current_step, self._keeper.state))
        self.current_step += 1
        self._add_attached()
        self._end_step()
        if is_first:
            self._end_first()

    def _add_attached(self) -> None:
        """Give what was attached and went with no row a row of its own."""
        if (attached := self._loop.take_attached()) is not None:
            self._sink.add(*attached)

    def _end_step(self) -> None:
        """Note that `current_step` steps are finished, where no row says so."""
        step = self.current_step - 1
        self._clock.at_step(step)
        self._sink.put((step, time.time(), self._clock.working(), None))

    def _safe_point(self) -> None:
        """Between two steps, the only place where the state is whole."""
        keeper = self._keeper
        if keeper is None:
            return
        if self._rehearsing is not None:
            self._rehearse(self._rehearsing, keeper)
        if self._demand is not None:
            self._save(keeper, self._take_demand())
        elif self.current_step >= self.total_steps:
            self._save_or_tell(Demand())
        elif keeper.is_due(self.current_step, self._clock.working()):
            with self._clock.counting(Phase.CHECKPOINT):
                self._sink.send()
                keeper.begin(self.current_step, self._where(), self._latest() if keeper.policy.keep_best else {})
                self._evidence.saved()

    def _rehearse(self, rehearsing: Rehearsing, keeper: Checkpointer) -> None:
        """Save where the rehearsal is to resume, in the way that the policy says; end where it ends."""

        def settle() -> None:
            keeper.wait()
            self._sync_records()

        if rehearsing.is_save_due(self.current_step):
            keeper.wait()
            keeper.begin(self.current_step, self._where(), {})
            self._evidence.saved()
        rehearsing.follow(self.current_step, self._ranks, settle=settle)
