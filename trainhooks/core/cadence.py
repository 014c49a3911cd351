"""When the next checkpoint is due. Pure: the time is an argument.

The rule of CheckFreq (Mohan, Phanishayee, Chidambaram, FAST 2021): what a save costs the training, the time that it
stood still and what the next steps took longer, may be only a small part of the time between two saves. Where it is
more, saves become rarer.
"""

from collections import deque

_WINDOW = 10
"""Steps measured before a save, for the usual step time, and after it."""


class Cadence:
    """Decides at each safe point.

    Args:
        every_steps: a checkpoint at each multiple of this.
        every_seconds: a checkpoint once this much has passed since the last.
        max_overhead: the part of the time that saving may cost; None lets it cost what it will.
        now: seconds of a steady clock.
    """

    def __init__(
        self, *, every_steps: int | None, every_seconds: float | None, max_overhead: float | None, now: float
    ) -> None:
        self.every_steps = every_steps
        self.every_seconds = every_seconds
        self.stretch_seconds = 0.0
        """The min time between two saves, from what the last one cost."""
        self._max_overhead = max_overhead
        self._saved_at = now
        self._is_owed = False
        self._worked_seconds: float | None = None
        self._before: deque[float] = deque(maxlen=_WINDOW)
        self._after: list[float] | None = None
        self._blocked_seconds = 0.0

    def is_due(self, step: int, now: float) -> bool:
        """Whether to save now, `step` steps being done. Once true it stays true until `saved`."""
        if self.every_steps is not None and step % self.every_steps == 0:
            self._is_owed = True
        if self.every_seconds is not None and now - self._saved_at >= self.every_seconds:
            self._is_owed = True
        return self._is_owed and now - self._saved_at >= self.stretch_seconds

    def saved(self, now: float, *, blocked_seconds: float) -> None:
        """A save has started; it blocked the training for `blocked_seconds`."""
        self._is_owed = False
        self._saved_at = now
        self._blocked_seconds = blocked_seconds
        self._after = []

    def step_done(self, worked_seconds: float) -> None:
        """A step ended. `worked_seconds` have gone into steps so far: no pauses, evaluations or saves."""
        if self._worked_seconds is not None:
            self._note(worked_seconds - self._worked_seconds)
        self._worked_seconds = worked_seconds

    def _note(self, seconds: float) -> None:
        if self._after is None:
            self._before.append(seconds)
            return
        self._after.append(seconds)
        if len(self._after) == _WINDOW:
            if self._max_overhead is not None and self._before:
                usual = sum(self._before) / len(self._before)
                cost = self._blocked_seconds + max(0.0, sum(self._after) - usual * _WINDOW)
                self.stretch_seconds = cost / self._max_overhead
            self._after = None
