"""Checks before a request is handled: its Host, its token, proxy loops; and which credential goes upstream.

Without a token (loopback only) a client's own credential passes through. With a token every request carries the token
as its API key, and the proxy replaces it with the upstream's credential.
"""

import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl, quote, unquote_plus

from aiohttp import web

from kdproxy.core.header import combined
from kdproxy.core.key import CREDENTIAL_HEADERS, CREDENTIAL_QUERY
from kdproxy.core.models import HeaderPairs, Headers, Upstream
from kdproxy.core.routing import built_in_at
from kdproxy.errors import RequestRefused

_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[^:\[\]/@]+)(?::\d{1,5})?")
LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})


def is_loopback(host: str) -> bool:
    """Whether a bind address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_near(request: web.BaseRequest) -> bool:
    """Whether a request comes from this machine: from loopback, or from the address that it was sent to."""
    transport = request.transport
    if transport is None:
        return False
    peer, own = (transport.get_extra_info(name) for name in ("peername", "sockname"))
    return is_loopback(peer[0]) or bool(peer[0] == own[0])


def bearer(headers: Headers) -> str | None:
    """Return the bearer token of a request."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def is_same_secret(given: str, secret: str) -> bool:
    """Compare in constant time. Every token and key is compared here."""
    return hmac.compare_digest(_bytes(given), _bytes(secret))


class HostGuard:
    """The Host allow-list, against DNS rebinding: a web page can make any name point to 127.0.0.1."""

    def __init__(self, allowed: frozenset[str]) -> None:
        # A Host header has IPv6 addresses in brackets (RFC 3986 section 3.2.2); a bind address has none.
        names = (f"[{name}]" if ":" in name and not name.startswith("[") else name for name in allowed)
        self._allowed = LOOPBACK_NAMES | {name.lower() for name in names}
        self._seen: set[str] = set()

    def check(self, host: str | None) -> None:
        """Raises RequestRefused (421) for a foreign or missing Host."""
        if host in self._seen:
            return
        match = None if host is None else _HOST.fullmatch(host)
        if match is None or match["name"].lower() not in self._allowed:
            raise RequestRefused(
                "The Host header of this request is not on this proxy's allow-list.",
                hint="Nothing was sent to the provider. Use 127.0.0.1 or localhost, or add the name to allowed_hosts.",
                code="wrong_host",
                http_status=421,
            )
        assert host is not None
        if len(self._seen) < 1_000:
            self._seen.add(host)


class LoopGuard:
    """Detects a proxy loop: each proxy adds its name to `CDN-Loop` (RFC 8586)."""

    _HEADER = "CDN-Loop"

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        self._name = f"kdproxy-{secrets.token_hex(8)}"
        mark = ((self._HEADER, self._name),)
        # The providers' own hosts are never this proxy, so requests to them get no header.
        self._marks: dict[str, HeaderPairs] = {
            upstream.name: () if built_in_at(upstream.url) else mark for upstream in upstreams
        }

    def check(self, headers: Headers) -> None:
        """Raises RequestRefused (508) for a request that this proxy itself has sent."""
        if self._HEADER in headers and self._name in (combined(headers, self._HEADER) or ""):
            raise RequestRefused(
                "Proxy loop: the upstream's URL leads back to this proxy.",
                hint="Nothing was sent to a provider. Set --upstream to the teacher's own URL, not the proxy's.",
                code="loop_detected",
                http_status=508,
            )

    def marks(self, upstream: str) -> HeaderPairs:
        """Return the headers to add to a request to an upstream."""
        return self._marks[upstream]


class TokenGuard:
    """The proxy's token, and the upstream credentials that replace it."""

    def __init__(
        self,
        token: str | None,
        upstream_credentials: Mapping[str, str | Sequence[str]],
        *,
        secret: bytes | None = None,
    ) -> None:
        """Take the configuration; `secret` keys the fingerprints (None: one of this process)."""
        self._token = token
        self._credentials = {
            name: (found,) if isinstance(found, str) else tuple(found) for name, found in upstream_credentials.items()
        }
        self._salt = secrets.token_bytes(32) if secret is None else secret

    def check(self, headers: Headers, query: str) -> None:
        """Raises RequestRefused (401) if a token is set and the request does not carry it."""
        if not self.holds(headers, query):
            raise RequestRefused(
                "The proxy's token is missing or wrong.",
                hint="Nothing was sent to the provider. Give the proxy's token as the API key of your client.",
                code="unauthorized",
                http_status=401,
            )

    def holds(self, headers: Headers, query: str) -> bool:
        """Whether a request carries the token, or none is set."""
        token = self._token
        return token is None or any(is_same_secret(found, token) for found in credentials(headers, query))

    def forwarded(self, pairs: HeaderPairs, upstream: str, key_index: int = 0) -> HeaderPairs:
        """Return the headers that go upstream: the token replaced by the upstream's credential, if it has one."""
        if self._token is None:
            return pairs
        found = self._credentials.get(upstream)
        credential = found[key_index] if found else None
        kept = []
        for name, value in pairs:
            lowered = name.lower()
            if lowered not in CREDENTIAL_HEADERS:
                kept.append((name, value))
            elif credential is not None:
                is_bearer = lowered == "authorization"
                kept.append((name, f"Bearer {credential}" if is_bearer else credential))
        return tuple(kept)

    def forwarded_query(self, query: str, upstream: str) -> str:
        """Return the raw query that goes upstream, with the same replacement."""
        if self._token is None or not query:
            return query
        found = self._credentials.get(upstream)
        credential = found[0] if found else None
        kept = []
        for pair in query.split("&"):
            name = unquote_plus(pair.partition("=")[0])
            if name not in CREDENTIAL_QUERY:
                kept.append(pair)
            elif credential is not None:
                kept.append(f"{name}={quote(credential, safe='')}")
        return "&".join(kept)

    def fingerprints(self, headers: Headers, query: str, upstream: str) -> tuple[str, ...]:
        """Return a fingerprint for each credential that may be used; it does not reveal the credential.

        A keyed BLAKE2b of 64 bits: a guess at a credential cannot be checked without the data directory's secret.
        """
        if self._token is not None and (own := self._credentials.get(upstream)):
            # `query` has already put the first credential there.
            usable = own[:1] if any(name in CREDENTIAL_QUERY for name, _ in parse_qsl(query)) else own
            return tuple(self._fingerprint(credential) for credential in usable)
        return (self.fingerprint(headers, query),)

    def fingerprint(self, headers: Headers, query: str) -> str:
        """Return the fingerprint of the credential that a request carries."""
        return self._fingerprint("\0".join(credentials(headers, query)))

    def _fingerprint(self, credential: str) -> str:
        return hashlib.blake2b(_bytes(credential), key=self._salt, digest_size=8).hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def credentials(headers: Headers, query: str) -> list[str]:
    """Return the credentials that a request carries."""
    found = []
    for name in filter(headers.__contains__, CREDENTIAL_HEADERS):
        value = headers[name]
        found.append(value[7:] if value[:7].lower() == "bearer " else value)
    if query:
        found += [value for name, value in parse_qsl(query) if name in CREDENTIAL_QUERY]
    return found
