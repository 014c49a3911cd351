"""What was sent in the last so many seconds: a sliding log in bins. Pure."""

from collections import deque
from dataclasses import dataclass, field

_BINS = 240
"""A minute in quarters of a second: what a window holds is overstated by at most 1/240 of it, never understated."""


@dataclass(slots=True)
class SlidingWindow:
    """A sliding log. Times must not go backwards."""

    window_seconds: float
    _total: float = 0.0
    _bins: deque[list[float]] = field(default_factory=deque)
    """Start and amount, oldest first."""
    _width: float = field(init=False)
    """Length of a bin."""

    def __post_init__(self) -> None:
        self._width = self.window_seconds / _BINS

    def add(self, amount: float, now: float) -> None:
        """Count something."""
        bins = self._bins
        if not bins or bins[0][0] + self._width + self.window_seconds <= now:
            self._forget(now)
        self._total += amount
        if bins and now < bins[-1][0] + self._width:
            bins[-1][1] += amount
        else:
            bins.append([now, amount])

    def take_back(self, amount: float) -> None:
        """Subtract what turned out smaller, the newest first."""
        for each in reversed(self._bins):
            part = min(each[1], amount)
            each[1] -= part
            self._total -= part
            amount -= part
            if amount <= 0:
                return

    @property
    def held(self) -> float:
        """What the window held when it was last read."""
        return self._total

    def total(self, now: float) -> float:
        """Return what the window holds."""
        self._forget(now)
        return self._total

    def since(self, start: float) -> float:
        """Return what came at or after a moment within the window."""
        return sum(amount for at, amount in self._bins if at >= start)

    def wait_for(self, room: float, now: float) -> float:
        """Return the seconds until the window holds no more than `room`."""
        self._forget(now)
        left, until = self._total, now
        for start, amount in self._bins:
            if left <= room:
                break
            left -= amount
            until = start + self._width + self.window_seconds
        return max(0.0, until - now)

    def _forget(self, now: float) -> None:
        # A bin leaves when the youngest of it does.
        while self._bins and self._bins[0][0] + self._width + self.window_seconds <= now:
            self._total -= self._bins.popleft()[1]
        if not self._bins:
            self._total = 0.0
