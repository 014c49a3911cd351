"""Asks a server once which one it is, in the background. Known providers' public hosts are never asked.

GET only and without a credential: what a server says to anybody is enough. Nothing waits for the answer;
until it is there the server counts as unknown. Event loop only.
"""

import asyncio
import contextlib
import logging

from multidict import CIMultiDict

from kdproxy.core.models import Upstream
from kdproxy.core.ports import Clock, UpstreamClient, UpstreamRequest
from kdproxy.core.server_kind import Evidence, Recognition, ServerKind, is_free, recognise, urls
from kdproxy.errors import UpstreamFailed
from kdproxy.providers.rules import rules_of

log = logging.getLogger("kdproxy.engine")

ASK_SECONDS = 5.0
"""For each GET: a busy server is slow to answer, and no request waits for it."""
ASK_AGAIN_SECONDS = 30.0
"""After a server could not be reached: it may still be loading its model."""
_LARGEST_ANSWER = 1 << 20


class ServerKinds:
    """What is known of each upstream's server."""

    def __init__(self, client: UpstreamClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._found: dict[str, Recognition | None] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._not_before: dict[str, float] = {}

    def of(self, upstream: Upstream) -> Recognition | None:
        """Return what is known of a server now, and see to it that it is asked. Never waits."""
        if upstream.name in self._found:
            return self._found[upstream.name]
        if not _may_be_asked(upstream):
            self._found[upstream.name] = None
        elif upstream.name not in self._tasks and self._clock.monotonic() >= self._not_before.get(upstream.name, 0.0):
            task = asyncio.get_running_loop().create_task(self._ask(upstream))
            self._tasks[upstream.name] = task
            task.add_done_callback(lambda _: self._tasks.pop(upstream.name, None))
        return None

    def known(self, upstream: Upstream) -> Recognition | None:
        """Return what is known of a server, without asking it."""
        return self._found.get(upstream.name)

    def is_billed(self, upstream: Upstream, model: str) -> bool:
        """Whether a call costs money, as far as is known: the configuration's word, else the server's own."""
        if upstream.billed is not None:
            return upstream.billed
        # It is not asked for this: it would be at each call's first mishap.
        return not is_free(self._found.get(upstream.name), upstream, model)

    async def find_out(self, upstream: Upstream) -> None:
        """Ask a server that is not known yet, and wait until it has answered."""
        if upstream.billed is None and self.of(upstream) is None and (task := self._tasks.get(upstream.name)):
            await asyncio.wait((task,), timeout=ASK_SECONDS)

    async def settled(self) -> None:
        """Wait until nothing is being asked."""
        await asyncio.gather(*self._tasks.values())

    async def close(self) -> None:
        """Stop asking."""
        for task in list(self._tasks.values()):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _ask(self, upstream: Upstream) -> None:
        found: list[Evidence] = []
        for path, url in urls(upstream):
            try:
                async with asyncio.timeout(ASK_SECONDS):
                    found.append(await self._get(path, url))
            except (UpstreamFailed, TimeoutError):
                if not found:
                    # Nothing answers there: that says nothing of what will.
                    self._not_before[upstream.name] = self._clock.monotonic() + ASK_AGAIN_SECONDS
                    return
                continue
            recognition = recognise(found)
            if recognition is not None and (recognition.kind is not ServerKind.LLAMA_CPP or path == "/props"):
                break  # llama.cpp says at its second route how many it runs at once
        recognition = self._found[upstream.name] = recognise(found)
        if recognition is not None:
            log.info(
                "the upstream's server is recognised",
                extra={"upstream": upstream.name, "server": str(recognition.kind)},
            )

    async def _get(self, path: str, url: str) -> Evidence:
        response = await self._client.send(UpstreamRequest(method="GET", url=url, headers=(), body=b""))
        try:
            body = await response.read(_LARGEST_ANSWER)
        finally:
            response.close()
        return Evidence(path=path, status=response.status, headers=CIMultiDict(response.headers), body=body)


def _may_be_asked(upstream: Upstream) -> bool:
    """Whether it may be a server of one's own: no host of a provider that we know by name."""
    return not rules_of(upstream._replace(provider=None)).hosts
