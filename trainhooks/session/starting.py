"""How a session with `state` starts: its parts are made, and it resumes from the newest checkpoint or begins at step 0.

Nothing is written to the run's directory until the attempt begins, so that a start that is refused changes nothing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trainhooks.core import tokenizer as tokenizers
from trainhooks.core.drift import Change, flatten
from trainhooks.host import provenance
from trainhooks.session.checkpointer import Checkpointer
from trainhooks.session.drift_check import DriftCheck
from trainhooks.session.rehearsing import Rehearsing
from trainhooks.session.resume_check import ResumeCheck
from trainhooks.session.resumption import Resumption
from trainhooks.session.saving import Saving
from trainhooks.session.teacher_samples import TeacherSamples
from trainhooks.storage import catalog
from trainhooks.storage.checkpoints import CHECKPOINTS, Checkpoint

if TYPE_CHECKING:
    from trainhooks.core.policy import CheckpointPolicy
    from trainhooks.core.ranks import Ranks
    from trainhooks.core.rehearsal import Plan
    from trainhooks.session.feed import Feed
    from trainhooks.session.records import Records
    from trainhooks.session.running_step import RunningStep

log = logging.getLogger("trainhooks")


def drift_check_of(records: Records, given: Mapping[str, str], tokenizer: Any) -> DriftCheck | None:
    """Return the drift check of this attempt with the facts that are known already; None on a rank that writes nothing.

    Args:
        given, tokenizer: see `drift` and `tokenizer` of `TrainingProgressContext`.
    """
    if records.sink.files is None:
        return None

    def record(change: Change) -> None:
        records.sink.announce(
            "drift", fact=change.name, before=change.before, after=change.after, policy=str(change.policy)
        )

    check = DriftCheck(given, records.sink.files.session.attempts, record)
    check.add({"total_steps": records.total_steps, **dict(flatten(records.config, "config"))})
    check.add({**provenance.code(), **provenance.environment()})
    if tokenizer is not None:
        check.add({"tokenizer": tokenizers.digest(tokenizer)})
    return check


def connect(records: Records, policy: CheckpointPolicy) -> Ranks:
    """Connect the ranks; all of them take the run's name and the attempt's number from rank 0."""
    from trainhooks.pytorch import distributed

    ranks = distributed.connect(policy.patience_seconds)
    who = json.dumps([records.session_id, records.attempt]).encode()
    records.session_id, records.attempt = json.loads(ranks.share(who))
    return ranks


def saving_of(
    state: Mapping[str, Any],
    policy: CheckpointPolicy,
    restore: str | Mapping[str, str] | None,
    *,
    records: Records,
    feed: Feed,
    ranks: Ranks,
    step: RunningStep,
    plan: Plan | None,
    drift_check: DriftCheck | None,
) -> Saving:
    """Make the part that saves `state`; nothing is restored yet."""

    def published(checkpoint: Checkpoint) -> None:
        if records.sink.files is not None:
            records.sink.files.note_checkpoints()

    def failed(step: int, failure: str) -> None:
        records.sink.event("checkpoint_failure", step=step, error=failure)

    checkpointer = Checkpointer(
        records.output_dir,
        state,
        policy,
        session_id=records.session_id,
        attempt=records.attempt,
        restore=restore,
        ranks=ranks,
        before_publish=records.sink.sync,  # what a checkpoint follows from is on the medium before the checkpoint is
        on_published=published,
        on_failure=failed,
    )
    step.check = ResumeCheck(checkpointer.state, records.loop, records.sink, feed, is_thorough=plan is not None)
    return Saving(
        checkpointer,
        records=records,
        feed=feed,
        ranks=ranks,
        step=step,
        check=step.check,
        samples=TeacherSamples(feed, ranks, records.sink.files, drift_check),
        rehearsing=None if plan is None else Rehearsing(plan),
    )


def resume(saving: Saving, drift_check: DriftCheck | None, *, records: Records, feed: Feed, ranks: Ranks) -> None:
    """Restore the newest whole checkpoint and continue there; without one, begin at step 0.

    Raises:
        DriftBlocked: this is not the run of the checkpoint, or the run's checkpoints are gone.
        SamplesNotRestored: the teacher's samples could not be put back.
    """
    checkpointer = saving.checkpointer
    if drift_check is not None:
        drift_check.extend(checkpointer.restore_policies)
        drift_check.add({"world": ranks.world, **checkpointer.facts()})

    def compare_facts(found: Checkpoint) -> None:
        if drift_check is not None:
            drift_check.resume_from(found.manifest.attempt)

    progress = checkpointer.restore(compare_facts)
    if progress is None:
        _begin_at_zero(records, drift_check)
        saving.samples.open()
        return
    feed.resume(progress)
    saving.samples.resume(progress)
    saving.samples.open()
    records.resume_at(progress["step"])
    saving.resumed(progress["step"], Resumption(progress, checkpointer, feed, ranks))
    records.set_finish_reason(progress.get("finished"))


def _begin_at_zero(records: Records, drift_check: DriftCheck | None) -> None:
    """Begin anew, except where checkpoints are gone that there were: weeks of training may be in them."""
    gone = catalog.listed(records.output_dir)
    if gone and drift_check is not None:
        newest = gone[-1]
        drift_check.refuse("checkpoints", f"{len(gone)}, the newest {newest.path}", "gone")
    if records.clock.reached_step:
        log.warning(
            "earlier attempts did %d steps and there is no checkpoint in %s: the training begins anew",
            records.clock.reached_step,
            records.output_dir / CHECKPOINTS,
        )
    records.resume_at(0)
