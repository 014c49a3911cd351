"""A requests-per-minute limit in fixed windows, and the state that providers report in headers."""

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitState:
    """What is left of a limit."""

    limit: int
    remaining: int
    reset_seconds: float


GENEROUS = LimitState(limit=10_000, remaining=9_999, reset_seconds=0.006)


@dataclass(slots=True, kw_only=True)
class FixedWindow:
    """Admits so many requests per window; the first request opens the window."""

    limit: int
    window_seconds: float
    clock: Callable[[], float]
    _opened_at: float = -math.inf
    _used: int = 0

    def admit(self) -> tuple[bool, LimitState]:
        now = self.clock()
        if now - self._opened_at >= self.window_seconds:
            self._opened_at, self._used = now, 0
        is_admitted = self._used < self.limit
        self._used += is_admitted
        return is_admitted, LimitState(
            limit=self.limit,
            remaining=self.limit - self._used,
            reset_seconds=self._opened_at + self.window_seconds - now,
        )

    def clear(self) -> None:
        self._opened_at, self._used = -math.inf, 0
