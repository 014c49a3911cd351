"""A provider's limits, and how to read them from an answer's headers. Pure data, no clock.

Sources: platform.openai.com/docs/guides/rate-limits, docs.claude.com/en/api/rate-limits (read 2026-11).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from kdproxy.core.duration import number_of, wait_of
from kdproxy.core.models import Headers


class Dimension(StrEnum):
    """What is counted."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"


SECOND = 1.0
MINUTE = 60.0
DAY = 86_400.0
MONTH = 30 * DAY

PERIODS = {"second": SECOND, "minute": MINUTE, "day": DAY, "month": MONTH}
_PERIOD_NAMES = {seconds: name for name, seconds in PERIODS.items()}

LONGEST_PACED = 3_600.0


class Quota(NamedTuple):
    """One limit: an amount of a dimension per number of seconds."""

    dimension: Dimension
    window_seconds: float = MINUTE

    @property
    def is_paced(self) -> bool:
        """Whether requests are spread over its window. A daily quota is not paced: the provider reports its end."""
        return self.window_seconds <= LONGEST_PACED

    @property
    def name(self) -> str:
        """Its name in the configuration and in `stats`, such as `requests_per_minute`."""
        period = _PERIOD_NAMES.get(self.window_seconds, f"{self.window_seconds:g}_seconds")
        return f"{self.dimension}_per_{period}"


QUOTAS = {
    quota.name: quota
    for dimension in Dimension
    for seconds in PERIODS.values()
    for quota in (Quota(dimension, seconds),)
}
"""The quotas that a configuration can name."""


class Reading(NamedTuple):
    """What one answer says about one quota; None for what it leaves out."""

    quota: Quota
    limit: float | None = None
    remaining: float | None = None
    reset_seconds: float | None = None
    """Seconds from the arrival of the answer."""

    @property
    def is_exhausted(self) -> bool:
        """Whether nothing remains of a limit that is not zero."""
        return self.remaining is not None and self.remaining <= 0 and self.limit != 0

    @property
    def has_no_allowance(self) -> bool:
        """Whether the limit itself is zero, so that waiting does not help (Mistral: a model without a subscription)."""
        return self.limit == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitHeaders:
    """The headers in which a provider reports one quota. Names are in lower case."""

    quota: Quota
    limit: str
    remaining: str
    reset: str | None = None
    is_zero_unknown: bool = False
    """Whether a 0 means "not known" (Azure)."""


def read(headers: Headers, rows: Iterable[LimitHeaders], *, now: float) -> tuple[Reading, ...]:
    """Return what an answer says about its limits; for each quota the first row with a value counts.

    Args:
        now: UTC Unix seconds, for resets given as a timestamp.
    """
    found: dict[Quota, Reading] = {}
    for row in rows:
        if not (row.limit in headers or row.remaining in headers) or row.quota in found:
            continue
        limit = number_of(headers.get(row.limit))
        remaining = number_of(headers.get(row.remaining))
        if row.is_zero_unknown:
            limit, remaining = limit or None, remaining or None
        if limit is None and remaining is None:
            continue
        reset = None if row.reset is None else wait_of(headers.get(row.reset), now=now)
        found[row.quota] = Reading(quota=row.quota, limit=limit, remaining=remaining, reset_seconds=reset)
    return tuple(found.values())


def exhausted(readings: Iterable[Reading]) -> Reading | None:
    """Return the reading that explains a refusal: the exhausted quota; of several, the one that resets last."""
    found = [reading for reading in readings if reading.is_exhausted]
    return max(found, key=lambda reading: reading.reset_seconds or 0.0, default=None)


class Cost(NamedTuple):
    """A request's cost in each dimension: an estimate before it is sent, the provider's count afterwards."""

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


Allowance = Mapping[Quota, float]
"""Configured limits by quota."""
