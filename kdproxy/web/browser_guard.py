"""Refuses what a web page of another origin sends: no page may read or use a proxy on the machine of its reader.

A browser names the page in `Origin` (RFC 6454; on every POST, every CORS request and every WebSocket) and its relation
to the target in `Sec-Fetch-Site` (W3C Fetch Metadata). Programs that are no browsers send neither.
"""

from collections.abc import Iterable

from kdproxy.core.header import combined
from kdproxy.core.models import HeaderPairs, Headers
from kdproxy.errors import RequestRefused

_OWN_SITES = frozenset({"none", "same-origin"})
"""`none`: the user typed the address. `same-site` is refused: all ports of localhost are one site."""
_CORS_HEADERS = frozenset(
    {
        "access-control-allow-origin",
        "access-control-allow-credentials",
        "access-control-allow-headers",
        "access-control-allow-methods",
        "access-control-allow-private-network",
        "access-control-allow-local-network",
        "access-control-expose-headers",
        "access-control-max-age",
        "cross-origin-resource-policy",
        "timing-allow-origin",
    }
)


class BrowserGuard:
    """Checks where a request comes from, if a browser sent it."""

    def __init__(self, allowed_origins: Iterable[str]) -> None:
        self._allowed = frozenset(origin.lower() for origin in allowed_origins)

    def check(self, method: str, headers: Headers, *, takes_links: bool = False) -> None:
        """Raises RequestRefused (403) for a page of another origin.

        Args:
            takes_links: whether a link on any page may lead here, as it may to the proxy's own page.
        """
        if method == "OPTIONS" and "Access-Control-Request-Method" in headers:
            raise _refused("The proxy allows no web page to call it: it answers no CORS preflight.")
        if "Origin" in headers:
            origin = (combined(headers, "Origin") or "").lower()
            if origin in self._allowed:
                return
            host = headers.get("Host", "").lower()
            if origin not in (f"http://{host}", f"https://{host}"):
                raise _refused("This request comes from a web page of another origin.")
        if "Sec-Fetch-Site" in headers and (combined(headers, "Sec-Fetch-Site") or "").lower() not in _OWN_SITES:
            if takes_links and "Origin" not in headers and _is_link(method, headers):
                return
            raise _refused("This request comes from a web page of another site.")


def refuse_browsers(headers: Headers) -> None:
    """Raises RequestRefused (403) for any request of a browser."""
    if "Origin" in headers or "Sec-Fetch-Site" in headers:
        raise RequestRefused(
            "The proxy's API is not for browsers.",
            hint="Nothing was done, and nothing was sent to a provider. Use the kdproxy command.",
            code="not_for_browsers",
            http_status=403,
        )


def without_cors(pairs: HeaderPairs) -> HeaderPairs:
    """Return reply headers without those by which an upstream lets web pages read its answers."""
    # Made into a tuple from a list: a generator takes twice as long.
    return tuple([pair for pair in pairs if pair[0].lower() not in _CORS_HEADERS])


def _is_link(method: str, headers: Headers) -> bool:
    """Whether the answer becomes a page of its own, which the page with the link cannot read."""
    return (
        method == "GET"
        and headers.get("Sec-Fetch-Mode", "").lower() == "navigate"
        and headers.get("Sec-Fetch-Dest", "").lower() == "document"
    )


def _refused(message: str) -> RequestRefused:
    return RequestRefused(
        message,
        hint="Nothing was sent to a provider. If it is an application of yours that runs in a browser, add its origin "
        "to allowed_origins (docs/threat-model.md).",
        code="cross_origin",
        http_status=403,
    )
