"""The meter of one quota: when a request of some cost fits, from the headers of answers and what was sent. Pure.

A provider's `remaining` is a reading of the past: its request was admitted before others that are in flight by now. So
every send moves a mark, an answer is read against the mark of its own request, and what was sent since is subtracted.
`now` is a monotonic time throughout, never the wall clock.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from kdproxy.core.limits import Dimension, Quota, Reading
from kdproxy.core.pacing.reset import SLACK_SECONDS, Refill, Reset
from kdproxy.core.pacing.sliding_window import SlidingWindow
from kdproxy.core.token_estimate import Scale

BURST_SECONDS = 5.0
"""Sends are smoothed over this long: providers enforce a minute's limit in windows of 1 to 10 s (Azure says so)."""
LEAST_BURST = 4.0
"""Requests that may go at once however low the limit is."""
BLINK_SECONDS = 0.05
LATE_SHARE = 1 / 60
"""So much longer than a sliding window something may count: where it is counted when it is answered, and that took long
(the first answers come over new connections)."""
BASE_MARGIN = 0.01
WORST_MARGIN = 0.2
EASE_SECONDS = 5.0
"""After a refusal the pace comes back from half to full in this time."""
_LEAST, _MOST = 0.05, 4.0
"""Bounds of the pace, as multiples of the even one."""


class Mark(NamedTuple):
    """How a meter stood when a request was sent, itself included, by estimate: the scale comes in when it is read.

    What was sent in the blink before is left out: the network may have let the younger one in first.
    """

    sent: float
    """All that was ever sent."""
    window: float
    """What was sent in the last window."""
    late_window: float
    """The same of one that is a little longer."""


