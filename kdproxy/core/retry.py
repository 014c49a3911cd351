"""What an answer means for the next attempt: done, retry after a wait, give up, or park the lane. Pure.

The tables are providers/rules_*.py. If no row matches, the status decides, as in the official clients. The wait that a
provider asks for is a minimum. Its sources, best first: `retry-after-ms`, `retry-after` (RFC 9110 section 10.2.3), a
hint in the body, the reset of the exhausted dimension (not the longest reset).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from kdproxy.core import attempt_outcome, limits
from kdproxy.core.attempt_outcome import FailureClass
from kdproxy.core.duration import Unit, duration_of, number_of, wait_of
from kdproxy.core.error_body import ErrorFacts, facts_of
from kdproxy.core.limits import Reading
from kdproxy.core.models import Headers
from kdproxy.core.provider_rules import Meaning, Row, Rules
from kdproxy.core.sniff import is_html

FINAL_NAMES = frozenset(
    {
        "content_filter",
        "content_policy_violation",
        "context_length_exceeded",
        "invalid_prompt",
        "invalid_request_error",
        "model_not_found",
        "string_above_max_length",
        "unsupported_parameter",
        "unsupported_value",
    }
)
"""Errors without a status for which the request is at fault (platform.openai.com/docs/guides/error-codes, 2026-11)."""

SPENT_NAMES = frozenset(
    {
        "billing_hard_limit_reached",
        "billing_not_active",
        "credit_balance_exhausted",
        "credit_balance_too_low",
        "insufficient_quota",
        "organization_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "project_spend_limit_exceeded",
    }
)
"""Of errors that no waiting fixes: the account has no money or quota left (OpenAI's and Anthropic's error pages,
2026-11)."""

COMMON_ROWS = (
    Row(meaning=Meaning.SPENT, names=SPENT_NAMES, source="platform.openai.com/docs/guides/error-codes, read 2026-11"),
    Row(meaning=Meaning.SPENT, statuses=frozenset({402}), source="RFC 9110 section 15.5.3"),
    Row(meaning=Meaning.CREDENTIAL, statuses=frozenset({401}), source="RFC 9110 section 15.5.2"),
)
"""Errors with the same meaning from every provider: the only rows for an upstream without its own rules."""

PARK_FROM_SECONDS = 900.0
"""A daily or monthly allowance that resets later than this parks the lane instead of pausing it."""
LONGEST_WAIT_SECONDS = 3_600.0
"""Upper bound of a wait: whatever a header says, one request is sent as a probe after an hour."""

BASE_DELAY_SECONDS = 0.05
LONGEST_DELAY_SECONDS = 20.0
"""AWS SDK standard retry mode (2026-11-10): 50 ms base, doubling, full jitter, 20 s at most."""


@dataclass(frozen=True, slots=True)
class Done:
    """An answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """Retry, not before `floor_seconds` (None: the provider gave no wait)."""

    floor_seconds: float | None = None
    is_rate_limit: bool = False
    reason: str = ""
    failure: FailureClass = FailureClass.REFUSED
    """What the attempt may have cost."""
    is_overload: bool = False
    """Whether the upstream's state is the cause, independent of the request."""
    is_page: bool = False
    """Whether the answer is an HTML page, so it does not come from a model server."""
    is_complete: bool = False
    """Whether the upstream responded in full (so it is up) with an incomplete answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """The answer goes to the client unchanged. `is_credential`: the credential is bad, so every request would fail."""

    reason: str = ""
    is_credential: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Park:
    """The lane is stopped for every request: fail fast or hold, by the upstream's policy."""

    reason: str
    wait_seconds: float | None = None
    """When the allowance resets by itself; None: only after a payment."""


Verdict = Done | Again | GiveUp | Park


def judge(
    status: int, headers: Headers, body: bytes, rules: Rules, readings: Iterable[Reading] = (), *, now: float
) -> Verdict:
    """Return what an answer means for the next attempt.

    Args:
        now: UTC Unix seconds, for waits given as a timestamp.
    """
    if status < 400:
        return Done()
    facts = facts_of(body)
    row = next((row for row in rules.rows if fits(row, status, facts)), None)
    if row is not None:
        return _of_row(row, headers, facts, rules, readings, now)
    if facts.is_too_large:
        return GiveUp(reason="the request is larger than the limit")
    advice = headers.get("x-should-retry", "").lower()
    if advice == "false":
        return GiveUp(reason="the provider advises against a retry")
    is_page = is_html(body)
    if not attempt_outcome.is_retried(status) and advice != "true" and not is_page:
        return GiveUp(reason=f"status {status}", is_credential=status == 401)
    if status == 429:
        return _rate_limited(headers, facts, rules, readings, now)
    return Again(
        floor_seconds=asked_wait(headers, facts, now=now),
        reason=f"status {status}, an HTML page" if is_page else f"status {status}",
        failure=attempt_outcome.class_of_status(status),
        is_overload=status in attempt_outcome.OVERLOADED,
        is_page=is_page and not attempt_outcome.is_retried(status),
    )


def judge_event(data: bytes, rules: Rules, *, now: float) -> Verdict:
    """Return what an error inside a 200 (an SSE event or a whole body) means. Done: it is not an error."""
    facts = facts_of(data)
    if not facts.is_error:
        return Done()
    status = facts.status or next(
        (rules.event_statuses[name] for name in facts.names if name in rules.event_statuses), 0
    )
    if status >= 400:
        return judge(status, {}, data, rules, now=now)
    if facts.names & FINAL_NAMES:
        return GiveUp(reason=facts.label)
    # An unknown error: the model may have run, and the next attempt may succeed.
    return Again(reason=f"an error inside a 200: {facts.label or 'unnamed'}", failure=FailureClass.MAYBE_BILLED)


