"""The proxy's own endpoints below `/_kdproxy/`."""

from aiohttp import web

from kdproxy.engine.ledger import Ledger
from kdproxy.errors import RequestRefused


class Admin:
    """Answers for the proxy itself."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def handle(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """Answer a request to an own endpoint."""
        if path == "/_kdproxy/healthz":
            return web.json_response({"status": "ok"})
        raise RequestRefused(
            "The proxy has no such page.", hint="See docs/architecture.md.", code="no_such_page", http_status=404
        )
