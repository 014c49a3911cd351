"""An open attempt: its key, its own totals, and the loopback port whose every path belongs to it.

Some clients drop the path of a base URL, so a run by path would lose its samples: a port of its own cannot be lost.
"""

import secrets
from collections.abc import Callable
from typing import Any

from aiohttp import web

from kdproxy.core.models import Disposition
from kdproxy.core.run_ref import RunRef
from kdproxy.engine.ledger import Ledger
from kdproxy.engine.runs import Attempt
from kdproxy.errors import KdproxyError
from kdproxy.web.listener import Site, bind
from kdproxy.web.server import Handler, HttpServer

HOST = "127.0.0.1"
_SUMS = ("input_tokens", "output_tokens", "uncounted_answers", "bought_usd", "unpriced_answers")
CLOSE_SECONDS = 5.0
"""How long requests that are still under way may take when the port is closed."""


class OpenAttempt:
    """An attempt that a client of the run API has opened and not closed."""

    def __init__(self, ref: RunRef, attempt: Attempt, *, pid: int | None) -> None:
        self.ref = ref
        self.attempt = attempt
        self.pid = pid
        """The process that opened it, if it said so."""
        self.key = secrets.token_hex(16)
        self.ledger = Ledger()
        self.address: str | None = None
        self._under_way = 0
        self._runner: web.ServerRunner | None = None

    async def listen(self, handler: Handler, port: int, make_server: Callable[[Handler], HttpServer]) -> None:
        """Open its port; 0: a free one.

        Raises:
            KdproxyError: the port is taken.
        """

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            self._under_way += 1
            try:
                return await handler(request)
            finally:
                self._under_way -= 1

        server = make_server(handle)
        runner = web.ServerRunner(server, shutdown_timeout=CLOSE_SECONDS)
        await runner.setup()
        try:
            await Site(runner, bind(HOST, port), server).start()
        except OSError as error:
            await runner.cleanup()
            raise KdproxyError(
                f"kdproxy cannot listen on port {port} for this attempt ({error.strerror}).",
                hint="Nothing was sent. Choose another port, or 0 for a free one.",
                code="address_unusable",
                http_status=409,
            ) from error
        self._runner = runner
        self.address = f"http://{HOST}:{runner.addresses[0][1]}"

    def bill(self) -> dict[str, Any]:
        """Return what came to its port so far, and what was bought for it."""
        requests, totals = self.ledger.requests, self.ledger.as_dict()
        return {
            "calls": sum(requests.values()),
            "hits": requests[Disposition.HIT] + requests[Disposition.PROMPT_HIT],
            "misses": requests[Disposition.MISS],
            "joined": requests[Disposition.JOINED],
            "uncached": requests[Disposition.BYPASS],
            "failed": requests[Disposition.FAILED] + requests[Disposition.REFUSED],
            "under_way": self._under_way,
            "was_called": bool(requests) or self._under_way > 0,
            "bought": self.ledger.stored,
            **{name: totals[name] for name in _SUMS},
        }

    async def close(self) -> None:
        """Close its port. Answers that were bought for it are stored all the same."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()
