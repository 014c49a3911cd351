"""The meter of one quota: how long until a request of some cost fits, from what answers said and what was sent. Pure.

A provider's `remaining` is a look into the past: the request that brought it was admitted before others that are
under way by now. So every send moves a mark, an answer is read against the mark of its own request, and what was sent
since is taken off. `now` is a monotonic time throughout, never the wall clock.
"""

import math
from dataclasses import dataclass, field
from enum import StrEnum

from kdproxy.core.limits import Dimension, Quota, Reading
from kdproxy.core.pace_trail import Trail

BURST_SECONDS = 5.0
"""Sends are smoothed over this long: providers enforce a minute's limit in windows of 1 to 10 s (Azure says so)."""
LEAST_BURST = 4.0
"""Requests that may go at once however low the limit is."""
BASE_MARGIN = 0.01
WORST_MARGIN = 0.2
EASE_SECONDS = 5.0
"""After a refusal the pace comes back from half to full in this time."""
_LEAST, _MOST = 0.05, 4.0
"""Bounds of the pace, as multiples of the even one."""
_LEAST_SCALE = 0.05
_SLACK_SECONDS = 0.05


class Refill(StrEnum):
    """How a quota comes back."""

    BUCKET = "bucket"
    """Bit by bit, evenly. Its reset says when it is full: OpenAI, Anthropic."""
    SLIDING = "sliding"
    """Bit by bit, as what was sent a window ago leaves it. Its reset moves on with time."""
    FIXED = "fixed"
    """All at once, at a reset that stands still until then."""