def fits(row: Row, status: int, facts: ErrorFacts) -> bool:
    """Whether a row matches this error."""
    return (
        (not row.statuses or status in row.statuses)
        and (not row.names or bool(row.names & facts.names))
        and (row.message is None or row.message.search(facts.message) is not None)
        and (row.quota is None or any(row.quota.search(name) for name in facts.quotas))
    )


def asked_wait(
    headers: Headers, facts: ErrorFacts | None = None, readings: Iterable[Reading] = (), *, now: float
) -> float | None:
    """Return the wait in seconds that a provider asked for; None if it gave none."""
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        if number_of(headers.get(name)) is not None:
            return wait_of(headers.get(name), now=now, unit=Unit.MILLISECONDS)
    asked = wait_of(headers.get("retry-after"), now=now)
    if asked is not None:
        return asked
    hint = None if facts is None else hinted_wait(facts)
    if hint is not None:
        return hint
    empty = limits.exhausted(readings)
    return None if empty is None else empty.reset_seconds


_HINT = re.compile(
    r"(?:try|retry) (?:again )?(?:in|after) ((?:\d+d)?(?:\d+(?:\.\d+)?(?:h|ms|m|s))+)(?![\w])"
    r"|(?:try|retry) (?:again )?(?:in|after) (\d+(?:\.\d+)?) ?(milliseconds|seconds|second|minutes|minute)",
    re.IGNORECASE,
)
_HINT_UNITS = {"milliseconds": 1e-3, "second": 1.0, "seconds": 1.0, "minute": 60.0, "minutes": 60.0}


def hinted_wait(facts: ErrorFacts) -> float | None:
    """Return the wait given in a body: google.rpc.RetryInfo, or words like "try again in 41.724s"."""
    if facts.retry_delay is not None:
        return duration_of(facts.retry_delay)
    match = _HINT.search(facts.message[:2_000])
    if match is None:
        return None
    if match[1] is not None:
        return duration_of(match[1].lower())
    return float(match[2]) * _HINT_UNITS[match[3].lower()]


def backoff_seconds(attempt: int, *, jitter: float, base_seconds: float = BASE_DELAY_SECONDS) -> float:
    """Full jitter (AWS architecture blog, 2015): anywhere between 0 and the doubling bound.

    Args:
        attempt: number of failed attempts, from 1.
        jitter: uniform in [0, 1).
    """
    return jitter * min(LONGEST_DELAY_SECONDS, base_seconds * 2.0 ** min(attempt, 32))


def billed_backoff_seconds(attempt: int, *, jitter: float) -> float:
    """Return the wait before the retry of a call that may have been billed: half to all of 1 s, then of 4 s.

    There are only two retries: time for the upstream to recover is worth more than speed.
    """
    return (0.5 + 0.5 * jitter) * min(LONGEST_DELAY_SECONDS, 4.0 ** (min(attempt, 16) - 1))


def wait_seconds(verdict: Again, attempt: int, *, jitter: float) -> float:
    """Return how long to wait: the provider's wait is a minimum, and jitter is added to it."""
    return (verdict.floor_seconds or 0.0) + backoff_seconds(attempt, jitter=jitter)


def _of_row(
    row: Row, headers: Headers, facts: ErrorFacts, rules: Rules, readings: Iterable[Reading], now: float
) -> Verdict:
    match row.meaning:
        case Meaning.RATE_LIMIT:
            return _rate_limited(headers, facts, rules, readings, now)
        case Meaning.OVERLOAD:
            return Again(floor_seconds=asked_wait(headers, facts, now=now), reason="overloaded", is_overload=True)
        case Meaning.SPENT:
            return Park(reason=facts.label or "the quota is spent")
        case Meaning.SPENT_TODAY:
            return Park(reason=facts.label or "the day's quota is spent", wait_seconds=_until_reset(rules, now))
        case Meaning.CREDENTIAL:
            return GiveUp(reason=facts.label or "the credential is refused", is_credential=True)
        case Meaning.FINAL:
            return GiveUp(reason=facts.label)


def _rate_limited(
    headers: Headers, facts: ErrorFacts, rules: Rules, readings: Iterable[Reading], now: float
) -> Verdict:
    if facts.is_too_large:
        return GiveUp(reason="the request is larger than the limit")
    readings = tuple(readings)
    if any(reading.has_no_allowance for reading in readings):
        return Park(reason="no allowance: a limit is 0")
    empty = limits.exhausted(readings)
    wait = asked_wait(headers, facts, readings, now=now)
    if empty is not None and not empty.quota.is_paced:
        # A daily or monthly allowance: its reset counts, even if the answer also names a short wait.
        wait = max(wait or 0.0, empty.reset_seconds or 0.0) or None
        if wait is None or wait > PARK_FROM_SECONDS:
            return Park(reason=f"{empty.quota.name} is spent", wait_seconds=wait or _until_reset(rules, now))
    if wait is not None:
        wait = min(wait, LONGEST_WAIT_SECONDS)
    return Again(floor_seconds=wait, is_rate_limit=True, reason=facts.label or "rate limited")


def _until_reset(rules: Rules, now: float) -> float | None:
    return None if rules.daily_reset is None else rules.daily_reset(now) - now
