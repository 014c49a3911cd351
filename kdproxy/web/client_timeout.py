"""How long a client waits, read from the timeout header that the official clients send."""

from kdproxy.core.models import Headers

READ_HEADER = "x-stainless-read-timeout"
"""Seconds between bytes: openai-python and anthropic-sdk-python send it."""

WHOLE_HEADER = "x-stainless-timeout"
"""Until the answer's head. The JavaScript clients send whole seconds; some generated clients and early releases sent
milliseconds (cloudflare-typescript, read 2026-11-30)."""

_LEAST_MILLISECONDS = 10_000.0
"""A number from here on is read as milliseconds: no client waits three hours, and few wait less than ten seconds."""


def client_timeout(headers: Headers) -> float | None:
    """Return the client's own timeout in seconds, or None."""
    seconds = _seconds(headers.get(READ_HEADER))
    if seconds is None:
        seconds = _seconds(headers.get(WHOLE_HEADER))
        if seconds is not None and seconds >= _LEAST_MILLISECONDS:
            seconds /= 1_000
    return seconds if seconds is not None and seconds < 86_400 else None


def _seconds(value: str | None) -> float | None:
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if 0 < seconds < float("inf") else None
