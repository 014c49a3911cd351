"""Checkpoints of a training as its loop goes: when one is taken, also on request, and what each one covers.

The safe point, between two steps, is the only place where the state is whole.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trainhooks.core.timing import Phase
from trainhooks.errors import CheckpointFailed
from trainhooks.host.unwinding import Left
from trainhooks.storage import catalog

if TYPE_CHECKING:
    from trainhooks.core.ranks import Ranks
    from trainhooks.session.checkpointer import Checkpointer
    from trainhooks.session.feed import Feed
    from trainhooks.session.records import Records
    from trainhooks.session.rehearsing import Rehearsing
    from trainhooks.session.resume_check import ResumeCheck
    from trainhooks.session.resumption import Resumption
    from trainhooks.session.running_step import RunningStep
    from trainhooks.session.teacher_samples import TeacherSamples
    from trainhooks.storage.checkpoints import Checkpoint

log = logging.getLogger("trainhooks")


@dataclass(frozen=True, slots=True)
class CheckpointRequest:
    """A checkpoint that is to be taken whatever the policy says."""

    tags: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)

    def joined(self, other: CheckpointRequest) -> CheckpointRequest:
        """Return one that does for both."""
        return CheckpointRequest((*self.tags, *other.tags), {**self.metrics, **other.metrics})


class Saving:
    """Saves the state and the data position of a session, from its opening with `state` to its end."""

    def __init__(
        self,
        checkpointer: Checkpointer,
        *,
        records: Records,
        feed: Feed,
        ranks: Ranks,
        step: RunningStep,
        check: ResumeCheck,
        samples: TeacherSamples,
        rehearsing: Rehearsing | None,
    ) -> None:
        self.checkpointer = checkpointer
        self.samples = samples
        self.saved_step: int | None = None
        """Finished steps in the checkpoint that was resumed from or last saved on request."""
        self.failure: CheckpointFailed | None = None
        """Why the checkpoint of the training's end could not be written."""
        self._records = records
        self._loop = records.loop
        self._feed = feed
        self._ranks = ranks
        self._step = step
        self._check = check
        self._rehearsing = rehearsing
        self._request: CheckpointRequest | None = None
        """Made by the running step."""

    def resumed(self, step: int, resumption: Resumption) -> None:
        """The checkpoint with `step` finished steps has been restored; `resumption` is what to compare with it."""
        self.saved_step = step
        self._check.resumption = resumption

    def request(self, request: CheckpointRequest) -> Checkpoint | None:
        """Save now, or when the running step ends: see `TrainingProgressContext.save_checkpoint`."""
        if self._step.is_running:
            self._request = request if self._request is None else self._request.joined(request)
            return None
        self._step.settle()
        if self._request is not None:
            request = self._take_request().joined(request)
        return self._save(request)

    def save_or_log(self, request: CheckpointRequest) -> None:
        """Save where the training ends or is left. A failure is logged and kept: it must not stop the ending."""
        if self._loop.finished in (0, self.saved_step):
            return
        try:
            self._save(request)
        except CheckpointFailed as error:
            log.error("%s", error)
            self.failure = error

    def at_safe_point(self) -> None:
        """Take the checkpoint that is due between two steps."""
        step = self._loop.finished
        if self._rehearsing is not None:
            self._rehearse(self._rehearsing)
        if self._request is not None:
            self._save(self._take_request())
        elif step >= self._records.total_steps:
            self.save_or_log(CheckpointRequest())
        elif self.checkpointer.is_due(step, self._records.clock.working()):
            with self._records.clock.counting(Phase.CHECKPOINT):
                self._records.sink.send()
                metrics = self._records.sink.latest() if self.checkpointer.policy.keep_best else {}
                self._begin(metrics)

    def step_left(self, left: Left) -> None:
        """The loop was left in a step. If the step asked for a checkpoint, it is taken now, except after an error.

        A step that is not saved is done again on a resume.
        """
        self._step.leave(left)
        if self._request is None or left is Left.UNKNOWN:
            return
        request = self._take_request()
        if left is Left.BY_ERROR:
            self._warn_of_dropped_request()
            return
        self._step.finish()
        self.save_or_log(request)

    def session_ends(self, *, is_whole: bool) -> None:
        """Take the checkpoint that a step asked for, if the loop read `steps()` with `next()`.

        Nothing shows how that loop was left: `is_whole` says that no error ends the session.
        """
        if self._request is None:
            return
        request = self._take_request()
        if not is_whole:
            self._warn_of_dropped_request()
            return
        self._step.settle()
        self.save_or_log(request)

    @property
    def has_unsaved_step(self) -> bool:
        """Whether the loop was left in a step; one that a wrapper such as zip began and dropped does not count."""
        if not self._step.is_unfinished:
            return False
        return not (self._step.is_untouched and self.saved_step == self._loop.finished)

    def warn_of_unsaved_step(self) -> None:
        """Log that the loop was left within a step, and how to keep it."""
        newest = catalog.newest(self._records.output_dir)
        log.warning(
            "the loop was left in step %d, and what it did since %s is in no checkpoint: to keep it, call"
            " save_checkpoint() before the break",
            self._loop.finished,
            "the beginning" if newest is None else newest.name,
        )

    def _save(self, request: CheckpointRequest) -> Checkpoint | None:
        records = self._records
        records.sink.begin()
        self._check.add_arrived(waits=True)
        records.sink.flush()
        with records.clock.counting(Phase.CHECKPOINT):
            checkpoint = self.checkpointer.save(
                self._loop.finished, self._progress(), {**records.sink.latest(), **request.metrics}, request.tags
            )
        self._check.saved()
        self.saved_step = self._loop.finished
        self.failure = None
        return checkpoint

    def _begin(self, metrics: Mapping[str, float]) -> None:
        self.checkpointer.begin(self._loop.finished, self._progress(), metrics)
        self._check.saved()

    def _take_request(self) -> CheckpointRequest:
        request, self._request = self._request or CheckpointRequest(), None
        return request

    def _warn_of_dropped_request(self) -> None:
        log.warning(
            "step %d asked for a checkpoint and an error broke it off: none is taken, since it would hold half a step",
            self._loop.finished,
        )

    def _progress(self) -> dict[str, Any]:
        """Return what a checkpoint holds beside the state: position, and what a resume is compared with."""
        from trainhooks.pytorch import fingerprint

        rank = self._ranks.rank
        return {
            "step": self._loop.finished,
            **({} if self._loop.finish_reason is None else {"finished": self._loop.finish_reason}),
            **self._feed.state(),
            **self.samples.members(),
            "rank": rank,
            "next": self._feed.next_batches(rank),
            "random": fingerprint.of_generators(),
        }

    def _rehearse(self, rehearsing: Rehearsing) -> None:
        """Save where the rehearsal is to resume, in the way that the policy says; end where it ends."""

        def settle() -> None:
            self.checkpointer.wait()
            self._records.sink.sync()

        step = self._loop.finished
        if rehearsing.is_save_due(step):
            self.checkpointer.wait()
            self._begin({})
        rehearsing.follow(step, self._ranks, settle=settle)
