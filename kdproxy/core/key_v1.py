"""Key version 1, frozen: the keys that earlier releases gave to questions. Golden vectors test it.

Nothing here may change. It uses core/key for what version 2 did not change: canonical JSON, forms, queries and framing.
"""

import hashlib
from collections.abc import Mapping

from kdproxy.core import key
from kdproxy.core.header import combined
from kdproxy.core.models import Headers

_HEADERS = ("anthropic-beta", "anthropic-version", "openai-beta")
_OPENAI = frozenset(
    {
        *("stream", "stream_options", "user", "safety_identifier", "metadata", "store"),
        *("prompt_cache_key", "prompt_cache_retention"),
    }
)
_ANTHROPIC = frozenset({"stream", "metadata"})

OUT_OF_KEY: Mapping[tuple[str, str], frozenset[str]] = {
    ("openai", "chat.completions"): _OPENAI,
    ("openai", "completions"): _OPENAI,
    ("openai", "responses"): _OPENAI,
    ("openai", "embeddings"): frozenset({"user"}),
    ("openai", "moderations"): frozenset(),
    ("openai", "images.generations"): frozenset({"stream", "user"}),
    ("openai", "audio.speech"): frozenset({"stream_format"}),
    ("openai", "audio.transcriptions"): frozenset({"stream"}),
    ("openai", "audio.translations"): frozenset({"stream"}),
    ("anthropic", "messages"): _ANTHROPIC,
    ("anthropic", "messages.count_tokens"): _ANTHROPIC,
    ("gemini", "generateContent"): frozenset(),
    ("generic", "models"): frozenset(),
}
"""Top-level members that were left out of the key, by provider and endpoint; other endpoints had no keys."""


def request_key(*, upstream: str, method: str, path: str, query: str, headers: Headers, body: bytes) -> str:
    """Return the version 1 key of a request as 64 hex digits; arguments as for `key.request_key`."""
    values = tuple((name, value) for name in _HEADERS if (value := combined(headers, name)) is not None)
    return hashlib.sha256(key.head("1", upstream, method, path, query, values) + key.framed(body)).hexdigest()
