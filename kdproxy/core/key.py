"""The key: a versioned SHA-256 over everything that can change the answer. docs/keys.md is its specification.

Fields are length-framed, so different requests never produce the same bytes. Credentials and transport are left out.
"""

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_plus

from kdproxy.core import canonical, position
from kdproxy.core.header import combined
from kdproxy.core.models import HeaderPairs, Headers, Turn
from kdproxy.core.multipart import Part

KEY_VERSION = "2"
MATCH_VERSION = "1"
"""Version of the match key; independent of the key's version."""

CREDENTIAL_QUERY = frozenset({"key", "api_key", "api-key"})
"""Query members in which official clients send a credential: neither keyed nor stored."""

_SECRET_QUERY = CREDENTIAL_QUERY | {
    *("access_token", "api_token", "apikey", "auth_token", "sig", "signature", "subscription-key", "token"),
}
"""The same, and those that gateways use."""

PUBLIC_QUERY = frozenset(
    {
        *("after", "after_id", "alt", "api-version", "before", "before_id", "beta", "limit", "order"),
        *("page", "page_size", "page_token", "pageSize", "pageToken"),
    }
)
"""Query members whose values may be stored; any other may be an unknown credential."""

CREDENTIAL_HEADERS = frozenset({"authorization", "x-api-key", "api-key", "x-goog-api-key", "proxy-authorization"})
"""Request headers that carry a credential: neither keyed, stored nor logged."""

KEY_HEADERS = ("anthropic-beta", "anthropic-version", "openai-beta")
"""Request headers that can change the answer, sorted; keyed and stored as they are."""

ROUTING_HEADERS = (
    *("azureml-model-deployment", "extra-parameters", "x-ms-model-mesh-model-name"),
    *("helicone-fallbacks", "helicone-model-override", "helicone-openai-api-base", "helicone-target-provider"),
    *("helicone-target-url", "x-portkey-azure-deployment-id", "x-portkey-azure-endpoint-name"),
    *("x-portkey-azure-model-name", "x-portkey-azure-resource-name", "x-portkey-config", "x-portkey-custom-host"),
    *("x-portkey-provider", "x-portkey-virtual-key"),
)
"""Request headers by which a gateway routes. Their values may be secrets, so they are keyed and stored as a hash."""


def request_key(
    *,
    upstream: str,
    method: str,
    path: str,
    query: str,
    headers: Headers,
    body: bytes,
    key_headers: tuple[str, ...] = (),
) -> str:
    """Return the key of a request as 64 hex digits.

    Args:
        upstream: the upstream's name.
        path: as routed, relative to the upstream's own prefix.
        query: as `canonical_query` returns it.
        body: canonical bytes, from `json_body` or `form_body`.
        key_headers: names of the upstream's own headers that are in the key, lower case.
    """
    return key_of(
        upstream=upstream, method=method, path=path, query=query, values=header_values(headers, key_headers), body=body
    )


def key_of(*, upstream: str, method: str, path: str, query: str, values: HeaderPairs, body: bytes) -> str:
    """Return the key of a request whose headers are given as `header_values` returns them."""
    return hashlib.sha256(head(KEY_VERSION, upstream, method, path, query, values) + framed(body)).hexdigest()


def header_values(headers: Headers, key_headers: tuple[str, ...] = ()) -> HeaderPairs:
    """Return the headers that are in the key, by name, as keyed and stored: routing headers as a hash."""
    there = list(filter(headers.__contains__, _NAMED_HEADERS))  # runs for each request; most have none of them
    if not there and not key_headers:
        return ()
    values: dict[str, str] = {}
    for name in (*there, *key_headers):
        value = combined(headers, name)
        if value is not None and (name in KEY_HEADERS and name not in key_headers):
            values[name] = value
        elif value is not None:
            values[name] = "sha256:" + hashlib.sha256(value.strip().encode("utf-8", "surrogateescape")).hexdigest()
    return tuple(sorted(values.items()))


