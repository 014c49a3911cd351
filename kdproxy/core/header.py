"""Reads request headers: lines with the same name form one list (RFC 9110 section 5.3)."""

from kdproxy.core.models import Headers


def combined(headers: Headers, name: str) -> str | None:
    """Return a list header's value, all its lines joined with commas; None if the header is absent.

    A multidict's `get` returns the first line only: two requests that differ in the second would look equal.
    """
    if name not in headers:  # the usual case, made cheap
        return None
    return ", ".join(value for line, value in headers.items() if line.lower() == name.lower())