@dataclass(frozen=True, slots=True)
class Mark:
    """How a meter stood when a request was sent, itself included."""

    sent: float
    """All that was ever sent, by estimate."""
    window: float
    """What was sent in the last window."""


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
    refill: Refill = Refill.BUCKET
    margin: float = BASE_MARGIN
    """Share of the limit that is left to others: it grows with refusals."""
    scale: float = 1.0
    """What the provider counts per unit of our estimate."""
    reset_at: float | None = None
    is_observed: bool = False
    """Whether an answer has said what is left."""
    _level: float = 0.0
    _level_at: float = 0.0
    _sent: float = 0.0
    _spaced_at: float = 0.0
    _eased_at: float = -math.inf
    _margin_at: float = 0.0
    _window_from: float = -math.inf
    _window_seconds: float | None = None
    """How long a fixed window is in truth, where its resets show that it is shorter than its name says."""
    _last_mark: float = -1.0
    _own_share: float = 0.0
    """Of a sliding window: what the neighbours leave to us of it."""
    _point: tuple[float, float, float] | None = None
    """Mark, remaining and time of the last reading, to calibrate by."""
    _flying: float = 0.0
    """What is in flight, by estimate."""
    _looks_late: bool = False
    """Whether readings are known to be taken when an answer goes out, not when its request comes in."""
    _looks_early: bool = False
    """The other way round."""
    _reference: tuple[float, float, float] | None = None
    """When an earlier reading was asked for, came, and its reset in seconds: to tell how the quota comes back."""
    _trail: Trail = field(init=False)

    def __post_init__(self) -> None:
        self._trail = Trail(self.quota.window_seconds)

    @property
    def window_seconds(self) -> float:
        """How long the limit's window is, as far as is known."""
        return self._window_seconds or self.quota.window_seconds

    @property
    def bound(self) -> float | None:
        """The limit that counts."""
        if self.limit is None or self.allowed is None:
            return self.allowed if self.limit is None else self.limit
        return min(self.limit, self.allowed)

    @property
    def mark(self) -> Mark:
        """How it stands now."""
        return Mark(self._sent, self._trail.held)

    def level(self, now: float) -> float | None:
        """Return how much is left, as far as is known; None without a limit."""
        bound = self.bound
        if bound is None:
            return None
        if not self.is_observed:
            return max(0.0, bound - self._trail.total(now))
        self._roll(bound, now)
        if self.refill is Refill.FIXED:
            return self._level
        if self.refill is Refill.BUCKET:
            left = self._level + self._even(bound) * (now - self._level_at)
        else:
            left = self._own_share - self._trail.total(now)
        if self.reset_at is not None and now >= self.reset_at:
            # Whatever kind it is: by its reset all of it is back.
            left = max(left, bound - (self._sent - self._last_mark))
        return min(bound, left)

    # -- asking -----------------------------------------------------------------------------------------------

    def wait(self, amount: float, now: float) -> float:
        """Return the seconds until a request of this estimated cost fits."""
        bound = self.bound
        if bound is None or bound <= 0:
            return 0.0
        # What is larger than the whole limit goes when all of it is free: the provider will say that it is too large.
        price = min(amount * self.scale, bound)
        return max(self._until_room(price, bound, now), self._until_spaced(bound, now))

    def take(self, amount: float, now: float) -> Mark:
        """Count a send; return the mark to read its answer against."""
        price = amount * self.scale
        self._trail.add(price, now)
        self._sent += price
        self._flying += price
        bound = self.bound
        if bound is not None and bound > 0:
            level = self.level(now)
            assert level is not None
            if self.is_observed:
                self._level, self._level_at = level - price, now
            self._spaced_at = max(self._spaced_at, now) + min(price, bound) / self._rate(bound, now)
        return self.mark

    def land(self, amount: float) -> None:
        """A sent request has ended, however."""
        self._flying = max(0.0, self._flying - amount * self.scale)

    def give_back(self, amount: float) -> None:
        """Take a send back that never went out."""
        price = amount * self.scale
        self._trail.take_back(price)
        self._level += price

    def settle(self, estimated: float, used: float, now: float) -> None:
        """Put what was used in the place of the estimate. Where answers say what is left, they are the truth."""
        if self.is_observed:
            if self.refill is Refill.SLIDING and estimated > 0 and self.quota.dimension is not Dimension.REQUESTS:
                # Its readings cannot tell what is counted per request, so what was used has to.
                self.scale = min(_MOST, max(_LEAST_SCALE, 0.95 * self.scale + 0.05 * used / estimated))
        elif used <= estimated:
            self._trail.take_back(estimated - used)
        else:
            self._trail.add(used - estimated, now)

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
        is_new_window = self._learn_reset(reading, bound, sent_at, now)
        if before is not None and self._even(bound) > 1.1 * before:
            # What was spaced by a slower pace goes by the new one.
            self._spaced_at = min(self._spaced_at, max(now, self._eased_at) + self._burst(bound) / self._even(bound))
        if self.refill is Refill.FIXED and not (is_new_window or self._looks_late) and sent_at < self._window_from:
            return  # it speaks of the window before
        remaining = reading.remaining
        since = self._sent - mark.sent
        if self.allowed is not None and self.limit is not None and self.allowed < self.limit:
            # Our own bound is the lower one: what the provider has left beyond it is not ours.
            remaining = min(remaining, bound - self._trail.total(now) + since)
        self._calibrate(mark.sent, remaining, sent_at, bound)
        seen = remaining - since
        if self.refill is Refill.BUCKET:
            seen += self._even(bound) * (now - sent_at)
        known = self.level(now) if self.is_observed else None
        if known is not None and mark.sent < self._last_mark and not is_new_window:
            # An older look than the last one can only warn.
            seen = min(seen, known)
        else:
            self._own_share = remaining + mark.window
        self._level, self._level_at = min(seen, bound), now
        self._last_mark = max(self._last_mark, mark.sent)
        self.is_observed = True
        self._relax(now)

    def refuse(self, *, until: float, now: float) -> None:
        """A refusal began: leave others more room, and come back gently after the pause."""
        self.margin = min(WORST_MARGIN, self.margin * 2)
        self._margin_at = now
        bound = self.bound
        if bound is not None and bound > 0:
            self._eased_at = until
            self._spaced_at = max(self._spaced_at, until + self._burst(bound) / self._even(bound))

    def _relax(self, now: float) -> None:
        if self.margin > BASE_MARGIN and now - self._margin_at >= self.window_seconds:
            self.margin = max(BASE_MARGIN, self.margin * 0.7)
            self._margin_at = now

    def _learn_reset(self, reading: Reading, bound: float, sent_at: float, now: float) -> bool:
        """Place the reset, and tell a window from a bucket by whether its reset stands still."""
        if reading.reset_seconds is None or reading.remaining is None:
            return False
        window = self.window_seconds
        reset_at = now + reading.reset_seconds
        # A bucket says when it will be full, and a nearly full one is so at once.
        until_full = (bound - reading.remaining) / self._even(bound)
        tolerance = 0.02 * window + 0.5
        if self.quota.dimension is Dimension.REQUESTS:
            tolerance += 1 / self._even(bound)  # `remaining` is a whole number
        is_bucket = abs(reading.reset_seconds - until_full) <= tolerance
        if self._reference is None or (self.refill is Refill.BUCKET and not is_bucket):
            # What was taken for a bucket may only have been nearly full.
            self.refill = Refill.BUCKET if is_bucket else Refill.FIXED
            self._reference = (sent_at, now, reading.reset_seconds)
        else:
            self._tell_refill(reading.reset_seconds, sent_at, now, is_bucket=is_bucket)
        # Whole seconds may have been rounded down.
        slack = 1.0 if reading.reset_seconds >= 1 and reading.reset_seconds.is_integer() else _SLACK_SECONDS
        latest = (sent_at + reading.reset_seconds if self._looks_early else reset_at) + slack
        if self.refill is not Refill.FIXED or self.reset_at is None:
            is_new, self.reset_at = self.reset_at is None, latest
            return is_new
        is_new = latest >= self.reset_at + window / 2
        began = self._window_from
        if -math.inf < began <= sent_at and latest <= self.reset_at - window / 4:
            # This window ends long before one of the length that its name says: Azure, gateways and tests do so.
            self._window_seconds = max(latest - began, _SLACK_SECONDS)
        elif is_new and self._window_seconds is not None:
            self._window_seconds = min(self.quota.window_seconds, latest - began)
        # The look that it reports was taken between sending and answer: the moment lies between these two.
        self.reset_at = latest if is_new else min(max(self.reset_at, sent_at + reading.reset_seconds), latest)
        return is_new

    def _tell_refill(self, reset_seconds: float, sent_at: float, now: float, *, is_bucket: bool) -> None:
        """A window's reset is a moment that stands still; on which of two clocks tells when the provider looks."""
        assert self._reference is not None  # the first reading has set it
        window = self.window_seconds
        sent_before, came_before, reset_before = self._reference
        since_sent, since_came = sent_at - sent_before, now - came_before
        if min(since_sent, since_came) < window / 12:
            return
        self._reference = (sent_at, now, reset_seconds)
        if reset_seconds - reset_before + max(since_sent, since_came) >= window / 2:
            return  # the next window, or a long silence
        moved_sent = abs(since_sent + reset_seconds - reset_before) / since_sent
        moved_came = abs(since_came + reset_seconds - reset_before) / since_came
        if min(moved_sent, moved_came) < 0.5:
            self.refill = Refill.FIXED
        else:
            # An empty bucket looks like a sliding window, but no window ever looks like a bucket half full.
            has_slid = self.refill is Refill.SLIDING or not is_bucket
            self.refill = Refill.SLIDING if has_slid else Refill.BUCKET
        if self.refill is Refill.FIXED and abs(moved_came - moved_sent) * window / 12 > 1.0:
            self._looks_late = moved_came < moved_sent
            self._looks_early = moved_sent < moved_came

    def _calibrate(self, mark: float, remaining: float, sent_at: float, bound: float) -> None:
        """Learn what the provider counts for what we estimate (it may count max_tokens, or words, or neighbours)."""
        before, self._point = self._point, (mark, remaining, sent_at)
        is_counted_whole = self.quota.dimension is Dimension.REQUESTS
        # What a sliding window gets back meanwhile is not known.
        if is_counted_whole or before is None or remaining >= 0.95 * bound or self.refill is Refill.SLIDING:
            return
        estimated = mark - before[0]
        dropped = before[1] - remaining
        if self.refill is Refill.BUCKET:
            dropped += self._even(bound) * (sent_at - before[2])
        if estimated <= 0 or dropped <= 0:
            return
        weight = min(0.3, estimated * 20 / bound)
        self.scale = min(_MOST, max(_LEAST_SCALE, self.scale * (1 + weight * (min(_MOST, dropped / estimated) - 1))))

    # -- the pace ---------------------------------------------------------------------------------------------

    def _until_room(self, price: float, bound: float, now: float) -> float:
        if not self.is_observed:
            return self._trail.wait_for(bound - price, now)
        level = self.level(now)
        assert level is not None
        short = min(price + self._reserve(bound), bound) - level
        if short <= 1e-9:
            return 0.0
        if self.refill is Refill.FIXED and self.reset_at is not None:
            return max(0.0, self.reset_at - now)
        if self.refill is Refill.SLIDING:
            freed = self._trail.wait_for(self._trail.total(now) - short, now)
            # Where nothing of ours will leave, time must: the neighbours' part is guessed to come back evenly.
            return freed if freed > 0 else short / self._even(bound)
        return short / self._even(bound)

    def _until_spaced(self, bound: float, now: float) -> float:
        ahead = self._spaced_at - now
        return max(0.0, ahead - self._burst(bound) / self._even(bound))

    def _reserve(self, bound: float) -> float:
        share = self.margin * bound
        return float(math.floor(share)) if self.quota.dimension is Dimension.REQUESTS else share

    def _burst(self, bound: float) -> float:
        if self.is_strict:
            return 0.0
        smoothed = self._even(bound) * min(BURST_SECONDS, self.window_seconds / 4)
        return max(LEAST_BURST, smoothed) if self.quota.dimension is Dimension.REQUESTS else smoothed

    def _even(self, bound: float) -> float:
        return bound / self.window_seconds

    def _rate(self, bound: float, now: float) -> float:
        """Return how fast to spend now: what is left, spread over the time until it comes back."""
        even = self._even(bound)
        if self.is_strict or not self.is_observed:
            return even * self._ease(now)
        level = self.level(now)
        assert level is not None
        room = max(0.0, level - self._reserve(bound))
        if self.refill is Refill.FIXED and self.reset_at is not None:
            rate = room / max(self.reset_at - now, _SLACK_SECONDS)
            return min(max(rate, _LEAST * even), _MOST * even)
        return even * (1 + room / bound) * self._ease(now)

    def _ease(self, now: float) -> float:
        return min(1.0, max(0.5, 0.5 + 0.5 * (now - self._eased_at) / EASE_SECONDS))

    def _roll(self, bound: float, now: float) -> None:
        """Begin the next window where a fixed one has passed."""
        if self.refill is not Refill.FIXED or self.reset_at is None or now < self.reset_at:
            return
        window = self.window_seconds
        passed = math.floor((now - self.reset_at) / window)
        self._window_from = self.reset_at + passed * window
        self.reset_at = self._window_from + window
        # Where requests are counted when they are answered, what is in flight falls into the new window.
        self._level, self._level_at = bound - (self._flying if self._looks_late else 0.0), now
        self._last_mark = -1.0
        self._point = None
