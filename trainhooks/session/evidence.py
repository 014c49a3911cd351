"""What a training leaves behind so that a later attempt can be compared with it: digests in rows and in checkpoints.

The first step after a save is the one that a resume does first, so it leaves the most: digests of its batch and of the
random numbers before it runs, and of the parameters once an optimizer has stepped. Nothing is run or loaded for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainhooks.core.certificate import DIGESTS

if TYPE_CHECKING:
    from trainhooks.pytorch.checkpoint.state import TrainingState
    from trainhooks.pytorch.sampled_parameters import SampledParameters
    from trainhooks.session.feed import Feed

EVERY_STEPS = 10
"""How often a row holds the digests that are not in each; the first step after a checkpoint does too."""
_PATIENCE_STEPS = 16
"""How long an optimizer's step is waited for before the parameters are digested without one."""


class Evidence:
    """The digests of the running attempt."""

    def __init__(self, feed: Feed, *, is_thorough: bool) -> None:
        self.is_thorough = is_thorough
        """Whether every row holds all digests, as in a rehearsal."""
        self._feed = feed
        self._is_first = True
        self._awaited = _PATIENCE_STEPS
        """Steps in which the parameters are still to be digested; 0: that is done."""
        self._digests: dict[str, Any] = {}
        self._sent: tuple[int, dict[str, Any], SampledParameters] | None = None
        self._is_resumed = True

    def saved(self) -> None:
        """A checkpoint has been taken: the next step is one that a resume does first."""
        self._is_first, self._awaited = True, _PATIENCE_STEPS

    @property
    def is_first(self) -> bool:
        """Whether the running step is the first one after a checkpoint, or of this attempt."""
        return self._is_first

    def begins(self, step: int, batch: Any) -> dict[str, Any]:
        """Return what the row of step `step` says of its batch, before the loop gets it."""
        from trainhooks.pytorch import fingerprint

        self._digests = {"batch": fingerprint.of_batch(self._feed.origin, batch)}
        if self._is_first or self.is_thorough or step % EVERY_STEPS == 0:
            self._digests["random"] = fingerprint.of_random_numbers()
        return {DIGESTS: self._digests}

    def ends(self, step: int, state: TrainingState) -> dict[str, Any]:
        """Return what is to be added once step `step` is done; nothing of most steps."""
        more: dict[str, Any] = {}
        if (self._is_first or self.is_thorough or step % EVERY_STEPS == 0) and (streams := self._feed.beside()):
            more["streams"] = streams
        if self._awaited or self.is_thorough:
            self._awaited = max(0, self._awaited - 1)
            if state.has_stepped or self._awaited == 0:
                self._awaited = 0
                more |= self._look_at(step, state, more)
        self._is_first = False
        return {DIGESTS: {**self._digests, **more}} if more else {}

    def _look_at(self, step: int, state: TrainingState, more: dict[str, Any]) -> dict[str, Any]:
        from trainhooks.pytorch.sampled_parameters import sampled

        found = sampled(state)
        if found is None:
            return {}
        if not (found.is_here or self._is_resumed or self.is_thorough):
            self._sent = step, {**self._digests, **more}, found
            return {}
        self._is_resumed = False  # of the first steps after a resume they are waited for: the verdict is
        return {"parameters": found.digest()}

    def arrived(self, *, waits: bool = False) -> tuple[int, dict[str, Any]] | None:
        """Return what is to be added to an earlier step, once that has come from the device; None: there is nothing."""
        if self._sent is None or not (waits or self._sent[2].is_here):
            return None
        (step, digests, found), self._sent = self._sent, None
        return step, {DIGESTS: {**digests, "parameters": found.digest()}}
