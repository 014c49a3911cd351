"""What an upstream's answer means for the next attempt, and how long the provider asked to wait. Pure.

tenacity decides when to stop, the lane decides how long everybody waits; this decides what an answer says.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from kdproxy.core.models import Headers

RETRIED_STATUSES = frozenset({408, 409, 429, 500, 502, 503, 504, 529})
"""As the official clients retry them; 529 is Anthropic's overload."""

_SPENT_QUOTA = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "enforced_spend_limit_reached",
        "billing_not_active",
        "billing_hard_limit_reached",
    }
)
"""Error types and codes that waiting does not mend (OpenAI error codes, Anthropic errors; read 2026-11)."""


@dataclass(frozen=True, slots=True)
class Final:
    """The answer goes to the client as it is. `is_fatal`: a client's own retry would be refused too."""

    is_fatal: bool = False


@dataclass(frozen=True, slots=True)
class Again:
    """Worth another attempt, not before `floor_seconds` (None: the provider did not say)."""

    floor_seconds: float | None
    is_rate_limit: bool


Verdict = Final | Again


def judge(status: int, headers: Headers, body: bytes, *, now: float) -> Verdict:
    """Say what an error status means.

    Args:
        now: UTC Unix seconds, for waits given as a date.
    """
    if status not in RETRIED_STATUSES:
        return Final()
    if status in (402, 403, 429) and is_spent_quota(body):
        return Final(is_fatal=True)
    if headers.get("x-should-retry", "").lower() == "false":
        return Final()
    return Again(asked_wait(headers, now=now), is_rate_limit=status == 429)


def is_spent_quota(body: bytes) -> bool:
    """Whether an error body names a spent quota."""
    try:
        members = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    error = members.get("error") if isinstance(members, dict) else None
    if not isinstance(error, dict):
        return False
    details = error.get("details")
    found: list[Any] = [error.get("type"), error.get("code")]
    if isinstance(details, Mapping):
        found.append(details.get("error_code"))
    return any(isinstance(name, str) and name in _SPENT_QUOTA for name in found)


def asked_wait(headers: Headers, *, now: float) -> float | None:
    """Return the seconds that a provider asked to wait: `retry-after-ms` before `retry-after` (RFC 9110 10.2.3)."""
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        milliseconds = _number(headers.get(name))
        if milliseconds is not None:
            return milliseconds / 1000
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is not None or value is None:
        return seconds
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.fromtimestamp(now, UTC)).total_seconds())


def backoff_seconds(attempt: int, *, jitter: float, base_seconds: float = 0.5, cap_seconds: float = 30.0) -> float:
    """Full jitter (AWS architecture blog, 2015): anywhere between 0 and the doubling bound.

    Args:
        attempt: how many have failed, from 1.
        jitter: uniform in [0, 1).
    """
    return jitter * min(cap_seconds, base_seconds * 2.0 ** min(attempt, 32))


def wait_seconds(verdict: Again, attempt: int, *, jitter: float) -> float:
    """Return how long to wait: what the provider asked is a floor, jitter comes above it."""
    return (verdict.floor_seconds or 0.0) + backoff_seconds(attempt, jitter=jitter)


def _number(value: str | None) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
