"""How many calls a server can answer before a deadline: a bound that keeps small servers from drowning. Pure.

By Little's law a call that is sent as the n-th at once and answered after t seconds saw n / t answers a second; so many
a second (or as many as were counted, where that is more) times half the shortest deadline may be in flight. It is in
force only while answers take a good part of that deadline: a quick server is not bounded by what it was asked so far.
"""

import math
from collections import deque
from dataclasses import dataclass, field

from kdproxy.core.pacing.sliding_window import SlidingWindow

RECENT = 32
IN_FORCE_SHARE = 1 / 8
"""Of the deadline: while answers take less than this, it is far away."""
DEADLINE_SHARE = 1 / 2
LEAST_BESIDE = 5
LEAST_BESIDE_BATCHING = 32
"""Calls that were sent with fewer in flight show how long an answer takes, and not how many a second there are."""
_COUNTED_SECONDS = 60.0
_DEADLINE_MEMORY_SECONDS = 300.0
_LEAST_BOUND = 2.0


@dataclass(slots=True)
class Throughput:
    """Completions of one lane."""

    least_beside: int = LEAST_BESIDE
    _deadline: float = math.inf
    _deadline_at: float = -math.inf
    _recent: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=RECENT))
    _took: float = 0.0
    """Seconds that the recent ones took, all together."""
    _ends: SlidingWindow = field(default_factory=lambda: SlidingWindow(_COUNTED_SECONDS))
    _bound: float = math.inf

    @property
    def bound(self) -> float:
        """How many calls may be in flight at once; infinity: it is not in force."""
        return self._bound

    def take(self, deadline_seconds: float, now: float) -> None:
        """A call was sent that must be answered in so many seconds."""
        if deadline_seconds <= self._deadline or now - self._deadline_at > _DEADLINE_MEMORY_SECONDS:
            self._deadline, self._deadline_at = deadline_seconds, now

    def completed(self, beside: int, seconds: float, now: float) -> None:
        """Take note of an answer that was read to its end.

        Args:
            beside: how many calls were in flight when it was sent, itself included.
            seconds: how long it took.
            now: monotonic seconds.
        """
        self._ends.add(1.0, now)
        if beside < self.least_beside:
            return
        if len(self._recent) == RECENT:
            self._took -= self._recent[0][1]
        self._recent.append((beside, max(seconds, 1e-3)))
        self._took += self._recent[-1][1]
        took = self._took
        if took / len(self._recent) < IN_FORCE_SHARE * self._deadline:
            self._bound = math.inf
            return
        by_law = sum(number for number, _ in self._recent) / took
        counted = self._ends.total(now) / _COUNTED_SECONDS
        self._bound = max(_LEAST_BOUND, DEADLINE_SHARE * self._deadline * max(by_law, counted))
