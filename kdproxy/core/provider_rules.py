"""Types of a provider's table of limits and errors. The tables themselves are data, in providers/rules_*.py."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from kdproxy.core.limits import LimitHeaders


class Meaning(StrEnum):
    """What an error means for the next attempt."""

    RATE_LIMIT = "rate_limit"
    """A rate limit: the whole lane waits as long as the provider says."""
    OVERLOAD = "overload"
    """The provider is overloaded for everyone: back off, but keep the pace."""
    SPENT = "spent"
    """The credit or a fixed allowance is spent: waiting does not help, the account must be paid."""
    SPENT_TODAY = "spent_today"
    """The daily allowance is spent: it resets by itself, but not soon."""
    CREDENTIAL = "credential"
    """The credential is invalid or has expired."""
    FINAL = "final"
    """The request is at fault: the same request will never be answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One kind of error. All given conditions must match; the first matching row applies."""

    meaning: Meaning
    source: str
    """Where it is documented or was observed, with the date of reading."""
    statuses: frozenset[int] = frozenset()
    """Empty: any."""
    names: frozenset[str] = frozenset()
    """Types, codes, statuses or reasons in the body; one of them must be present."""
    message: re.Pattern[str] | None = None
    quota: re.Pattern[str] | None = None
    """Searched in the names of the violated quotas (google.rpc.QuotaFailure)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What is known about one provider."""

    name: str
    hosts: tuple[str, ...] = ()
    """Suffixes of host names."""
    limits: tuple[LimitHeaders, ...] = ()
    rows: tuple[Row, ...] = ()
    is_strict: bool = False
    """Whether it enforces a per-minute limit in windows of seconds, so that requests must be spread evenly."""
    finds_rate: bool = True
    """False if a refusal means too many concurrent requests, not too many per minute."""
    daily_reset: Callable[[float], float] | None = None
    """From now to the reset of a daily allowance, both in UTC Unix seconds."""
    event_statuses: Mapping[str, int] = field(default_factory=dict)
    """Statuses, by type, of errors that arrive as an event inside a 200 stream."""
    limit_names: frozenset[str] = field(init=False, repr=False, compare=False)
    """Headers that say a limit or what remains of it, in lower case: most answers have none of them."""

    def __post_init__(self) -> None:
        names = frozenset(name for row in self.limits for name in (row.limit, row.remaining))
        object.__setattr__(self, "limit_names", names)  # frozen: a derived field can only be set this way