_NAMED_HEADERS = KEY_HEADERS + ROUTING_HEADERS


def has_routing(headers: Headers, key_headers: tuple[str, ...] = ()) -> bool:
    """Whether a request carries a header that key version 1 left out."""
    return any(name in headers for name in (*ROUTING_HEADERS, *key_headers))


@lru_cache(maxsize=1_024)
def head(version: str, upstream: str, method: str, path: str, query: str, headers: HeaderPairs) -> bytes:
    """Frame everything before the body; cached, since a script sends thousands of requests with the same head."""
    fields = ["kdproxy-key", version, upstream, method.upper(), path, query]
    fields += [f"{name}:{_header_value(value)}" for name, value in headers]
    return b"".join([*(framed(field.encode("utf-8", "surrogateescape")) for field in fields), framed(b"")])


def json_body(members: dict[str, Any], *, out: position.Positions) -> bytes:
    """Return the canonical bytes of a JSON object without the members that cannot change the answer.

    A conversation is walked only if its text holds a name that may have to be removed: a tenth of the time.
    """
    outer = position.without_outer(members, out)
    text = canonical.dump(outer)
    if out.may_reach_in(outer, text):
        inner = position.without(outer, out)
        text = text if inner is outer else canonical.dump(inner)
    return b"json:" + text


def form_body(parts: Iterable[Part], *, out_of_key: frozenset[str]) -> bytes:
    """Return the canonical bytes of a multipart form: its parts by name, each with the digest of its content."""
    rows = [
        b"".join(
            (
                framed(part.name.encode("utf-8", "surrogateescape")),
                framed(_present(part.filename)),
                framed(_present(part.content_type)),
                hashlib.sha256(part.content).digest(),
            )
        )
        for part in sorted(parts, key=lambda part: part.name)  # stable: equal names keep their order
        if part.name not in out_of_key
    ]
    return b"form:" + b"".join(map(framed, rows))


def canonical_query(raw: str) -> str:
    """Sort a raw query by name, order within a name kept, credentials taken out."""
    if not raw:
        return ""
    pairs = [pair for pair in raw.split("&") if pair and _name(pair) not in _SECRET_QUERY]
    return "&".join(sorted(pairs, key=_name))


def stored_query(raw: str) -> str:
    """Return the canonical query as it may be stored: values of unknown members, which are in the key, are starred."""
    if not raw:
        return ""
    pairs = [pair for pair in canonical_query(raw).split("&") if pair]
    return "&".join(pair if _name(pair) in PUBLIC_QUERY else "*" for pair in pairs)


def has_public_query(raw: str) -> bool:
    """Whether a query holds only known names and credentials."""
    return all(_name(pair) in PUBLIC_QUERY for pair in canonical_query(raw).split("&") if pair)


def _name(pair: str) -> str:
    return unquote_plus(pair.partition("=")[0])


def prompt_hash(text: str) -> str:
    """Return the SHA-256 of a prompt's text, hex: the identity that training trackers write."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def match_key(model: str, turns: Iterable[Turn]) -> str:
    """Return the match key of a recorded prompt: a hash of the model and the conversation's text."""
    frame = [b"kdproxy-prompt", MATCH_VERSION.encode(), model.encode("utf-8", "surrogatepass")]
    for turn in turns:
        frame += [turn.role.encode(), turn.text.encode("utf-8", "surrogatepass")]
    return hashlib.sha256(b"".join(map(framed, frame))).hexdigest()


def framed(field: bytes) -> bytes:
    """Prefix a field with its length."""
    return len(field).to_bytes(8, "big") + field


def _present(text: str | None) -> bytes:
    return b"-" if text is None else b"=" + text.encode("utf-8", "surrogateescape")


def _header_value(value: str) -> str:
    """Comma lists are sorted: `anthropic-beta: a, b` equals `b,a`."""
    return ",".join(sorted(part.strip() for part in value.split(",")))
