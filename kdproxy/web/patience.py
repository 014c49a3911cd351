"""How long a client waits, by what the official clients say in a header of theirs."""

from kdproxy.core.models import Headers

READ_HEADER = "x-stainless-read-timeout"
"""Seconds between bytes: openai-python and anthropic-sdk-python send it."""

WHOLE_HEADER = "x-stainless-timeout"
"""Until the answer's head: the JavaScript clients send it, in whole seconds; some generated ones and early releases
wrote their own milliseconds (cloudflare-typescript; what clients send to proxies, read 2026-11-30)."""

_LEAST_MILLISECONDS = 10_000.0
"""From here on it is taken for milliseconds: nobody waits three hours, and hardly anybody less than ten seconds."""


def stated_seconds(headers: Headers) -> float | None:
    """Return how long the client says that it waits, or None."""
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
