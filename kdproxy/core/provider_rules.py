"""The form of a provider's table of limits and errors. The tables themselves are data, in providers/rules_*.py."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from kdproxy.core.limits import LimitHeaders


class Meaning(StrEnum):
    """What an error says of the next attempt."""

    RATE_LIMIT = "rate_limit"
    """Too much, too fast: wait as told, all of the lane."""
    OVERLOAD = "overload"
    """The provider is out of breath, whoever asks: back off, the pace is not to blame."""
    SPENT = "spent"
    """Money or a fixed allowance is gone: no wait helps, somebody has to pay."""
    SPENT_TODAY = "spent_today"
    """The day's allowance is gone: it comes back by itself, but not soon."""
    CREDENTIAL = "credential"
    """The key is not, or no longer, good."""
    FINAL = "final"
    """The request itself: the same one will never be answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One kind of error. All that is given must fit; the first row that fits speaks."""

    meaning: Meaning
    source: str
    """Where it is documented or was seen, with the date of reading."""
    statuses: frozenset[int] = frozenset()
    """Empty: any."""
    names: frozenset[str] = frozenset()
    """Types, codes, statuses or reasons in the body, of which one must be there."""
    message: re.Pattern[str] | None = None
    quota: re.Pattern[str] | None = None
    """Searched in the names of the violated quotas (google.rpc.QuotaFailure)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What is known of one provider."""

    name: str
    hosts: tuple[str, ...] = ()
    """Ends of host names."""
    limits: tuple[LimitHeaders, ...] = ()
    rows: tuple[Row, ...] = ()
    is_strict: bool = False
    """Enforces a minute's limit in windows of seconds: send evenly."""
    finds_rate: bool = True
    """False where a refusal means too many at once, not too many a minute."""
    daily_reset: Callable[[float], float] | None = None
    """From now to the moment when a day's allowance comes back, both in UTC Unix seconds."""
    event_statuses: Mapping[str, int] = field(default_factory=dict)
    """Statuses of errors that come as an event inside a 200 stream, by type."""
