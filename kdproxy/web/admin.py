"""The pages of the proxy for everybody: its health, and the status page of a browser."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from kdproxy.core.proof import CHALLENGE
from kdproxy.web.guard import TokenGuard, is_near
from kdproxy.web.own_routes import Access, Call, OwnRoute
from kdproxy.web.page import page, wants_page

_HINT = "Stored answers are served; new calls wait until the disk can be written again."


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Whether new calls are taken: `ok`, `degraded` (the disk refuses) or `draining` (it shuts down)."""

    status: str
    reason: str | None = None
    hint: str = ""
    """What to do about the reason."""
    unwritten_answers: int = 0
    """Answers that were bought and delivered, and are held in memory only."""

    def members(self) -> dict[str, Any]:
        """Return the JSON of `healthz`."""
        if self.reason is None:
            return {"status": self.status}
        held = {"unwritten_answers": self.unwritten_answers}
        return {"status": self.status, "reason": self.reason, "hint": f"{self.hint} {_HINT}".strip(), **held}


class Admin:
    """Answers for the proxy itself."""

    def __init__(
        self,
        token_guard: TokenGuard,
        health: Callable[[], Health],
        prove: Callable[[str], str],
        has_repeats: Callable[[], bool],
    ) -> None:
        """Take what the pages show; `has_repeats`: a client got the same answer again to a sampled question."""
        self._token_guard = token_guard
        self._has_repeats = has_repeats
        self._health = health
        self._prove = prove

    def routes(self) -> tuple[OwnRoute, ...]:
        """Return the routes."""
        return (
            OwnRoute("GET", "/_kdproxy/healthz", Access.ANYONE, self._healthz),
            OwnRoute("GET", "/_kdproxy/", Access.ANYONE, self._page),
            OwnRoute("GET", "/_kdproxy", Access.ANYONE, self._page),
        )

    async def _page(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        if not wants_page(request):
            return await self._healthz(request, call)
        return page(self._health().status, request.headers.get("Host", ""), has_repeats=self._has_repeats())

    async def _healthz(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        health = self._health()
        # Why it is degraded is for this machine, and for those who have the token.
        is_trusted = is_near(request) or self._token_guard.holds(request.headers, request.query_string)
        members = health.members() if is_trusted else {"status": health.status}
        challenge = request.query.get("challenge", "")
        if CHALLENGE.fullmatch(challenge):
            members["proof"] = self._prove(challenge)
        return web.json_response(members, status=200 if health.status == "ok" else 503)
