"""When and how a quota refills, inferred from how its resets change over time. Pure.

One header name means three things. The reset of a fixed window is a moment that stays. That of a token bucket is when
it will be full, that of a sliding window when the newest send leaves it: both move with time.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

SLACK_SECONDS = 0.05
_FIT_SHARE = 0.02
_FIT_SECONDS = 0.5


class Refill(StrEnum):
    """How a quota comes back."""

    BUCKET = "bucket"
    """Bit by bit, evenly. Its reset says when it is full: OpenAI, Anthropic."""
    SLIDING = "sliding"
    """Bit by bit, as what was sent a window ago leaves it. Its reset moves on with time."""
    FIXED = "fixed"
    """All at once, at a reset that stands still until then."""


@dataclass(slots=True)
class Reset:
    """The reset of one quota. Times are monotonic."""

    nominal_seconds: float
    """The window's length by its name."""
    is_whole: bool
    """Whether `remaining` is a whole number of what is counted (requests)."""
    refill: Refill = Refill.BUCKET
    at: float | None = None
    began_at: float = -math.inf
    """When the present window began, as far as is known."""
    reads_late: bool = False
    """Whether readings are known to be taken when an answer goes out, not when its request comes in."""
    _reads_early: bool = False
    """The other way round."""
    _true_seconds: float | None = None
    _reference: tuple[float, float, float] | None = None
    """When an earlier reading was asked for, came, and its reset in seconds."""

    @property
    def window_seconds(self) -> float:
        """How long the window is, as far as is known."""
        return self._true_seconds or self.nominal_seconds

    @property
    def fixed_at(self) -> float | None:
        """When a fixed window ends; None for the other kinds."""
        return self.at if self.refill is Refill.FIXED else None

    def has_passed(self, now: float) -> bool:
        """Whether by the last reading all must be back."""
        return self.at is not None and now >= self.at

    def roll(self, now: float) -> bool:
        """Begin the next window where a fixed one has passed; say whether that was so."""
        if self.refill is not Refill.FIXED or self.at is None or now < self.at:
            return False
        passed = math.floor((now - self.at) / self.window_seconds)
        self.began_at = self.at + passed * self.window_seconds
        self.at = self.began_at + self.window_seconds
        return True

    def learn(self, seconds: float, used: float, bound: float, *, sent_at: float, now: float) -> bool:
        """Take a reset; say whether it shows a new window.

        Args:
            seconds: from when the answer came.
            used: what the same answer said was gone of `bound`.
            sent_at: when its request went out.
        """
        is_bucket = self._fits_bucket(seconds, used, bound)
        if self._reference is None or (self.refill is Refill.BUCKET and not is_bucket):
            # What was taken for a bucket may only have been nearly full.
            self.refill = Refill.BUCKET if is_bucket else Refill.FIXED
            self._reference = (sent_at, now, seconds)
        else:
            self._infer(seconds, sent_at, now, is_bucket=is_bucket)
        # Whole seconds may have been rounded down.
        slack = 1.0 if seconds >= 1 and float(seconds).is_integer() else SLACK_SECONDS
        latest = (sent_at if self._reads_early else now) + seconds + slack
        if self.refill is not Refill.FIXED or self.at is None:
            is_first, self.at = self.at is None, latest
            return is_first
        return self._place(self.at, sent_at + seconds, latest, sent_at)

    def _place(self, known: float, earliest: float, latest: float, sent_at: float) -> bool:
        window = self.window_seconds
        is_new = latest >= known + window / 2
        if -math.inf < self.began_at <= sent_at and latest <= known - window / 4:
            # This window ends long before one of the length that its name says: Azure, gateways and tests do so.
            self._true_seconds = max(latest - self.began_at, SLACK_SECONDS)
        elif is_new and self._true_seconds is not None:
            self._true_seconds = min(self.nominal_seconds, latest - self.began_at)
        # The provider read the quota between sending and answer: the moment lies between these two.
        self.at = latest if is_new else min(max(known, earliest), latest)
        return is_new

    def _fits_bucket(self, seconds: float, used: float, bound: float) -> bool:
        even = bound / self.window_seconds
        tolerance = _FIT_SHARE * self.window_seconds + _FIT_SECONDS + (1 / even if self.is_whole else 0.0)
        return abs(seconds - used / even) <= tolerance

    def _infer(self, seconds: float, sent_at: float, now: float, *, is_bucket: bool) -> None:
        """Infer the refill; the clock on which a reset stands still also shows when the provider reads the quota."""
        assert self._reference is not None  # the first reading has set it
        sent_before, came_before, seconds_before = self._reference
        since_sent, since_came = sent_at - sent_before, now - came_before
        if min(since_sent, since_came) < self.window_seconds / 12:
            return
        self._reference = (sent_at, now, seconds)
        if seconds - seconds_before + max(since_sent, since_came) >= self.window_seconds / 2:
            return  # the next window, or a long silence
        moved_sent = abs(since_sent + seconds - seconds_before) / since_sent
        moved_came = abs(since_came + seconds - seconds_before) / since_came
        if min(moved_sent, moved_came) >= 0.5:
            # An empty bucket looks like a sliding window, but no window ever looks like a bucket half full.
            has_slid = self.refill is Refill.SLIDING or not is_bucket
            self.refill = Refill.SLIDING if has_slid else Refill.BUCKET
            return
        self.refill = Refill.FIXED
        if abs(moved_came - moved_sent) * self.window_seconds / 12 > 1.0:
            self.reads_late = moved_came < moved_sent
            self._reads_early = not self.reads_late
