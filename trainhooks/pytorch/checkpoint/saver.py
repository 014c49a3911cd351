"""From live training state to published checkpoints, at the right moments, and back."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from trainhooks.core.cadence import Cadence
from trainhooks.core.policy import CheckpointPolicy
from trainhooks.core.ranks import Alone, Ranks
from trainhooks.errors import CheckpointFailed, CheckpointInvalid, RankLost
from trainhooks.pytorch.checkpoint.loading import load
from trainhooks.pytorch.checkpoint.share import Share
from trainhooks.pytorch.checkpoint.snapshot import Snapshotter
from trainhooks.pytorch.checkpoint.state import TrainingState
from trainhooks.pytorch.checkpoint.writing import Material, SaveRecord, Writing
from trainhooks.storage.checkpoints import Checkpoint, CheckpointStore
from trainhooks.storage.verification import read_manifest

log = logging.getLogger("trainhooks")

_DEMANDED_TRIES = 3
_RECORDS = 1_000
"""2 KB each."""
_VOTE_EVERY_STEPS = 16
"""With several ranks, whether time has made a save due is asked this often: each question is a collective."""


class Saver:
    """Saves one training. All methods are called from the training's thread, between steps.

    Args:
        before_publish: called before a checkpoint becomes visible, in the thread that writes.
        on_published: called in the training's thread with each checkpoint that has become durable.
        on_failure: called in the training's thread, at the first safe point after it, with a step and what went wrong.
    """

    def __init__(
        self,
        store: CheckpointStore,
        state: TrainingState,
        policy: CheckpointPolicy,
        *,
        attempt: int,
        ranks: Ranks | None = None,
        before_publish: Callable[[], None] = lambda: None,
        on_published: Callable[[Checkpoint], None] = lambda _: None,
        on_failure: Callable[[int, str], None] = lambda step, failure: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.records: deque[SaveRecord] = deque(maxlen=_RECORDS)
        """How the latest saves of this process went; the last may be under way."""
        self._store = store
        self._state = state
        self._policy = policy
        self._attempt = attempt
        self._ranks: Ranks = ranks or Alone()
        self._before_publish = before_publish
        self._on_published = on_published
        self._on_failure = on_failure
        self._clock = clock
        self.resumed: Checkpoint | None = None
        """The checkpoint that `restore` put back."""
        self._snapshotter = Snapshotter(use_device_copy=policy.device_snapshot)
        self._writing: Writing | None = None
        self._cadence = Cadence(
            every_steps=policy.every_steps,
            every_seconds=policy.every_seconds,
            max_overhead=policy.max_overhead if policy.asynchronous else None,
            now=clock(),
        )

    def is_due(self, step: int, worked_seconds: float) -> bool:
        """At the safe point after a step: report the outcome of earlier saves, and whether to `begin` one now.

        Args:
            step: steps done.
            worked_seconds: time that has gone into steps so far, without pauses, evaluations and saves.

        Raises:
            RankLost: another process of this training is gone.
        """
        self._cadence.step_done(worked_seconds)
        if self._writing is not None:
            self._look_after(self._writing)
        return self._is_time(step, self._clock())

    def begin(self, step: int, progress: Any, metrics: Mapping[str, Any]) -> None:
        """Save, beside the training if the policy says so. A failure is reported at a later safe point.

        Args:
            progress: what the caller wants back on resume: JSON values, arrays, tensors.
            metrics: the step's figures, for `keep_best`.
        """
        is_patient = self._ranks.world == 1 and self._policy.asynchronous
        self._begin(step, progress, metrics, (), tries=None if is_patient else 1)

    def save(
        self, step: int, progress: Any, metrics: Mapping[str, Any], *, tags: tuple[str, ...] = ()
    ) -> Checkpoint | None:
        """Save now and return once it is durable; on ranks other than 0, None.

        Raises:
            CheckpointFailed: it could not be written. The earlier ones are whole.
            RankLost: another process of this training is gone.
        """
        self._finish()
        record = self._begin(step, progress, metrics, tags, tries=_DEMANDED_TRIES)
        self._finish(is_hopeless=False)
        if not record.is_durable:
            raise CheckpointFailed(
                f"The checkpoint of step {step} could not be written: {record.failures[-1]}",
                hint="The earlier checkpoints are intact. Free space or fix the disk, then save again.",
            )
        return record.checkpoint

    def restore(self, check: Callable[[Checkpoint], None] = lambda _: None) -> Any:
        """Put the newest good checkpoint back, random numbers last; returns its `progress`, None if there is none.

        Rank 0 looks for it, since what is damaged is moved aside, and all ranks take the same one.

        Args:
            check: called on rank 0 with the checkpoint before anything is changed; may raise.

        Raises:
            CheckpointInvalid: there were checkpoints and none is good.
            StateUnsupported: it does not fit; nothing was changed.
        """
        found: Checkpoint | None = None
        refusal: Exception | None = None
        if self._ranks.rank == 0:
            try:
                found = self._store.newest_good()
                if found is not None:
                    check(found)
            except Exception as error:
                refusal = error
        self._go_on_together(refusal)
        name = self._ranks.share(b"" if found is None else found.path.name.encode()).decode()
        if not name:
            return None
        if found is None:
            path = self._store.root / name
            found = Checkpoint(path=path, manifest=read_manifest(path))
        progress = None
        try:
            progress = load(found, self._state, rank=self._ranks.rank)
            self.resumed = found
        except Exception as error:
            refusal = error
        self._go_on_together(refusal)
        return progress

    def _go_on_together(self, refusal: Exception | None) -> None:
        if not self._ranks.all_ok(refusal is None):
            raise refusal or CheckpointInvalid("Another rank does not resume.", hint="Its own log says why.")

    def wait(self) -> None:
        """Return once the checkpoint under way is published, or has failed."""
        self._finish(is_hopeless=False)

    def close(self) -> None:
        """Wait for what is being written and let go of the buffers."""
        with suppress(RankLost):  # it has been reported, and the ranks have nothing more to agree on
            self._finish()
        self._snapshotter.release()

    def _is_time(self, step: int, now: float) -> bool:
        if self._ranks.world == 1:
            if not self._cadence.is_due(step, now):
                return False
            if self._writing is not None and self._writing.is_waiting:
                self._finish()  # what is newer is better than another try of what is older
            return self._writing is None
        every = self._policy.every_steps
        is_due = self._cadence.is_due(step, now)
        if (every is None or step % every) and step % _VOTE_EVERY_STEPS:
            return False
        return not self._ranks.all_ok(not is_due) and self._ranks.all_ok(self._writing is None)

    def _begin(
        self, step: int, progress: Any, metrics: Mapping[str, Any], tags: tuple[str, ...], *, tries: int | None
    ) -> SaveRecord:
        started = self._clock()
        material = self._copy(step, progress, metrics, tags)
        record = SaveRecord(step=step)
        writing = Writing(
            self._store,
            material,
            self._policy.retention,
            self._ranks,
            record,
            tries=tries,
            before_publish=self._before_publish,
        )
        self.records.append(record)
        self._writing = writing
        if self._policy.asynchronous:
            writing.start()
        else:
            writing.run()
        record.blocked_seconds = self._clock() - started
        if not self._policy.asynchronous:
            self._look_after(writing)
        self._cadence.saved(self._clock(), blocked_seconds=record.blocked_seconds)
        return record

    def _copy(self, step: int, progress: Any, metrics: Mapping[str, Any], tags: tuple[str, ...]) -> Material:
        taken = self._state.take(progress)
        share = Share(self._ranks.rank, taken.parts, taken.gradients, taken.own, taken.kinds)
        return Material(
            step=step,
            attempt=self._attempt,
            metrics={name: float(value) for name, value in metrics.items() if _is_finite(value)},
            tags=tags,
            share=share,
            snapshot=self._snapshotter.take(share.tensors()),
        )

    def _look_after(self, writing: Writing) -> None:
        is_over = writing.is_over
        for failure in writing.new_failures():
            log.warning(
                "the checkpoint of step %d has failed, the earlier ones are whole%s: %s",
                writing.record.step,
                " and the training continues" if writing.lost is None else "",
                failure,
            )
            self._on_failure(writing.record.step, failure)
        if is_over:
            self._writing = None
            if writing.record.checkpoint is not None:
                self._on_published(writing.record.checkpoint)
        if writing.lost is not None:
            raise writing.lost

    def _finish(self, *, is_hopeless: bool = True) -> None:
        writing = self._writing
        if writing is not None:
            if is_hopeless:
                writing.give_up()
            writing.join()
            self._look_after(writing)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
