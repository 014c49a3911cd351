"""The proxy's own endpoints below `/_kdproxy/`."""

from aiohttp import web

from kdproxy.errors import RequestRefused
from kdproxy.web.api import PREFIX, JobApi


class Admin:
    """Answers for the proxy itself."""

    def __init__(self, api: JobApi) -> None:
        self._api = api

    async def handle(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """Answer a request to an own endpoint."""
        if path == "/_kdproxy/healthz":
            return web.json_response({"status": "ok"})
        if path.startswith(PREFIX):
            return await self._api.handle(request, path.removeprefix(PREFIX))
        raise RequestRefused(
            "The proxy has no such page.", hint="See docs/architecture.md.", code="no_such_page", http_status=404
        )
