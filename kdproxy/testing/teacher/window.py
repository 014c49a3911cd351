"""The ways in which providers enforce a limit, each an exact model: fixed window, sliding window, token bucket.

For the teacher and for simulations: time comes from a given clock.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol


class Window(Protocol):
    """Admits a limited amount per window of time."""

    limit: float
    """May be changed while it runs."""

    def fits(self, amount: float) -> bool:
        """Whether there is room now."""

    def spend(self, amount: float) -> None:
        """Take room."""

    @property
    def remaining(self) -> float:
        """What is left."""

    @property
    def reset_seconds(self) -> float:
        """When all of it is back."""

    def wait_for(self, amount: float) -> float:
        """When so much fits."""


@dataclass(slots=True, kw_only=True)
class FixedWindow:
    """All at once, each so many seconds; the first spending opens the first window."""

    limit: float
    seconds: float
    clock: Callable[[], float]
    _opened_at: float | None = None
    _used: float = 0.0

    def fits(self, amount: float) -> bool:
        self._turn()
        return self._used + amount <= self.limit + 1e-9

    def spend(self, amount: float) -> None:
        self._turn()
        if self._opened_at is None:
            self._opened_at = self.clock()
        self._used += amount

    @property
    def remaining(self) -> float:
        self._turn()
        return max(0.0, self.limit - self._used)

    @property
    def reset_seconds(self) -> float:
        self._turn()
        return self.seconds if self._opened_at is None else self._opened_at + self.seconds - self.clock()

    def wait_for(self, amount: float) -> float:
        return 0.0 if self.fits(amount) else self.reset_seconds

    def _turn(self) -> None:
        now = self.clock()
        if self._opened_at is not None and now >= self._opened_at + self.seconds:
            self._opened_at += self.seconds * math.floor((now - self._opened_at) / self.seconds)
            self._used = 0.0


@dataclass(slots=True, kw_only=True)
class SlidingWindow:
    """No more than the limit in any window: an exact log."""

    limit: float
    seconds: float
    clock: Callable[[], float]
    _log: deque[tuple[float, float]] = field(default_factory=deque)
    _used: float = 0.0

    def fits(self, amount: float) -> bool:
        self._forget()
        return self._used + amount <= self.limit + 1e-9

    def spend(self, amount: float) -> None:
        self._log.append((self.clock(), amount))
        self._used += amount

    @property
    def remaining(self) -> float:
        self._forget()
        return max(0.0, self.limit - self._used)

    @property
    def reset_seconds(self) -> float:
        self._forget()
        return self._log[-1][0] + self.seconds - self.clock() if self._log else 0.0

    def wait_for(self, amount: float) -> float:
        self._forget()
        left = self._used
        for at, spent in self._log:
            if left + amount <= self.limit + 1e-9:
                break
            left -= spent
            if left + amount <= self.limit + 1e-9:
                return max(0.0, at + self.seconds - self.clock())
        return 0.0

    def _forget(self) -> None:
        now = self.clock()
        while self._log and self._log[0][0] + self.seconds <= now:
            self._used -= self._log.popleft()[1]
        if not self._log:
            self._used = 0.0


@dataclass(slots=True, kw_only=True)
class TokenBucket:
    """Refills continuously up to the limit, as at OpenAI and Anthropic."""

    limit: float
    seconds: float
    clock: Callable[[], float]
    _level: float | None = None
    _at: float = 0.0

    def fits(self, amount: float) -> bool:
        return self.remaining + 1e-9 >= amount

    def spend(self, amount: float) -> None:
        self._level = self.remaining - amount

    @property
    def remaining(self) -> float:
        now = self.clock()
        level = self.limit if self._level is None else self._level + (now - self._at) * self.limit / self.seconds
        self._level, self._at = min(self.limit, level), now
        return self._level

    @property
    def reset_seconds(self) -> float:
        return (self.limit - self.remaining) * self.seconds / self.limit

    def wait_for(self, amount: float) -> float:
        return max(0.0, (amount - self.remaining) * self.seconds / self.limit)
