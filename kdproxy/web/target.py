"""What a request line asks for: path and query as they were sent, and whether the path is the proxy's own."""

import re
from urllib.parse import unquote

from aiohttp import web

from kdproxy.errors import RequestRefused

OWN_PREFIX = "/_kdproxy/"
_ABSOLUTE = re.compile(r"(?i)https?://([^/?#]*)(?=[/?]|$)")


def is_own(path: str) -> bool:
    """Whether a path belongs to the proxy, in any spelling: it never goes to an upstream."""
    spoken = unquote(path)
    return spoken == OWN_PREFIX[:-1] or spoken.startswith(OWN_PREFIX)


def own_in_run() -> RequestRefused:
    """Return the refusal of an own path below a run."""
    return RequestRefused(
        "The proxy's own paths do not stand below a run.",
        hint=f"Nothing was sent to a provider. Ask for {OWN_PREFIX} at the beginning of the path.",
        code="no_such_page",
        http_status=404,
    )


def target_of(request: web.BaseRequest) -> tuple[str, str, str | None]:
    """Return path and query exactly as in the request line: nothing decoded, nothing normalised.

    The third value is the host of a request in absolute form, which a server must accept (RFC 9112 section 3.2.2).
    """
    target = request.raw_path
    authority = None
    if not target.startswith("/") and (match := _ABSOLUTE.match(target)) is not None:
        authority, target = match[1], target[match.end() :] or "/"
    path, _, query = target.partition("?")
    return path or "/", query, authority
