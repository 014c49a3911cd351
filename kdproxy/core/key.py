"""The key: a versioned SHA-256 over everything that can change the answer. docs/keys.md is its specification.

Length-framed, so that no two different requests can write the same bytes. Credentials and transport never enter.
"""

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_plus

from kdproxy.core import canonical
from kdproxy.core.header import combined
from kdproxy.core.models import HeaderPairs, Headers, Turn
from kdproxy.core.multipart import Part

KEY_VERSION = "1"

CREDENTIAL_QUERY = frozenset({"key", "api_key", "api-key"})
"""Query members that official clients carry a credential in: neither keyed nor stored."""

_SECRET_QUERY = CREDENTIAL_QUERY | {
    *("access_token", "api_token", "apikey", "auth_token", "sig", "signature", "subscription-key", "token"),
}
"""The same, with those that gateways use."""

PUBLIC_QUERY = frozenset(
    {
        *("after", "after_id", "alt", "api-version", "before", "before_id", "beta", "limit", "order"),
        *("page", "page_size", "page_token", "pageSize", "pageToken"),
    }
)
"""Query members whose values may be stored; any other may be a credential that nobody here knows."""

CREDENTIAL_HEADERS = frozenset({"authorization", "x-api-key", "api-key", "x-goog-api-key", "proxy-authorization"})
"""Request headers that carry a credential: neither keyed, stored nor logged."""

KEY_HEADERS = ("anthropic-beta", "anthropic-version", "openai-beta")
"""Request headers that can change the answer, sorted."""


def request_key(
    *,
    upstream: str,
    method: str,
    path: str,
    query: str,
    headers: Headers,
    body: bytes,
) -> str:
    """Return the key of a request as 64 hex digits.

    Args:
        upstream: the upstream's name.
        path: as routed, relative to the upstream's own prefix.
        query: as `canonical_query` returns it.
        body: canonical bytes, from `json_body` or `form_body`.
    """
    values = tuple((name, value) for name in KEY_HEADERS if (value := combined(headers, name)) is not None)
    return hashlib.sha256(_head(upstream, method, path, query, values) + _framed(body)).hexdigest()


@lru_cache(maxsize=1_024)
def _head(upstream: str, method: str, path: str, query: str, headers: HeaderPairs) -> bytes:
    """Frame all that comes before the body; a script asks thousands of questions with one such head."""
    fields = ["kdproxy-key", KEY_VERSION, upstream, method.upper(), path, query]
    fields += [f"{name}:{_header_value(value)}" for name, value in headers]
    return b"".join([*(_framed(field.encode("utf-8", "surrogateescape")) for field in fields), _framed(b"")])


def json_body(members: Mapping[str, Any], *, out_of_key: frozenset[str]) -> bytes:
    """Return the canonical bytes of a JSON object without the members that cannot change the answer."""
    if out_of_key.isdisjoint(members):
        return b"json:" + canonical.dump(members)
    return b"json:" + canonical.dump({name: value for name, value in members.items() if name not in out_of_key})


def form_body(parts: Iterable[Part], *, out_of_key: frozenset[str]) -> bytes:
    """Return the canonical bytes of a multipart form: its parts by name, each with the digest of its content."""
    rows = [
        b"".join(
            (
                _framed(part.name.encode("utf-8", "surrogateescape")),
                _framed(_present(part.filename)),
                _framed(_present(part.content_type)),
                hashlib.sha256(part.content).digest(),
            )
        )
        for part in sorted(parts, key=lambda part: part.name)  # stable: equal names keep their order
        if part.name not in out_of_key
    ]
    return b"form:" + b"".join(map(_framed, rows))


def canonical_query(raw: str) -> str:
    """Sort a raw query by name, order within a name kept, credentials taken out."""
    if not raw:
        return ""
    pairs = [pair for pair in raw.split("&") if pair and _name(pair) not in _SECRET_QUERY]
    return "&".join(sorted(pairs, key=_name))


def stored_query(raw: str) -> str:
    """Return the canonical query as it may be stored: members of unknown names, which are in the key, are stars."""
    pairs = [pair for pair in canonical_query(raw).split("&") if pair]
    return "&".join(pair if _name(pair) in PUBLIC_QUERY else "*" for pair in pairs)


def has_public_query(raw: str) -> bool:
    """Whether a query holds nothing but known names and credentials."""
    return all(_name(pair) in PUBLIC_QUERY for pair in canonical_query(raw).split("&") if pair)


def _name(pair: str) -> str:
    return unquote_plus(pair.partition("=")[0])


def prompt_hash(text: str) -> str:
    """Return the SHA-256 of a prompt's text, hex: the identity that training trackers write."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def match_key(model: str, turns: Iterable[Turn]) -> str:
    """Return the identity by which a recorded prompt answers a request: the model and the conversation's text."""
    frame = [b"kdproxy-prompt", KEY_VERSION.encode(), model.encode("utf-8", "surrogatepass")]
    for turn in turns:
        frame += [turn.role.encode(), turn.text.encode("utf-8", "surrogatepass")]
    return hashlib.sha256(b"".join(map(_framed, frame))).hexdigest()


def _framed(field: bytes) -> bytes:
    return len(field).to_bytes(8, "big") + field


def _present(text: str | None) -> bytes:
    return b"-" if text is None else b"=" + text.encode("utf-8", "surrogateescape")


def _header_value(value: str) -> str:
    """Comma lists are sorted: `anthropic-beta: a, b` equals `b,a`."""
    return ",".join(sorted(part.strip() for part in value.split(",")))
