"""The proxy's own routes, behind one guard that denies by default.

A route is a row that says who may call it. A path without a row is a 404, and a row cannot be made without `access`.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from aiohttp import web

from kdproxy.errors import RequestRefused
from kdproxy.web.attempt_port import OpenAttempt
from kdproxy.web.browser_guard import BrowserGuard, refuse_browsers
from kdproxy.web.guard import bearer, is_same_secret

_HEADERS = {
    "Server": "kdproxy",  # in place of aiohttp's, which names the releases of Python and aiohttp
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


class Access(StrEnum):
    """Who may call a route."""

    ANYONE = "anyone"
    """Whoever reaches the port, browsers too: its answer may hold nothing that is secret beyond this machine."""
    OWNER = "owner"
    """Who has the token of the lock file. No browser."""
    RUN = "run"
    """The same, and who has the key of an open attempt of the run that the path names first. No browser."""


class Call(NamedTuple):
    """An admitted call: the words of its path in the places of `*`, and the attempt whose key it carries."""

    words: tuple[str, ...] = ()
    attempt: OpenAttempt | None = None


Answer = Callable[[web.BaseRequest, Call], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class OwnRoute:
    """One row of the table."""

    method: str
    """GET stands for HEAD too."""
    shape: str
    """A path; `*` is one word."""
    access: Access
    answer: Answer
    _pattern: re.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        pattern = "".join("([^/]+)" if part == "*" else re.escape(part) for part in re.split(r"(\*)", self.shape))
        object.__setattr__(self, "_pattern", re.compile(pattern))

    def words(self, path: str) -> tuple[str, ...] | None:
        """Return the words of a path in the places of `*`, or None if it is another path."""
        found = self._pattern.fullmatch(path)
        return None if found is None else found.groups()


class OwnRoutes:
    """The table and its guard."""

    def __init__(
        self,
        routes: Sequence[OwnRoute],
        browser_guard: BrowserGuard,
        owner_token: str,
        attempt_with: Callable[[str, str], OpenAttempt | None],
    ) -> None:
        """Take the table; `attempt_with` returns the open attempt of a run that has a key."""
        self.routes = tuple(routes)
        self._browser_guard = browser_guard
        self._owner_token = owner_token
        self._attempt_with = attempt_with

    async def handle(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """Answer a request to an own path. Raises RequestRefused."""
        method = "GET" if request.method == "HEAD" else request.method
        at = [(route, words) for route in self.routes if (words := route.words(path)) is not None]
        found = next(((route, words) for route, words in at if route.method == method), None)
        if found is None:
            self._browser_guard.check(request.method, request.headers)
            raise _wrong_method([route.method for route, _ in at]) if at else _no_such_page()
        route, words = found
        response = await route.answer(request, Call(words, self._admit(request, route, words)))
        if not response.prepared:  # a job's answer is written while it runs
            for name, value in _HEADERS.items():
                response.headers.setdefault(name, value)
        return response

    def _admit(self, request: web.BaseRequest, route: OwnRoute, words: tuple[str, ...]) -> OpenAttempt | None:
        match route.access:
            case Access.ANYONE:
                self._browser_guard.check(request.method, request.headers, takes_links=True)
                return None
            case Access.OWNER | Access.RUN:
                refuse_browsers(request.headers)
        given = bearer(request.headers)
        is_owner = given is not None and is_same_secret(given, self._owner_token)
        attempt = None
        if not is_owner and given is not None and route.access is Access.RUN:
            attempt = self._attempt_with(words[0], given)
        if not is_owner and attempt is None:
            raise _refused(
                "The token of the proxy's API is missing or wrong, or belongs to another run.", "unauthorized", 401
            )
        if request.body_exists and request.content_type != "application/json":
            raise _refused("The Content-Type of the body is not application/json.", "not_json", 415)
        return attempt


def _refused(message: str, code: str, status: int) -> RequestRefused:
    return RequestRefused(
        message,
        hint="Nothing was done, and nothing was sent to a provider. Use the kdproxy command: it finds the address and "
        "the token. docs/samples.md describes the API of runs.",
        code=code,
        http_status=status,
    )


def _wrong_method(methods: list[str]) -> RequestRefused:
    return _refused(f"This path of the proxy takes {' or '.join(methods)} only.", "method_not_allowed", 405)


def _no_such_page() -> RequestRefused:
    return RequestRefused(
        "The proxy has no page at this path.",
        hint="Nothing was sent to a provider: paths that begin with /_kdproxy belong to the proxy. Use /_kdproxy/ "
        "(status page for a browser) or /_kdproxy/healthz.",
        code="no_such_page",
        http_status=404,
    )
