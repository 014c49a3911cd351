"""Parses waits as providers write them: one header name, many units. Pure; an unreadable value is None, never zero.

Known forms: seconds (`20`, `7.66`), milliseconds by the header's name, Go durations (`12ms`, `6m0s`, `1h2m3.5s`),
protobuf durations (`34s`), RFC 3339 times, Unix seconds, Unix milliseconds, HTTP dates, and -1 for "not known".
"""

import math
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum


class Unit(StrEnum):
    """How to read a value."""

    ANY = "any"
    """Guessed from its form and size."""
    MILLISECONDS = "milliseconds"


_GO_UNITS = {"h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
_GO_PART = r"(\d+(?:\.\d*)?|\.\d+)(h|ms|m|s|us|µs|μs|ns)"
_GO_PARTS = re.compile(_GO_PART, re.ASCII)
_GO_DURATION = re.compile(rf"(?:(\d+)d)?((?:{_GO_PART})*)", re.ASCII)
_NUMBER = re.compile(r"\d{1,18}(?:\.\d{0,18})?|\.\d{1,18}", re.ASCII)

EPOCH_SECONDS_FROM = 1e9
EPOCH_MILLISECONDS_FROM = 1e12
"""A number this large is a timestamp (2001 or later), not a wait of thirty years."""

LONGEST_TEXT = 64


def wait_of(text: str | None, *, now: float, unit: Unit = Unit.ANY) -> float | None:
    """Return a header's value as seconds from now; None if it has no meaning.

    A time in the past is 0. A negative number means "not known" (Azure sends -1).

    Args:
        now: UTC Unix seconds.
    """
    if text is None or len(text) > LONGEST_TEXT:
        return None
    text = text.strip()
    number = number_of(text)
    if number is not None:
        return _wait_of_number(number, now, unit)
    seconds = duration_of(text)
    if seconds is not None:
        return seconds
    at = _moment_of(text)
    return None if at is None else max(0.0, at - now)


def duration_of(text: str) -> float | None:
    """Return the seconds of a Go duration; days (`1d2h`), which some gateways write, are accepted too."""
    match = _GO_DURATION.fullmatch(text)
    if match is None or not text:
        return None
    days, rest = match[1], match[2]
    seconds = 86_400.0 * int(days or 0) + sum(
        float(amount) * _GO_UNITS[unit] for amount, unit in _GO_PARTS.findall(rest)
    )
    return seconds if math.isfinite(seconds) else None


def number_of(text: str | None) -> float | None:
    """Return a plain decimal number that is not negative; None for anything else, including `nan`, `inf` and `1e9`."""
    # Stripped once for both: `strip` treats control characters such as \x1f as white space, `float` does not.
    stripped = "" if text is None else text.strip()
    return float(stripped) if _NUMBER.fullmatch(stripped) else None


def _wait_of_number(number: float, now: float, unit: Unit) -> float:
    if unit is Unit.MILLISECONDS:
        return number / 1_000
    if number >= EPOCH_MILLISECONDS_FROM:
        return max(0.0, number / 1_000 - now)
    if number >= EPOCH_SECONDS_FROM:
        return max(0.0, number - now)
    return number


def _moment_of(text: str) -> float | None:
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            at = read(text)
            return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
    return None