@dataclass(slots=True)
class Meter:
    """One quota of one lane."""

    quota: Quota
    is_strict: bool = False
    """Send evenly, without bursts, however much is left (Azure enforces a minute's limit in windows of 1 s)."""
    limit: float | None = None
    """As the provider says."""
    allowed: float | None = None
    """As configured: a bound of our own, also where the provider says nothing."""
    margin: float = BASE_MARGIN
    """Share of the limit that is left to others: it grows with refusals."""
    scale: Scale = field(default_factory=Scale)
    reset: Reset = field(init=False)
    is_observed: bool = False
    """Whether an answer has said what is left."""
    _level: float = 0.0
    _level_at: float = 0.0
    _sent: float = 0.0
    _spaced_at: float = 0.0
    _eased_at: float = -math.inf
    _margin_at: float = 0.0
    _last_mark: float = -1.0
    _own_share: float = 0.0
    """Of a sliding window: what the neighbours leave to us of it."""
    _own_late_share: float = 0.0
    _blink: deque[tuple[float, float]] = field(default_factory=deque)
    _outstanding: float = 0.0
    """The estimated cost of what is in flight, not scaled: the scale may have changed when it ends."""
    _log: SlidingWindow = field(init=False)
    _late_log: SlidingWindow = field(init=False)

    def __post_init__(self) -> None:
        self._log = SlidingWindow(self.quota.window_seconds)
        self._late_log = SlidingWindow(self.quota.window_seconds * (1 + LATE_SHARE))
        self.reset = Reset(self.quota.window_seconds, self._is_requests)

    @property
    def _is_requests(self) -> bool:
        return self.quota.dimension is Dimension.REQUESTS

    @property
    def bound(self) -> float | None:
        """The limit that counts."""
        if self.limit is None or self.allowed is None:
            return self.allowed if self.limit is None else self.limit
        return min(self.limit, self.allowed)

    @property
    def in_flight(self) -> float:
        """What is in flight, as the provider counts."""
        return self._outstanding * self.scale.value

    @property
    def mark(self) -> Mark:
        """How it stands now."""
        return Mark(self._sent, self._log.held, self._late_log.held)

    def _mark(self, amount: float, now: float) -> Mark:
        while self._blink and self._blink[0][0] <= now - BLINK_SECONDS:
            self._blink.popleft()
        others = sum(each for _, each in self._blink)
        self._blink.append((now, amount))
        return Mark(self._sent - others, self._log.held - others, self._late_log.held - others)

    def level(self, now: float) -> float | None:
        """Return how much is left, as far as is known; None without a limit."""
        bound = self.bound
        if bound is None:
            return None
        if not self.is_observed:
            return max(0.0, bound - self._window(now))
        self._roll(bound, now)
        if self.reset.refill is Refill.FIXED:
            return self._level
        if self.reset.refill is Refill.BUCKET:
            left = self._level + self._even(bound) * (now - self._level_at)
        else:
            late_window = self._late_log.total(now) * self.scale.value
            left = min(self._own_share - self._window(now), self._own_late_share - late_window)
        if self.reset.has_passed(now):
            # Whatever kind it is: by its reset all of it is back.
            left = max(left, bound - self._since(self._last_mark))
        return min(bound, left)

    def _window(self, now: float) -> float:
        """Return what was sent in the last window, as the provider counts."""
        return self._log.total(now) * self.scale.value

    def _since(self, sent: float) -> float:
        """Return what was sent since a mark, as the provider counts."""
        return (self._sent - sent) * self.scale.value

    # -- asking -----------------------------------------------------------------------------------------------

    def wait(self, amount: float, now: float) -> float:
        """Return the seconds until a request of this estimated cost fits."""
        bound = self.bound
        if bound is None or bound <= 0:
            return 0.0
        # What is larger than the whole limit goes when all of it is free: the provider will say that it is too large.
        price = min(amount * self.scale.value, bound)
        return max(self._until_room(price, bound, now), self._until_spaced(bound, now))

    def take(self, amount: float, now: float) -> Mark:
        """Count a send; return the mark to read its answer against."""
        price = amount * self.scale.value
        self._log.add(amount, now)
        self._late_log.add(amount, now)
        self._sent += amount
        self._outstanding += amount
        bound = self.bound
        if bound is not None and bound > 0:
            level = self.level(now)
            assert level is not None
            if self.is_observed:
                self._level, self._level_at = level - price, now
            self._space(min(price, bound) / self._rate(bound, now), now)
        return self._mark(amount, now)

    def ended(self, amount: float) -> None:
        """Count a request out, however it ended."""
        self._outstanding = max(0.0, self._outstanding - amount)

    def upstream_failed(self, amount: float, now: float) -> None:
        """Give the slot of a send on which the upstream failed to another. Readings say what is left."""
        bound = self.bound
        if bound is not None and bound > 0 and self.is_observed and not self.is_strict:
            self._spaced_at -= min(amount * self.scale.value, bound) / self._rate(bound, now)

    def not_sent(self, amount: float) -> None:
        """Take back a request that was not sent."""
        self._log.take_back(amount)
        self._late_log.take_back(amount)
        self._level += amount * self.scale.value

    def completed(self, estimated: float, used: float, now: float) -> None:
        """Replace the estimate by what was used. Where answers say what is left, those readings decide."""
        if self.is_observed:
            return
        if used <= estimated:
            self._log.take_back(estimated - used)
        else:
            self._log.add(used - estimated, now)

    # -- learning ---------------------------------------------------------------------------------------------

    def learn(self, reading: Reading, *, mark: Mark, sent_at: float, now: float) -> None:
        """Take what an answer said, read against its own request."""
        before = None if self.bound is None else self._even(self.bound)
        if reading.limit is not None and reading.limit > 0:
            self.limit = reading.limit
        bound = self.bound
        if bound is None or bound <= 0 or reading.remaining is None:
            return
        self._roll(bound, now)
        is_new_window = self._learn_reset(reading, bound, sent_at=sent_at, now=now)
        if before is not None and self._even(bound) > 1.1 * before:
            # What was spaced by a slower pace goes by the new one.
            self._spaced_at = min(self._spaced_at, max(now, self._eased_at) + self._burst(bound) / self._even(bound))
        reset = self.reset
        is_late = sent_at < reset.began_at and not (is_new_window or reset.reads_late)
        if is_late and reset.refill is Refill.FIXED:
            return  # it describes the previous window
        remaining = reading.remaining
        since = self._since(mark.sent)
        if self.allowed is not None and self.limit is not None and self.allowed < self.limit:
            # Our own bound is the lower one: what the provider has left beyond it is not ours.
            remaining = min(remaining, bound - self._window(now) + since)
        refill_rate = self._even(bound) if reset.refill is Refill.BUCKET else 0.0
        if not self._is_requests and reset.refill is Refill.SLIDING:
            self.scale.compare_window(mark.window, bound - remaining, bound=bound)
        elif not self._is_requests:
            self.scale.compare_readings(mark.sent, remaining, sent_at, bound=bound, refill_rate=refill_rate)
        seen = remaining - since + refill_rate * (now - sent_at)
        known = self.level(now) if self.is_observed else None
        if known is not None and mark.sent < self._last_mark and not is_new_window:
            # A reading older than the last one can only lower the level.
            seen = min(seen, known)
        else:
            self._own_share = remaining + mark.window * self.scale.value
            self._own_late_share = remaining + mark.late_window * self.scale.value
        self._level, self._level_at = min(seen, bound), now
        self._last_mark = max(self._last_mark, mark.sent)
        self.is_observed = True
        self._relax(now)

    def rate_limited(self, *, until: float, now: float) -> None:
        """A refusal began: leave others more room, and come back gently after the pause."""
        self.margin = min(WORST_MARGIN, self.margin * 2)
        self._margin_at = now
        bound = self.bound
        if bound is not None and bound > 0:
            self._eased_at = until
            self._spaced_at = max(self._spaced_at, until + self._burst(bound) / self._even(bound))

    def _relax(self, now: float) -> None:
        if self.margin > BASE_MARGIN and now - self._margin_at >= self.reset.window_seconds:
            self.margin = max(BASE_MARGIN, self.margin * 0.7)
            self._margin_at = now

    def _learn_reset(self, reading: Reading, bound: float, *, sent_at: float, now: float) -> bool:
        if reading.reset_seconds is None or reading.remaining is None:
            return False
        return self.reset.learn(reading.reset_seconds, bound - reading.remaining, bound, sent_at=sent_at, now=now)

    # -- the pace ---------------------------------------------------------------------------------------------

    def _until_room(self, price: float, bound: float, now: float) -> float:
        if not self.is_observed:
            return self._log.wait_for((bound - price) / self.scale.value, now)
        level = self.level(now)
        assert level is not None
        short = min(price + self._reserve(bound), bound) - level
        if short <= 1e-9:
            return 0.0
        if self.reset.fixed_at is not None:
            return max(0.0, self.reset.fixed_at - now)
        if self.reset.refill is Refill.SLIDING:
            freed = max(
                log.wait_for(log.total(now) - short / self.scale.value, now) for log in (self._log, self._late_log)
            )
            # Nothing of ours will leave the window: assume that the share of other clients refills evenly.
            return freed if freed > 0 else short / self._even(bound)
        return short / self._even(bound)

    def _until_spaced(self, bound: float, now: float) -> float:
        ahead = self._spaced_at - now
        return max(0.0, ahead - self._burst(bound) / self._even(bound))

    def _space(self, seconds: float, now: float) -> None:
        spaced_at = max(self._spaced_at, now) + seconds
        if self.reset.fixed_at is not None and not self.is_strict:
            # The last of a window is not waited for beyond it.
            spaced_at = min(spaced_at, max(self._spaced_at, self.reset.fixed_at))
        self._spaced_at = spaced_at

    def _reserve(self, bound: float) -> float:
        share = self.margin * bound
        return float(math.floor(share)) if self._is_requests else share

    def _burst(self, bound: float) -> float:
        if self.is_strict:
            return 0.0
        smoothed = self._even(bound) * min(BURST_SECONDS, self.reset.window_seconds / 4)
        return max(LEAST_BURST, smoothed) if self._is_requests else smoothed

    def _even(self, bound: float) -> float:
        return bound / self.reset.window_seconds

    def _rate(self, bound: float, now: float) -> float:
        """Return how fast to spend now: what is left, spread over the time until it comes back."""
        even = self._even(bound)
        if self.is_strict or not self.is_observed:
            return even * self._ease(now)
        level = self.level(now)
        assert level is not None
        room = max(0.0, level - self._reserve(bound))
        if self.reset.fixed_at is not None:
            rate = room / max(self.reset.fixed_at - now, SLACK_SECONDS)
            return min(max(rate, _LEAST * even), _MOST * even)
        return even * (1 + room / bound) * self._ease(now)

    def _ease(self, now: float) -> float:
        return min(1.0, max(0.5, 0.5 + 0.5 * (now - self._eased_at) / EASE_SECONDS))

    def _roll(self, bound: float, now: float) -> None:
        if not self.reset.roll(now):
            return
        # Where requests are counted when they are answered, what is in flight falls into the new window.
        self._level, self._level_at = bound - (self.in_flight if self.reset.reads_late else 0.0), now
        self._last_mark = -1.0
        self.scale.forget()
