"""What a provider's limits are and how much of one is left: readings from headers, and a meter per limit. Pure.

A meter answers one question: how long until a request of this cost fits. Sources: platform.openai.com/docs/guides/rate-limits,
docs.claude.com/en/api/rate-limits, learn.microsoft.com Azure OpenAI quota (read 2026-11).
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto


class Dimension(StrEnum):
    """What is counted."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"


MINUTE_SECONDS = 60.0
DAY_SECONDS = 86_400.0
MONTH_SECONDS = 30 * DAY_SECONDS


@dataclass(frozen=True, slots=True)
class Quota:
    """One limit: so much of a dimension in so many seconds."""

    dimension: Dimension
    window_seconds: float = MINUTE_SECONDS

    @property
    def is_paced(self) -> bool:
        """Whether sends are spread over it. A day's quota is spent as fast as it is wanted, then the provider speaks."""
        return self.window_seconds <= 3_600.0

    @property
    def name(self) -> str:
        """As it is written in the configuration and in `stats`."""
        period = {MINUTE_SECONDS: "minute", DAY_SECONDS: "day", MONTH_SECONDS: "month", 1.0: "second"}
        return f"{self.dimension}_per_{period.get(self.window_seconds, f'{self.window_seconds:g}_seconds')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one answer said of one quota; None where it said nothing."""

    quota: Quota
    limit: float | None = None
    remaining: float | None = None
    reset_seconds: float | None = None
    """From the moment when the answer came."""

    @property
    def is_exhausted(self) -> bool:
        """Whether nothing is left of a real limit. A limit of 0 or less is a way to say "not known" (Azure)."""
        return self.remaining == 0 and (self.limit is None or self.limit > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a request takes of each dimension: an estimate before it is sent, the provider's count afterwards."""

    input_tokens: float = 0.0
    output_tokens: float = 0.0

    def of(self, dimension: Dimension) -> float:
        """Return the cost in one dimension."""
        match dimension:
            case Dimension.REQUESTS:
                return 1.0
            case Dimension.TOKENS:
                return self.input_tokens + self.output_tokens
            case Dimension.INPUT_TOKENS:
                return self.input_tokens
            case Dimension.OUTPUT_TOKENS:
                return self.output_tokens


class Refill(Enum):
    """How a limit comes back."""

    ROLLING = auto()
    """Bit by bit: a token bucket or a sliding window. `reset` says when it is full, and moves on with time."""
    FIXED = auto()
    """All at once, at `reset`, which stands still meanwhile."""


@dataclass(slots=True)
class Trail:
    """What was sent in the last window: a sliding log in bins of 1/240 of it."""

    window_seconds: float
    total: float = 0.0
    _bins: deque[list[float]] = field(default_factory=deque)

    def add(self, amount: float, now: float) -> None:
        """Count a send; a negative amount takes some of the newest back."""
        self.forget(now)
        self.total = max(0.0, self.total + amount)
        width = self.window_seconds / 240
        if self._bins and (amount < 0 or now < self._bins[-1][0] + width):
            self._bins[-1][1] += amount
        else:
            self._bins.append([now, amount])

    def forget(self, now: float) -> None:
        """Drop what has left the window. A bin leaves when its youngest send does."""
        width = self.window_seconds / 240
        while self._bins and self._bins[0][0] + width + self.window_seconds <= now:
            self.total = max(0.0, self.total - self._bins.popleft()[1])
        if not self._bins:
            self.total = 0.0

    def wait_for(self, room: float, now: float) -> float:
        """Return the seconds until the total has come down to `room`."""
        self.forget(now)
        left = self.total
        width = self.window_seconds / 240
        for start, amount in self._bins:
            if left <= room:
                break
            left -= amount
            if left <= room:
                return max(0.0, start + width + self.window_seconds - now)
        return 0.0


def exhausted(readings: Mapping[Quota, Reading]) -> Reading | None:
    """Return the reading that explains a refusal: the exhausted one, the longest to come back if there are several."""
    found = [reading for reading in readings.values() if reading.is_exhausted]
    return max(found, key=lambda reading: reading.reset_seconds or 0.0, default=None)
