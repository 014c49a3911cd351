"""The proxy's own endpoints below `/_kdproxy/`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from kdproxy.errors import RequestRefused
from kdproxy.web.api import PREFIX, JobApi

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

    def __init__(self, api: JobApi, health: Callable[[], Health]) -> None:
        self._api = api
        self._health = health

    async def handle(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """Answer a request to an own endpoint."""
        if path == "/_kdproxy/healthz":
            health = self._health()
            return web.json_response(health.members(), status=200 if health.status == "ok" else 503)
        if path.startswith(PREFIX):
            return await self._api.handle(request, path.removeprefix(PREFIX))
        raise RequestRefused(
            "The proxy has no such page.", hint="See docs/architecture.md.", code="no_such_page", http_status=404
        )
