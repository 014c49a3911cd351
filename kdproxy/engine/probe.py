"""The half-open probe: does the upstream answer at all? One GET of its models, without a credential, at no cost.

A circuit breaker asks it before it lets questions out, so that no paid question is ever a probe. Event loop only.
"""

import asyncio
from collections.abc import Callable
from enum import Enum, auto

from kdproxy.core.models import Upstream
from kdproxy.core.ports import UpstreamClient, UpstreamRequest
from kdproxy.core.server_kind import models_url
from kdproxy.engine.ledger import Ledger
from kdproxy.errors import UpstreamFailed

PROBE_SECONDS = 10.0
_LARGEST_ANSWER = 1 << 20


class ProbeResult(Enum):
    """What a probe found."""

    ANSWERS = auto()
    """Any status but a 5xx, with which a gateway reports that no server is there; 401, 404 and 501 are answers."""
    DOWN = auto()
    UNKNOWN = auto()
    """It accepted the GET and did not answer in time, or broke off: no reason to hold requests."""


class Prober:
    """Makes the GETs and owns their tasks."""

    def __init__(self, client: UpstreamClient, ledger: Ledger) -> None:
        self._client = client
        self._ledger = ledger
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, upstream: Upstream, report: Callable[[ProbeResult], None]) -> None:
        """Probe in the background, and report the result."""
        task = asyncio.get_running_loop().create_task(self._probe(upstream, report))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Stop the probes."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _probe(self, upstream: Upstream, report: Callable[[ProbeResult], None]) -> None:
        found = ProbeResult.UNKNOWN
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                found = await self._ask(upstream)
        except UpstreamFailed as error:
            found = ProbeResult.UNKNOWN if error.was_sent else ProbeResult.DOWN
        except TimeoutError:
            pass
        report(found)

    async def _ask(self, upstream: Upstream) -> ProbeResult:
        request = UpstreamRequest(method="GET", url=models_url(upstream), headers=(), body=b"")
        self._ledger.probed()
        response = await self._client.send(request)
        try:
            await response.read(_LARGEST_ANSWER)
        finally:
            response.close()
        return ProbeResult.DOWN if response.status >= 500 and response.status != 501 else ProbeResult.ANSWERS
