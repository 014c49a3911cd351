"""What is no question goes to the upstream once and comes back, both as they come: a client's own retries do the rest.

A POST may cost money (batches, endpoints that are not known here), so it is recorded as any call is: `sent` before its
first byte, `ended` before its client has the last one. Event loop only.
"""

from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from kdproxy.core.attempt_outcome import FailureClass, class_of_status
from kdproxy.core.call_event import ERROR_BYTES, Sent
from kdproxy.core.ports import UpstreamClient, UpstreamRequest, UpstreamResponse
from kdproxy.engine.call import Incoming
from kdproxy.engine.call_record import CallRecord
from kdproxy.engine.fetch import Fetcher
from kdproxy.engine.ledger import CallOutcome, Ledger
from kdproxy.engine.pass_through import PassThrough
from kdproxy.errors import KdproxyError, UpstreamFailed


class Relayed(NamedTuple):
    """An answer's head, and its body as it comes. `close` must be called at its end."""

    response: UpstreamResponse
    body: AsyncIterator[bytes]
    close: Callable[[], None]


class Relay:
    """Sends past the cache."""

    def __init__(self, upstream: UpstreamClient, fetcher: Fetcher, ledger: Ledger) -> None:
        self._upstream = upstream
        self._fetcher = fetcher
        self._ledger = ledger
        self.passing = PassThrough()

    async def read(self, request: UpstreamRequest, *, limit_bytes: int) -> tuple[UpstreamResponse, bytes]:
        """Send what costs nothing, and return its whole answer. Raises UpstreamFailed."""
        with self.passing.counted() as ended:
            response = await self._send(request)
            body = await response.read(limit_bytes)
        ended()
        return response, body

    async def relay(self, incoming: Incoming, body: bytes | AsyncIterator[bytes] | None) -> Relayed:
        """Send a request and return when the answer's head is there.

        Raises:
            UpstreamFailed: there is none.
            CallNotRecorded: the disk refuses the call's record, so it was not sent.
        """
        request = UpstreamRequest(
            method=incoming.method, url=incoming.full_url, headers=incoming.forwarded_headers(0), body=body
        )
        call = self._call(incoming) if incoming.method == "POST" else None
        with self.passing.counted() as ended:
            try:
                if call is not None:
                    await self._fetcher.call_log.ready()
                response = await self._send(request if call is None else call.recorded(request))
            except BaseException as error:
                if call is not None:
                    await self._failed(incoming, call, error)
                raise

        def close() -> None:
            response.close()
            if call is not None:
                self._end(incoming, call, CallOutcome.ABANDONED)
            ended()

        if call is None:
            return Relayed(response, response.chunks(), close)
        call.heard(response.status, response.headers)
        return Relayed(response, self._recorded(incoming, response, call), close)

    async def _send(self, request: UpstreamRequest) -> UpstreamResponse:
        try:
            response = await self._upstream.send(request)
        except UpstreamFailed as error:
            if error.was_sent:
                self._ledger.passed()
            raise
        self._ledger.passed()
        return response

    async def _recorded(self, incoming: Incoming, response: UpstreamResponse, call: CallRecord) -> AsyncIterator[bytes]:
        """Yield the body; before its end, or the last of the bytes that its head counts, the call's end is durable."""
        outcome = CallOutcome.ANSWERED
        if response.status >= 400:
            is_refused = class_of_status(response.status) is FailureClass.REFUSED
            outcome = CallOutcome.REFUSED if is_refused else CallOutcome.MAYBE_BILLED
        left, seen = response.content_length, b""
        try:
            while chunk := await response.chunk():
                if response.status >= 400 and len(seen) < ERROR_BYTES:
                    seen += chunk
                    call.said(seen)
                if left is not None:
                    left -= len(chunk)
                    if left <= 0:
                        await self._settled(incoming, call, outcome)
                yield chunk
        except UpstreamFailed as error:
            await self._failed(incoming, call, error)
            raise
        await self._settled(incoming, call, outcome)

    async def _failed(self, incoming: Incoming, call: CallRecord, error: BaseException) -> None:
        if not isinstance(error, UpstreamFailed):
            self._end(incoming, call, None if isinstance(error, KdproxyError) else CallOutcome.ABANDONED)
            return
        outcome = CallOutcome.MAYBE_BILLED if error.maybe_billed else CallOutcome.REFUSED
        await self._settled(incoming, call, outcome, error.message)

    async def _settled(
        self, incoming: Incoming, call: CallRecord, outcome: CallOutcome, reason: str | None = None
    ) -> None:
        self._end(incoming, call, outcome, reason)
        await self._fetcher.call_log.settle()

    def _end(
        self, incoming: Incoming, call: CallRecord, outcome: CallOutcome | None, reason: str | None = None
    ) -> None:
        call.end(outcome, is_billed=self._is_billed(incoming), reason=reason)

    def _call(self, incoming: Incoming) -> CallRecord:
        sent = Sent(
            upstream=incoming.upstream.name,
            sent_at=0.0,  # not yet
            credential=next(iter(incoming.credentials()), ""),
            run=incoming.run,
            path=incoming.path,
            is_free=not self._is_billed(incoming),
        )
        return CallRecord(self._fetcher.call_log, None, self._fetcher.clock, sent)

    def _is_billed(self, incoming: Incoming) -> bool:
        return self._fetcher.billing.is_billed(incoming.upstream, "")
