"""The proxy's own endpoints below `/_kdproxy/`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from kdproxy.core.proof import CHALLENGE
from kdproxy.errors import RequestRefused
from kdproxy.web import run_api
from kdproxy.web.api import PREFIX, JobApi
from kdproxy.web.page import page, wants_page
from kdproxy.web.run_api import RunApi

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
    """Handles the proxy's own endpoints."""

    def __init__(
        self,
        api: JobApi,
        runs: RunApi,
        health: Callable[[], Health],
        prove: Callable[[str], str],
        has_repeats: Callable[[], bool],
    ) -> None:
        """Take what the endpoints show; `has_repeats`: a client got the same answer again to a sampled question."""
        self._api = api
        self._runs = runs
        self._has_repeats = has_repeats
        self._health = health
        self._prove = prove

    async def handle(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """Answer a request to one of the proxy's own endpoints."""
        if path == "/_kdproxy/healthz":
            return self._healthz(request)
        if path == run_api.PREFIX or path.startswith(f"{run_api.PREFIX}/"):
            return await self._runs.handle(request, path)
        if path.startswith(PREFIX):
            return await self._api.handle(request, path.removeprefix(PREFIX))
        if path in ("/_kdproxy", "/_kdproxy/") and request.method in ("GET", "HEAD"):
            return self.page(request) if wants_page(request) else self._healthz(request)
        raise RequestRefused(
            "The proxy has no page at this path.",
            hint="Nothing was sent to a provider: paths that begin with /_kdproxy belong to the proxy. Use /_kdproxy/ "
            "(status page for a browser) or /_kdproxy/healthz.",
            code="no_such_page",
            http_status=404,
        )

    def page(self, request: web.BaseRequest) -> web.StreamResponse:
        """Return the status page for a browser."""
        return page(self._health().status, request.headers.get("Host", ""), has_repeats=self._has_repeats())

    def _healthz(self, request: web.BaseRequest) -> web.StreamResponse:
        health = self._health()
        members = health.members()
        challenge = request.query.get("challenge", "")
        if CHALLENGE.fullmatch(challenge):
            members["proof"] = self._prove(challenge)
        return web.json_response(members, status=200 if health.status == "ok" else 503)
