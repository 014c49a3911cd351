"""The proxy's own endpoints below `/_kdproxy/`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from kdproxy.core.proof import CHALLENGE
from kdproxy.errors import RequestRefused
from kdproxy.web.api import PREFIX, JobApi
from kdproxy.web.page import page, wants_page

_HINT = "Stored answers are served; new calls wait till writing works."


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Whether new calls are taken: `ok`, `degraded` (the disk refuses) or `draining` (it shuts down)."""

    status: str
    reason: str | None = None
    hint: str = ""
    """What to do about the reason."""
    unwritten_answers: int = 0
    """Bought, delivered, and held by memory alone."""

    def members(self) -> dict[str, Any]:
        """Return the JSON of `healthz`."""
        if self.reason is None:
            return {"status": self.status}
        held = {"unwritten_answers": self.unwritten_answers}
        return {"status": self.status, "reason": self.reason, "hint": f"{self.hint} {_HINT}".strip(), **held}


class Admin:
    """Answers for the proxy itself."""

    def __init__(self, api: JobApi, health: Callable[[], Health], prove: Callable[[str], str]) -> None:
        self._api = api
        self._health = health
        self._prove = prove

    async def handle(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """Answer a request to an own endpoint."""
        if path == "/_kdproxy/healthz":
            return self._healthz(request)
        if path.startswith(PREFIX):
            return await self._api.handle(request, path.removeprefix(PREFIX))
        if path in ("/_kdproxy", "/_kdproxy/") and request.method in ("GET", "HEAD"):
            return self.page(request) if wants_page(request) else self._healthz(request)
        raise RequestRefused(
            "The proxy has no such page.",
            hint="There are /_kdproxy/ (what this is, for a browser) and /_kdproxy/healthz. What begins with /_kdproxy "
            "is the proxy's own and never goes to an upstream.",
            code="no_such_page",
            http_status=404,
        )

    def page(self, request: web.BaseRequest) -> web.StreamResponse:
        """Return what a browser gets: what this is, and whether it works."""
        return page(self._health().status, request.headers.get("Host", ""))

    def _healthz(self, request: web.BaseRequest) -> web.StreamResponse:
        health = self._health()
        members = health.members()
        challenge = request.query.get("challenge", "")
        if CHALLENGE.fullmatch(challenge):
            members["proof"] = self._prove(challenge)
        return web.json_response(members, status=200 if health.status == "ok" else 503)
