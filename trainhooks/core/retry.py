"""What a failed API call means for the next attempt: again after so long, or never. Pure.

The exceptions of openai, anthropic, httpx, requests, aiohttp and urllib are known by their shape: none of these has to
be installed. What a status, a header or an error code means is said by kdproxy's `core/retry.py`, for both packages.
"""

import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kdproxy.core import retry
from kdproxy.core.provider_rules import Rules

_RULES = Rules(name="any", rows=retry.COMMON_ROWS)
_CONNECTION = frozenset({"APIConnectionError", "TransportError", "ClientConnectionError", "ChunkedEncodingError"})
_FINAL_CONNECTION = frozenset({"SSLError", "UnsupportedProtocol", "LocalProtocolError", "InvalidURL"})


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
        return Verdict(
            is_retried=not any(_names(each) & _FINAL_CONNECTION or _is_trust(each) for each in _chain(error))
        )
    verdict = retry.judge(status, _headers(error), _body(error), _RULES, now=now)
    # An HTML page under a final status is most often a misspelled URL: an hour of attempts would not help.
    if not isinstance(verdict, retry.Again) or verdict.is_page:
        return Verdict()
    return Verdict(is_retried=True, floor_seconds=verdict.floor_seconds or 0.0)


def delay(verdict: Verdict, attempt: int, chance: float) -> float:
    """Return the seconds to wait: what the provider asked for, and above it a part of a doubling span.

    Args:
        attempt: which one has failed, from 1 on.
        chance: drawn from [0, 1).
    """
    return verdict.floor_seconds + retry.backoff_seconds(attempt, jitter=chance)


def _status(error: BaseException) -> int | None:
    holders = (error, getattr(error, "response", None))
    found = (getattr(each, name, None) for each in holders for name in ("status_code", "status", "code"))
    return next((each for each in found if isinstance(each, int) and 100 <= each < 600), None)


def _headers(error: BaseException) -> dict[str, str]:
    holders = (getattr(error, "response", None), error)
    found = (getattr(each, "headers", None) for each in holders)
    headers: Any = next((each for each in found if each is not None), {})
    return {str(name).lower(): str(value).strip() for name, value in headers.items()}


def _body(error: BaseException) -> bytes:
    body = getattr(error, "body", None)
    try:
        if body is None:
            body = error.response.json()  # type: ignore[attr-defined]
        return json.dumps(body).encode()
    except Exception:  # no response, one that was not read, or no JSON: then it names no code
        return b""


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
