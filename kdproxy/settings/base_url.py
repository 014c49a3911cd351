"""Detects common mistakes in an upstream's URL: an endpoint's URL instead of the base, a doubled version. Pure."""

import re
from urllib.parse import urlsplit

_ENDPOINT = re.compile(
    r"(?:/chat/completions"
    r"|(?<=/v1)/(?:completions|embeddings|responses|messages|models|moderations|rerank|score|batches|files)"
    r"|/messages/(?:count_tokens|batches)"
    r"|/(?:images/(?:generations|edits)|audio/(?:speech|transcriptions|translations))"
    r"|/api/(?:chat|generate|tags|embed)"
    r"|/models/[^/:]+:\w+)$"
)
"""Endpoint paths of OpenAI's, Anthropic's and Gemini's dialects, and of Ollama."""

_DOUBLED = re.compile(r"/(v\d+[a-z0-9]*)/(?:\1)$")


_SCHEME_TWICE = re.compile(r"https?:/*(?=https?:/)", re.IGNORECASE)
_VARIABLE = re.compile(r"\$[A-Za-z_{]")
_SLASH = re.compile(r"^(https?):/?(?=[^/])", re.IGNORECASE)


def misspelt(url: str) -> str | None:
    """Return which common mistake a URL has; None if it has none."""
    if not url.strip():
        return "is empty: the variable that it comes from may not be set"
    if _VARIABLE.search(url):
        return "holds a variable that was not filled in"
    meant = _SLASH.sub(r"\1://", _SCHEME_TWICE.sub("", url))
    # Text before an @ or after a ? may be a credential and is not repeated.
    return None if meant == url or set("@?") & set(meant) else f"is no URL: did you mean {meant}?"


def base_of(url: str) -> str | None:
    """Return the intended base of an endpoint's URL or of a doubled version; None if the URL is a base."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    endpoint = _ENDPOINT.search(path)
    base = path if endpoint is None else path[: endpoint.start()]
    base = _DOUBLED.sub(r"/\1", base)
    return None if base == path else f"{parts.scheme}://{parts.netloc}{base}"
