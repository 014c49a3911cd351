"""Routes a path to an upstream and builds the URL. Upstreams come from the configuration only."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from kdproxy.core.models import Upstream
from kdproxy.errors import RequestRefused

BUILT_IN = (
    Upstream(name="openai", url="https://api.openai.com/v1", provider="openai"),
    Upstream(name="anthropic", url="https://api.anthropic.com", provider="anthropic"),
    Upstream(name="gemini", url="https://generativelanguage.googleapis.com", provider="gemini"),
)

PREFIX = "/upstreams/"
_VERSION = re.compile(r"v\d+[a-z0-9]*")
# Servers differ in which characters they treat as a slash after decoding a path.
_DOT_SEGMENT = re.compile(r"(?:^|[/\\]|%2f|%5c)(?:\.|%2e){1,2}(?:[/\\]|%2f|%5c|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The destination of one request."""

    upstream: Upstream
    path: str
    """Relative to the upstream's prefix; part of the key."""
    url: str
    """Full upstream URL without the query."""


class Router:
    """The table of upstreams. Rules, most specific first: named in the path, the only upstream, by dialect."""

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        self._upstreams = tuple(upstreams) or BUILT_IN
        self._by_name = {upstream.name: upstream for upstream in self._upstreams}

    @property
    def upstreams(self) -> tuple[Upstream, ...]:
        """All upstreams, in configured order."""
        return self._upstreams

    def route(self, path: str, *, speaks_anthropic: bool = False) -> Route:
        """Return where a raw (percent-encoded) request path goes.

        Args:
            speaks_anthropic: the request carries `anthropic-version`; decides paths that two providers share, such as
                `/v1/models`.

        Raises:
            RequestRefused: no upstream matches, or the path is not a plain absolute one.
        """
        if not path.startswith("/") or path.startswith("//") or _DOT_SEGMENT.search(path):
            raise RequestRefused(
                "The request path is not a plain absolute path.",
                hint="Nothing was sent to a provider. Send an absolute path without dot segments.",
                code="bad_path",
            )
        if path.startswith(PREFIX):
            named = path.removeprefix(PREFIX)
            upstream = self._named_by(named)
            if upstream is None:
                raise self._unknown(f"No upstream is named {named.partition('/')[0]!r}.")
            return _route(upstream, named.removeprefix(upstream.name))
        if len(self._upstreams) == 1:
            return _route(self._upstreams[0], path)
        dialect = dialect_of(path, speaks_anthropic=speaks_anthropic)
        matching = [upstream for upstream in self._upstreams if (upstream.provider or upstream.name) == dialect]
        if len(matching) != 1:
            raise self._unknown("Several upstreams are configured and the path does not say which is meant.")
        return _route(matching[0], path)

    def _named_by(self, named: str) -> Upstream | None:
        """Return the upstream with the longest name that the path begins with: `host:443/api` is a name too."""
        fitting = [name for name in self._by_name if f"{named}/".startswith(f"{name}/")]
        return self._by_name[max(fitting, key=len)] if fitting else None

    def _unknown(self, message: str) -> RequestRefused:
        names = ", ".join(sorted(self._by_name))
        return RequestRefused(
            message,
            hint=f"Nothing was sent to a provider. Put {PREFIX}NAME before the path; NAME is one of: {names}.",
            code="unknown_upstream",
            http_status=404,
        )


def dialect_of(path: str, *, speaks_anthropic: bool = False) -> str:
    """Return the provider whose dialect a request speaks."""
    if (
        speaks_anthropic
        or path.endswith(("/v1/messages", "/v1/messages/count_tokens"))
        or "/v1/messages/batches" in path
    ):
        return "anthropic"
    if path.startswith(("/v1beta/", "/v1alpha/", "/upload/v1beta/")) and "/openai/" not in path:
        return "gemini"
    return "openai"


def name_of(url: str) -> str:
    """Return the default name of an upstream: the built-in name for a built-in host, else host:port/path."""
    built_in = built_in_at(url)
    if built_in is not None:
        return built_in
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{host}:{port}{_prefix(parts.path)[0]}"


def built_in_at(url: str) -> str | None:
    """Return the name of the built-in upstream at a URL's host, or None."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    return next((upstream.name for upstream in BUILT_IN if urlsplit(upstream.url).hostname == host), None)


def join(base_path: str, path: str) -> tuple[str, str]:
    """Join a base path, as the SDK takes it, with the path that a client sent.

    A version segment appears once: `/v1` with `/v1/chat/completions` and with `/chat/completions` gives the same path.
    A version in the base (`/v1beta/openai`, `/api/paas/v4`) replaces the client's `/v1`; any other version of the
    client (`/v1beta/models`) replaces a trailing version of the base.

    Returns:
        The full path at the upstream, and its part after the base's prefix, which is in the key.
    """
    prefix, version = _prefix(base_path)
    first, slash, rest = path[1:].partition("/")
    if _VERSION.fullmatch(first):
        if first == "v1" and (version or _has_version(prefix)):
            path = slash + rest
        elif version:
            version = ""
    tail = f"/{version}{path}" if version else path
    return prefix + tail, tail


def _prefix(base_path: str) -> tuple[str, str]:
    """Split a trailing version segment off a base path."""
    trimmed = base_path.rstrip("/")
    head, _, last = trimmed.rpartition("/")
    return (head, last) if _VERSION.fullmatch(last) else (trimmed, "")


def _has_version(prefix: str) -> bool:
    return any(_VERSION.fullmatch(segment) for segment in prefix.split("/"))


def _route(upstream: Upstream, path: str) -> Route:
    parts = urlsplit(upstream.url)
    full, tail = join(parts.path, path)
    return Route(upstream=upstream, path=tail, url=f"{parts.scheme}://{parts.netloc}{full}")
