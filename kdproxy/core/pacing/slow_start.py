"""The start of a lane to a hosted API, before any limit is known: slow until 32 requests have passed. Pure.

Where answers will carry limit headers, five go at once and one more for each that has begun. Where they will not, two a
second go: a limit of 5 or 15 a minute costs two refusals so, and the pace that a refusal shows is a real one.
"""

import math
from dataclasses import dataclass

START_RATE = 2.0
ENOUGH_PASSED = 32
FIRST_AT_ONCE = 5
WINDOW_SECONDS = 60.0


@dataclass(slots=True)
class SlowStart:
    """Spaces the first requests."""

    expects_headers: bool = False
    passed: int = 0
    began_at: float = math.inf
    _next_at: float = -math.inf

    @property
    def is_over(self) -> bool:
        """Whether so many have passed that there is no low limit."""
        return self.passed >= ENOUGH_PASSED

    def wait(self, now: float) -> float:
        """Return the seconds until the next one may go."""
        return 0.0 if self.is_over or self.expects_headers else max(0.0, self._next_at - now)

    @property
    def bound(self) -> float:
        """How many calls may be in flight at once."""
        return math.inf if self.is_over or not self.expects_headers else FIRST_AT_ONCE + self.passed

    def take(self, now: float) -> None:
        """Count a send."""
        self.began_at = min(self.began_at, now)
        self._next_at = now + 1 / START_RATE

    def until_window(self, now: float) -> float:
        """Return the seconds until a minute's limit that was used up by the first requests is back."""
        return max(0.0, self.began_at + WINDOW_SECONDS - now)

    def end(self) -> None:
        """More is known: limits, or a pace."""
        self.passed = ENOUGH_PASSED
