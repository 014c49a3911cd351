"""How many calls may be in flight at once where no header names a limit. Pure.

It widens by time: permits are added singly, at a rate that doubles each quarter of a second in which the bound is used
and nothing is refused. Refusals come within a round trip, answers may take minutes; a thousand calls are out within
two seconds. Latency is no signal: a batching server gets slower per answer and faster in all. A recognised one starts
at the full bound; one that names its slots gets those, and as many again to wait at the server.

Only a refusal narrows it (429, 503 that says overloaded, connection refused), or timeouts of several questions: one
question's never do. Near the last wall it widens slowly: one more after some hundred answers.
"""

import math
from dataclasses import dataclass

FIRST = 5.0
"""Calls at once before anything is known."""
FIRST_RATE = 192.0
"""Permits a second that are added at first at one's own server, which refuses within milliseconds."""
CAREFUL_RATE = 4.0
"""The same at a hosted API, and wherever a wall has been met."""
DOUBLING_SECONDS = 0.25
HIGHEST_RATE = 2_000.0
LEAST = 1.0
TICK_SECONDS = 0.004
"""Shortest wait for a permit: what is due within it comes together."""
_STALE_SECONDS = 0.5
_SHRINK = 0.8
_GROWTH = 1.0025
"""Per round of answers, close to the wall."""
_NEAR = (0.92, 1.05)
_SHORTEST_ROUND = 8
_WALL_SECONDS = 30.0
"""How long a wall is remembered that is no bound on calls at once: an overload, a restart."""


@dataclass(slots=True)
class ConcurrencyLimit:
    """The bound on calls in flight."""

    most: float
    bound: float = FIRST
    first_rate: float = FIRST_RATE
    wall: float | None = None
    """What was in flight at the last refusal."""
    _wall_until: float = math.inf
    _rate: float = CAREFUL_RATE
    _next_at: float = 0.0
    """When the next permit is added."""
    _pressed_at: float = -math.inf
    """When a request last waited for the bound."""
    _round_count: int = 0
    _round_peak: int = 0

    def __post_init__(self) -> None:
        self.bound = min(self.bound, self.most)

    def wait(self, in_flight: int, now: float) -> float:
        """Return the seconds until one more may go beside so many; infinity: not before another one ends."""
        if in_flight < int(self.bound):
            return 0.0
        if self.wall is not None and now >= self._wall_until:
            self.wall = None
        ceiling = self.most if self.wall is None else min(self.most, _NEAR[0] * self.wall)
        if self.bound + 1 > ceiling:
            return math.inf if self.wall is None else self._wall_until - now
        self._widen(ceiling, now)
        return 0.0 if in_flight < int(self.bound) else max(self._next_at - now, TICK_SECONDS)

    def open(self, bound: float | None = None) -> None:
        """Open at once: the server is known to take so many; None: as many as come."""
        self.bound = self.most if bound is None else min(self.most, bound)

    def completed(self, in_flight: int) -> None:
        """A call ended well, with so many in flight, itself included."""
        if self.wall is None:
            return
        self._round_count += 1
        self._round_peak = max(self._round_peak, in_flight)
        if self._round_count < max(_SHORTEST_ROUND, self.bound):
            return
        if self._round_peak >= 0.9 * self.bound:
            # A bound that was not reached shows nothing about a higher one.
            self.bound = min(self.most, self.bound * _GROWTH)
            if self.bound >= max(_NEAR[1] * self.wall, self.wall + 1):
                self.wall = None
        self._round_count, self._round_peak = 0, 0

    @property
    def lasting_wall(self) -> float | None:
        """The bound on calls at once that the provider has shown; None: it has shown none."""
        return self.wall if self._wall_until == math.inf else None

    def crowded(self, others: int, *, is_restored: bool = False) -> None:
        """A call was refused for being one too many at once, beside so many others of ours.

        Args:
            is_restored: it was, before this process started.
        """
        bound = self.most if is_restored else self.bound
        self.bound = max(LEAST, min(bound, float(others)))
        self._meet(self.bound, math.inf)

    def narrow(self, others: int, now: float) -> None:
        """Narrow the bound: an episode of refusals began, beside so many others of ours.

        With fewer than half of the bound in flight it says nothing of the bound.
        """
        if 2 * (others + 1) < int(self.bound):
            return
        wall = max(LEAST, min(self.bound, others + 1.0))
        self.bound = max(LEAST, wall * _SHRINK)
        self._meet(wall, now + _WALL_SECONDS)

    def _meet(self, wall: float, until: float) -> None:
        self.wall, self._wall_until = wall, until
        self.first_rate, self._pressed_at = CAREFUL_RATE, -math.inf
        self._round_count, self._round_peak = 0, 0

    def _widen(self, ceiling: float, now: float) -> None:
        if now - self._pressed_at > _STALE_SECONDS:
            # No request waited for it meanwhile: the bound is untested.
            self._rate, self._next_at = self.first_rate, now + 1 / self.first_rate
        self._pressed_at = now
        while self._next_at <= now and self.bound + 1 <= ceiling:
            self.bound = math.floor(self.bound) + 1.0
            # Smoothly: so much in the time that this permit took to come.
            self._rate = min(HIGHEST_RATE, self._rate * 2.0 ** (1 / self._rate / DOUBLING_SECONDS))
            self._next_at += 1 / self._rate
