"""A retry budget and a circuit breaker, one of each per upstream, so that a dead one is not hammered. Pure.

The breaker judges an upstream by how many *different* questions have failed since one last succeeded: one question,
however often it fails, says something about itself. While the circuit is open, a half-open probe is a question that has
not failed yet, or, where none waits or its answer takes long, a GET that costs nothing (engine/upstream_health.py). A
question that has failed is never a probe. Once the upstream answers, calls come back by doubling from two. A failure
with no success between opens the circuit again, for longer.

The budget is that of the AWS SDKs' standard retry mode (default since 2026-11-10): 500 tokens, 14 for a failure, given
back when the retry succeeds, 1 for each call that succeeds at once. Theirs fails a request when the tokens are gone;
ours holds it until the upstream is back. Each question pays once until one succeeds.
"""

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import StrEnum

BUDGET = 500
RETRY_COST = 14
FAILURES_TO_OPEN = 5
"""Different questions in a row."""
FAILURES_TO_OPEN_AGAIN = 2
"""After an outage that no success has ended yet: all that was let out."""
FIRST_PROBE_SECONDS = 1.0
LONGEST_PROBE_SECONDS = 15.0
"""Four probes a minute once an outage has lasted."""
_PROBE_GROWTH = 1.7
TRIAL_SECONDS = 2.0
"""For so long a question alone may show whether the upstream is back; answers may take minutes, a GET does not."""
RAMP_START = 2
RAMP_END = 64


@dataclass(slots=True)
class RetryBudget:
    """Retries in stock."""

    tokens: int = BUDGET

    def spend(self) -> bool:
        """Pay for a retry after a transient failure; False: the budget is spent."""
        if self.tokens < RETRY_COST:
            return False
        self.tokens -= RETRY_COST
        return True

    def refill(self) -> None:
        """Refill at the end of an outage: its failures no longer count."""
        self.tokens = max(self.tokens, BUDGET // 2)

    def started(self, *, is_retry: bool) -> None:
        """Take note of an answer that has begun: it gives tokens back."""
        self.tokens = min(BUDGET, self.tokens + (RETRY_COST if is_retry else 1))


class State(StrEnum):
    """Where a breaker is."""

    CLOSED = "closed"
    """Calls go through."""
    OPEN = "open"
    """Calls are held; half-open probes test the upstream."""


@dataclass(slots=True)
class CircuitBreaker:
    """Counts the different questions that failed; opens; lets calls back in by doubling."""

    state: State = State.CLOSED
    in_flight: int = 0
    opened: int = 0
    """How often it has opened."""
    probe_at: float = -math.inf
    """When the next half-open probe is due."""
    _failed: set[Hashable] = field(default_factory=set)
    """Different questions, since one last succeeded."""
    _failed_again: set[Hashable] = field(default_factory=set)
    """Those of them since calls were last let in."""
    _interval: float = 0.0
    """From the opening, or a failed probe, to the next probe; 0: it has not opened since a success."""
    _trial: Hashable = None
    """The question that is the half-open probe."""
    _ramp: int | None = None
    """Calls in flight at once after an outage; None: no bound."""
    _ramp_end: int = RAMP_END
    """Where the bound goes away. What was under way before is no part of it: answers may take minutes."""

    @property
    def is_suspect(self) -> bool:
        """Whether nothing has succeeded since it was open: it is half open, in the usual term."""
        return self._interval > 0

    def has_failed(self, question: Hashable) -> bool:
        """Whether a question has failed since one last succeeded: it shows nothing of the upstream."""
        return question in self._failed

    def wait(self, now: float) -> float:
        """Return the seconds until a call may go, or a probe where it is open; infinity: when a call has ended."""
        if self.state is State.OPEN:
            return max(0.0, self.probe_at - now)
        return math.inf if self._ramp is not None and self.in_flight >= self._ramp else 0.0

    def take(self, now: float, *, question: Hashable) -> None:
        """Count a call in. Where the breaker is open this call is the probe; a GET may follow it soon."""
        self.in_flight += 1
        if self.state is State.OPEN:
            self._trial = question
            self.probe_at = now + TRIAL_SECONDS

    @property
    def has_trial(self) -> bool:
        """Whether a question is out as the probe."""
        return self._trial is not None

    def ended(self, question: Hashable) -> None:
        """Count a call out, however it ended."""
        self.in_flight -= 1
        if question == self._trial:
            self._trial = None

    def answered(self) -> bool:
        """Take note of an answer, a refusal included; return whether that ends an outage."""
        was_suspect = self.is_suspect
        self._failed.clear()
        self._failed_again.clear()
        self._interval = 0.0
        if self.state is State.OPEN:
            self._close(beside=self.in_flight - 1)
        elif self._ramp is not None:
            # One more for each success doubles it per round.
            self._ramp = self._ramp + 1 if self._ramp < self._ramp_end else None
        return was_suspect

    def upstream_failed(self, now: float, *, question: Hashable, jitter: float) -> bool:
        """Take note of a call that the upstream failed; return whether that opened the breaker.

        Args:
            question: which one; the same one counts once.
            jitter: uniform in [0, 1).
        """
        self._failed.add(question)
        self._failed_again.add(question)
        if self.state is State.OPEN:
            if question == self._trial:
                self.probe_failed(now, jitter=jitter)
            return False
        enough = FAILURES_TO_OPEN_AGAIN if self.is_suspect else FAILURES_TO_OPEN
        return len(self._failed_again) >= enough and self.trip(now, jitter=jitter)

    def trip(self, now: float, *, jitter: float) -> bool:
        """Open; say whether it was closed."""
        if self.state is State.OPEN:
            return False
        self.state = State.OPEN
        self.opened += 1
        # The first probe is at once: several bad questions in a row delay the others no longer than that. Where other
        # calls are in flight, their answers may show it sooner at no cost.
        self.probe_failed(now, jitter=jitter)
        if self.in_flight > 1:
            self.probe_at = max(self.probe_at, now + FIRST_PROBE_SECONDS)
        return True

    def probe_failed(self, now: float, *, jitter: float) -> None:
        """Take note of a failed probe: the upstream is still down."""
        self.probe_at = now + self._interval * (0.75 + 0.25 * jitter)
        self._interval = min(LONGEST_PROBE_SECONDS, max(FIRST_PROBE_SECONDS, self._interval * _PROBE_GROWTH))

    def probe_succeeded(self) -> None:
        """Take note of a probe that was answered: let calls through, doubling from two."""
        self._failed_again.clear()
        self._close(beside=self.in_flight)

    def _close(self, *, beside: int) -> None:
        self.state = State.CLOSED
        self._ramp, self._ramp_end = beside + RAMP_START, beside + RAMP_END
