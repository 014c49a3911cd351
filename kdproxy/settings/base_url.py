"""Whether an upstream's URL is that of an endpoint, or has its version twice, in place of the base of all. Pure."""

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


def base_of(url: str) -> str | None:
    """Return the base that an endpoint's URL, or a path with its version twice, was meant for; None: it is a base."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    endpoint = _ENDPOINT.search(path)
    base = path if endpoint is None else path[: endpoint.start()]
    base = _DOUBLED.sub(r"/\1", base)
    return None if base == path else f"{parts.scheme}://{parts.netloc}{base}"
