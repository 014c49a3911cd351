"""Keeps a dead upstream from being hammered: a retry budget and a breaker, one of each per upstream. Pure.

The reference is the AWS SDKs' standard retry mode (default since 2026-11-10): 500 tokens, 14 for a retry after
a transient failure, given back when the retry succeeds, 1 for each call that succeeds at once. Theirs fails a request
when the tokens are gone; ours holds it and lets probes look until the upstream is back.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

BUDGET = 500
RETRY_COST = 14
FAILURES_TO_OPEN = 5
"""In a row, over all requests: fewer than one request may make, so that in an outage it is held before it gives up."""
FIRST_PROBE_SECONDS = 1.0
LONGEST_PROBE_SECONDS = 15.0
"""Four probes a minute once an outage has lasted."""
_PROBE_GROWTH = 1.7
RAMP_START = 2
RAMP_END = 64


@dataclass(slots=True)
class RetryBudget:
    """Retries in stock."""

    tokens: int = BUDGET

    def spend(self) -> bool:
        """Pay for a retry after a transient failure; False: there is nothing left to pay with."""
        if self.tokens < RETRY_COST:
            return False
        self.tokens -= RETRY_COST
        return True

    def refill(self) -> None:
        """An outage is over: what failed in it says nothing of now."""
        self.tokens = max(self.tokens, BUDGET // 2)

    def succeeded(self, *, is_retry: bool) -> None:
        """A call succeeded."""
        self.tokens = min(BUDGET, self.tokens + (RETRY_COST if is_retry else 1))


class State(StrEnum):
    """Where a breaker is."""

    CLOSED = "closed"
    """Calls go through."""
    OPEN = "open"
    """None do, but for a probe now and then."""


@dataclass(slots=True)
class Breaker:
    """Counts failures in a row; opens; lets one probe through at a time; comes back by doubling."""

    state: State = State.CLOSED
    in_flight: int = 0
    opened: int = 0
    """How often it has opened."""
    probe_at: float = -math.inf
    _failures: int = 0
    _interval: float = FIRST_PROBE_SECONDS
    _is_probing: bool = False
    _ramp: int | None = None
    """Calls in flight at once after an outage; None: no bound."""

    def wait(self, now: float) -> float:
        """Return the seconds until a call may go; infinity: when another one has ended."""
        if self.state is State.OPEN:
            return math.inf if self._is_probing else max(0.0, self.probe_at - now)
        return math.inf if self._ramp is not None and self.in_flight >= self._ramp else 0.0

    def take(self) -> bool:
        """Count a call in; say whether it is a probe."""
        self.in_flight += 1
        if self.state is State.OPEN:
            self._is_probing = True
            return True
        return False

    def end(self, *, was_probe: bool) -> None:
        """Count a call out, however it ended."""
        self.in_flight -= 1
        if was_probe:
            self._is_probing = False

    def passed(self) -> bool:
        """The upstream answered (whatever it said, short of a failure); say whether an outage is over by that."""
        self._failures = 0
        if self.state is State.OPEN:
            self.state = State.CLOSED
            self._interval = FIRST_PROBE_SECONDS
            self._ramp = RAMP_START
            return True
        if self._ramp is not None:
            # One more for each success doubles it per round.
            self._ramp = self._ramp + 1 if self._ramp < RAMP_END else None
        return False

    def failed(self, now: float, *, was_probe: bool, jitter: float) -> bool:
        """A call failed; say whether the breaker opened by that.

        Args:
            jitter: uniform in [0, 1).
        """
        self._failures += 1
        if self.state is State.OPEN:
            if was_probe:
                self._interval = min(LONGEST_PROBE_SECONDS, self._interval * _PROBE_GROWTH)
                self.probe_at = now + self._interval * (0.75 + 0.25 * jitter)
            return False
        return self._failures >= FAILURES_TO_OPEN and self.trip(now, jitter=jitter)

    def trip(self, now: float, *, jitter: float) -> bool:
        """Open; say whether it was closed."""
        if self.state is State.OPEN:
            return False
        self.state = State.OPEN
        self.opened += 1
        self.probe_at = now + self._interval * (0.75 + 0.25 * jitter)
        return True
