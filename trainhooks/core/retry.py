"""What a failed API call means for the next attempt: again after so long, or never. Pure.

The exceptions of openai, anthropic, httpx, requests, aiohttp and urllib are known by their shape: none of these has to
be installed.
"""

import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

RETRIED_STATUSES = frozenset({408, 409, 425, 429, 498, 500, 502, 503, 504, 529})
"""As the official clients retry them; 498 is Groq's capacity, 529 Anthropic's overload, 425 RFC 8470."""
SPENT = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "credit_balance_too_low"})
"""Error codes of a 429 that no waiting mends (OpenAI's and Anthropic's error pages, 2026-11)."""

_CONNECTION = frozenset({"APIConnectionError", "TransportError", "ClientConnectionError", "ChunkedEncodingError"})
_NOT_MENDED = frozenset({"SSLError", "UnsupportedProtocol", "LocalProtocolError", "InvalidURL"})
_BASE_SECONDS = 0.5
_LONGEST_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a failure means."""

    is_call: bool = True
    """False: it is no failure of an API call."""
    is_retried: bool = False
    floor_seconds: float = 0.0
    """The next attempt comes no sooner: what the provider asked for."""


def judge(error: BaseException, *, now: float) -> Verdict:
    """Say what a failure means.

    Args:
        now: UTC Unix seconds, for waits given as a moment.
    """
    status = _status(error)
    if status is None:
        if not _is_connection(error):
            return Verdict(is_call=False)
        return Verdict(is_retried=not any(_names(each) & _NOT_MENDED or _is_trust(each) for each in _chain(error)))
    headers = _headers(error)
    told = headers.get("x-should-retry")
    if told == "false" or SPENT & _codes(error):
        return Verdict()
    if told != "true" and status not in RETRIED_STATUSES:
        return Verdict()
    return Verdict(is_retried=True, floor_seconds=_wait(headers, now))


def delay(verdict: Verdict, attempt: int, chance: float) -> float:
    """Return the seconds to wait: what the provider asked for, and above it a part of a doubling span.

    Args:
        attempt: which one has failed, from 1 on.
        chance: drawn from [0, 1).
    """
    return verdict.floor_seconds + chance * min(_LONGEST_SECONDS, _BASE_SECONDS * 2.0 ** min(attempt, 16))


def _status(error: BaseException) -> int | None:
    holders = (error, getattr(error, "response", None))
    found = (getattr(each, name, None) for each in holders for name in ("status_code", "status", "code"))
    return next((each for each in found if isinstance(each, int) and 100 <= each < 600), None)


def _headers(error: BaseException) -> dict[str, str]:
    holders = (getattr(error, "response", None), error)
    found = (getattr(each, "headers", None) for each in holders)
    headers: Any = next((each for each in found if each is not None), {})
    return {str(name).lower(): str(value).strip() for name, value in headers.items()}


def _codes(error: BaseException) -> set[str]:
    body = getattr(error, "body", None)
    if body is None:
        try:
            body = error.response.json()  # type: ignore[attr-defined]
        except Exception:  # no response, one that was not read, or no JSON: then it says no code
            return set()
    found: set[str] = set()
    for each in (body, body.get("error") if isinstance(body, Mapping) else None):
        if isinstance(each, Mapping):
            found |= {value for value in (each.get("code"), each.get("type")) if isinstance(value, str)}
    return found


def _wait(headers: Mapping[str, str], now: float) -> float:
    """`retry-after-ms`, then `retry-after` as seconds or as an HTTP date (RFC 9110, section 10.2.3)."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    try:
        moment = parsedate_to_datetime(headers["retry-after"])
    except (KeyError, ValueError):
        return 0.0
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, moment.timestamp() - now)


def _is_connection(error: BaseException) -> bool:
    # requests' and urllib's failures are OSErrors as the socket's own are; a file that is not there is not meant.
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    is_web = any(each.__module__.split(".")[0] in ("requests", "urllib") for each in type(error).__mro__)
    return bool(_names(error) & _CONNECTION) or (isinstance(error, OSError) and is_web)


def _is_trust(error: Any) -> bool:
    return isinstance(error, ssl.SSLCertVerificationError)


def _names(error: BaseException) -> set[str]:
    return {each.__name__ for each in type(error).__mro__}


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it came from."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        reason = getattr(each, "reason", None)  # urllib keeps the cause there
        each = each.__cause__ or each.__context__ or (reason if isinstance(reason, BaseException) else None)
