"""An upstream's URL as it is often mistyped: that of an endpoint in place of the base of all, a version twice. Pure."""

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
"""Of OpenAI's dialect, Anthropic's, Gemini's, and Ollama's own."""

_DOUBLED = re.compile(r"/(v\d+[a-z0-9]*)/(?:\1)$")


_SCHEME_TWICE = re.compile(r"https?:/*(?=https?:/)", re.IGNORECASE)
_VARIABLE = re.compile(r"\$[A-Za-z_{]")
_SLASH = re.compile(r"^(https?):/?(?=[^/])", re.IGNORECASE)


def misspelt(url: str) -> str | None:
    """Say what is wrong with the text of a URL, as it is often mistyped; None: none of that."""
    if not url.strip():
        return "is empty: the variable that it comes from may not be set"
    if _VARIABLE.search(url):
        return "holds a variable that was not filled in"
    meant = _SLASH.sub(r"\1://", _SCHEME_TWICE.sub("", url))
    # What stands before an @ or after a ? may be a credential, and is not repeated.
    return None if meant == url or set("@?") & set(meant) else f"is no URL: did you mean {meant}?"


def base_of(url: str) -> str | None:
    """Return the base that an endpoint's URL, or a path with its version twice, was meant for; None: it is a base."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    endpoint = _ENDPOINT.search(path)
    base = path if endpoint is None else path[: endpoint.start()]
    base = _DOUBLED.sub(r"/\1", base)
    return None if base == path else f"{parts.scheme}://{parts.netloc}{base}"
