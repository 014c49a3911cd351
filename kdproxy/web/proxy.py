"""HTTP in, HTTP out: checks a request, passes it to the engine and sends the reply to the client."""

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import lru_cache, partial
from typing import Any

from aiohttp import HttpVersion11, web

from kdproxy.core import cache_status
from kdproxy.core.models import DEFAULT_NAMESPACE, Disposition, Form, HeaderPairs, Outcome
from kdproxy.core.policy import Mode, mode_of
from kdproxy.core.ports import Clock, Observer
from kdproxy.core.routing import Route, Router, dialect_of
from kdproxy.core.run_ref import RunRef, split, taking_of
from kdproxy.engine.call import Incoming, Reply
from kdproxy.engine.flow import Flow
from kdproxy.engine.keepalive import FailedLate
from kdproxy.engine.ledger import Ledger
from kdproxy.engine.runs import Hold
from kdproxy.errors import KdproxyError, RequestRefused, UpstreamFailed
from kdproxy.providers.base import Endpoint
from kdproxy.providers.question import endpoint_of
from kdproxy.upstream.http import forwardable
from kdproxy.web import errors
from kdproxy.web.browser_guard import BrowserGuard, without_cors
from kdproxy.web.client_timeout import client_timeout
from kdproxy.web.clients import Clients
from kdproxy.web.guard import HostGuard, LoopGuard, TokenGuard
from kdproxy.web.page import wants_page
from kdproxy.web.response import stream_reply, whole_reply
from kdproxy.web.target import OWN_PREFIX, is_own, own_in_run, target_of
from kdproxy.web.unserved import check_served, is_signed

log = logging.getLogger("kdproxy.web")

_OWN_BEGIN = ("_", "%")
_VERSION_HEADER = "anthropic-version"

OwnRoutes = Callable[[web.BaseRequest, str], Awaitable[web.StreamResponse]]


class Proxy:
    """The handler of every request."""

    def __init__(
        self,
        flow: Flow,
        router: Router,
        host_guard: HostGuard,
        browser_guard: BrowserGuard,
        token_guard: TokenGuard,
        ledger: Ledger,
        clients: Clients,
        observers: Sequence[Observer],
        clock: Clock,
        own_routes: OwnRoutes,
        *,
        mode: Mode,
        body_limit_bytes: int,
        patience_seconds: float,
    ) -> None:
        self._flow = flow
        self._host_guard = host_guard
        self._browser_guard = browser_guard
        self._token_guard = token_guard
        self._ledger = ledger
        self._clients = clients
        self._observers = observers
        self._clock = clock
        self._own_routes = own_routes
        self._mode = mode
        self._body_limit_bytes = body_limit_bytes
        self._patience_seconds = patience_seconds
        self._loop_guard = LoopGuard(router.upstreams)
        self.marks = self._loop_guard.marks
        """Headers by which this proxy recognises its own requests: `marks(upstream name)`."""

        @lru_cache(maxsize=4_096)
        def route(method: str, path: str, speaks_anthropic: bool) -> tuple[Route, Endpoint | None, RunRef | None]:
            named, rest = split(path)
            if named is not None and is_own(rest):
                raise own_in_run()
            routed = router.route(rest, speaks_anthropic=speaks_anthropic)
            return routed, endpoint_of(method, routed.path), named

        self._route = route

    async def handle(
        self, request: web.BaseRequest, run_ref: RunRef | None = None, ledger: Ledger | None = None
    ) -> web.StreamResponse:
        """Answer one request; `run_ref` and `ledger`: the run of the port that it came to, and its own totals."""
        path, query, authority = target_of(request)
        spoken = path
        started = self._clock.monotonic()
        reply: Reply | None = None
        incoming: Incoming | None = None
        try:
            self._host_guard.check(request.headers.get("Host"))
            if authority is not None:
                self._host_guard.check(authority)
            if path[1:2] in _OWN_BEGIN and is_own(path):
                ledger = None  # no call of the run
                return await self._own_routes(request, path)
            if path == "/" and wants_page(request):
                ledger = None
                return await self._own_routes(request, OWN_PREFIX)
            self._browser_guard.check(request.method, request.headers)
            check_served(request.headers, query)
            self._loop_guard.check(request.headers)  # first: a looped request no longer carries the token
            self._token_guard.check(request.headers, query)
            route, endpoint, named = self._route(request.method, path, _VERSION_HEADER in request.headers)
            spoken = route.path
            incoming = self._incoming(request, route, query, named or run_ref, streams_body=endpoint is None)
            incoming.ledger = ledger
            reply = await self._ask(request, incoming, endpoint)
            if isinstance(reply.body, bytes):
                response = whole_reply(request, status=reply.status, headers=_headers(reply), body=reply.body)
                sent = len(reply.body)
                if reply.hold is not None and reply.status < 300:  # an error is no sample
                    await _deliver(request, response, reply.hold)
                    self._clients.delivered(request, response, reply.hold)
            else:
                response, sent = await _stream(request, reply, reply.body, spoken, self._clients)
            question = reply.question
            if question is not None and question.is_sampled and reply.status < 300:
                self._clients.note_sampled(request, incoming, question.key)
            self._observe(request, path, incoming, reply, started, sent)
            return response
        except KdproxyError as error:
            if ledger is not None:
                ledger.count(_disposition(error))
            self._observe_refusal(request, path, incoming, error, started)
            return whole_reply(
                request,
                status=error.http_status,
                headers=errors.headers(error),
                body=errors.body(error, _dialect(request, spoken)),
            )
        finally:
            if reply is not None and reply.close is not None:
                reply.close()
            if reply is not None and reply.hold is not None:
                reply.hold.close()

    async def _ask(self, request: web.BaseRequest, incoming: Incoming, endpoint: Endpoint | None) -> Reply:
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        if endpoint is None:
            return await self._flow.pass_through(incoming, _streamed_body(request))
        body = await _read(request, self._body_limit_bytes)
        return await self._flow.answer(incoming, endpoint, body)

    def _incoming(
        self, request: web.BaseRequest, route: Route, query: str, run_ref: RunRef | None, *, streams_body: bool
    ) -> Incoming:
        headers = request.headers
        timeout = client_timeout(headers)
        name = route.upstream.name
        guard = self._token_guard
        return Incoming(
            method=request.method,
            path=route.path,
            query=guard.forwarded_query(query, name),
            url=route.url,
            upstream=route.upstream,
            headers=headers,
            namespace=DEFAULT_NAMESPACE,
            mode=mode_of(headers, self._mode),
            forwarded_headers=partial(
                _forwarded, guard, headers, name, keep_length=streams_body, marks=self._loop_guard.marks(name)
            ),
            credentials=partial(guard.fingerprints, headers, query, name),
            # A tenth less than the client's own timeout, so that our answer arrives before the client gives up.
            patience_seconds=self._patience_seconds if timeout is None else 0.9 * timeout,
            least_seconds=timeout or 0.0,
            run_ref=run_ref,
            taking=taking_of(headers),
        )

    def _observe(
        self, request: web.BaseRequest, path: str, incoming: Incoming, reply: Reply, started: float, sent: int
    ) -> None:
        disposition = reply.disposition
        self._ledger.count(disposition)
        if incoming.ledger is not None:
            incoming.ledger.count(disposition if reply.status < 400 else Disposition.FAILED)
        observers = [observer for observer in self._observers if observer.wants(disposition)]
        if observers:
            # After the reply: aiohttp writes it in this step of the event loop.
            asyncio.get_running_loop().call_soon(self._notify, observers, request, path, incoming, reply, started, sent)

    def _notify(
        self,
        observers: Sequence[Observer],
        request: web.BaseRequest,
        path: str,
        incoming: Incoming,
        reply: Reply,
        started: float,
        sent: int,
    ) -> None:
        question, flight = reply.question, None if reply.flight is None else reply.flight()
        outcome = Outcome(
            disposition=reply.disposition,
            method=request.method,
            path=path,
            upstream=incoming.upstream.name,
            status=reply.status,
            elapsed_seconds=self._clock.monotonic() - started,
            model=None if question is None else question.model,
            key=None if question is None else question.key,
            attempts=0 if flight is None else flight.attempts,
            stored=False if flight is None else flight.is_stored,
            bytes_out=sent,
            usage=None if flight is None else flight.usage,
        )
        for observer in observers:
            observer.observe(outcome)

    def _observe_refusal(
        self, request: web.BaseRequest, path: str, incoming: Incoming | None, error: KdproxyError, started: float
    ) -> None:
        disposition = _disposition(error)
        self._ledger.count(disposition)
        outcome = Outcome(
            disposition=disposition,
            method=request.method,
            path=path,
            upstream=None if incoming is None else incoming.upstream.name,
            status=error.http_status,
            elapsed_seconds=self._clock.monotonic() - started,
            error=error.code,
            reason=error.message if isinstance(error, UpstreamFailed) else None,
        )
        for observer in self._observers:
            if observer.wants(disposition):
                observer.observe(outcome)


def _disposition(error: KdproxyError) -> Disposition:
    return Disposition.REFUSED if isinstance(error, RequestRefused) else Disposition.FAILED


def _forwarded(
    guard: TokenGuard, headers: Any, upstream: str, key_index: int, *, keep_length: bool, marks: HeaderPairs
) -> HeaderPairs:
    return guard.forwarded(forwardable(headers, keep_length=keep_length), upstream, key_index) + marks


def _headers(reply: Reply) -> HeaderPairs:
    # An upstream cache's own Cache-Status stays before ours (RFC 9211 section 2).
    return (*without_cors(reply.headers), (cache_status.HEADER, reply.cache_status))


async def _deliver(request: web.BaseRequest, response: web.StreamResponse, hold: Hold) -> None:
    """Write a whole reply that delivers a sample of a run: the sample is used before its last byte is written."""
    hold.use()
    try:
        await response.prepare(request)  # writes it
    except ConnectionResetError:
        return  # the client has left: aiohttp ends the connection
    hold.delivered()


async def _stream(
    request: web.BaseRequest, reply: Reply, body: AsyncIterator[bytes], path: str, clients: Clients
) -> tuple[web.StreamResponse, int]:
    response = stream_reply(request, status=reply.status, headers=_headers(reply), length=reply.content_length)
    sent = 0
    try:
        await response.prepare(request)
        async with contextlib.aclosing(body) as chunks:  # type: ignore[type-var]  # every body here is a generator
            async for chunk in chunks:
                await response.write(chunk)
                sent += len(chunk)
        if reply.hold is not None:
            reply.hold.delivered()
            clients.delivered(request, response, reply.hold)
        await response.write_eof()
    except ConnectionResetError:
        log.debug("a client left before the end of its answer")  # aiohttp ends the connection
    except FailedLate as failed:
        log.info("an answer failed after keep-alive bytes were sent", extra={"reason": failed.error.message})
        if reply.question is not None and reply.question.form is Form.SSE:
            await response.write(errors.late_event(failed.error, failed.body, _dialect(request, path)))
            await response.write_eof()
        else:
            response.flush()
            _cut(request)
    except KdproxyError as error:
        # Once the head is out, only a cut connection shows that the rest is missing. Without a head the client would
        # think that the call never reached a server.
        log.info("an answer was cut", extra={"reason": error.message})
        response.flush()
        _cut(request)
    return response, sent


def _cut(request: web.BaseRequest) -> None:
    transport = request.transport
    if transport is None:
        return
    if request.version < HttpVersion11:
        # The body ends with the connection (RFC 9112 section 6.3): only a reset shows that the rest is missing.
        _reset_on_close(transport)
        transport.abort()
    else:
        transport.close()


def _reset_on_close(transport: asyncio.Transport) -> None:
    found = transport.get_extra_info("socket")
    if found is not None:
        with socket.socket(fileno=os.dup(found.fileno())) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _dialect(request: web.BaseRequest, path: str) -> str:
    """Return the dialect of a client, from its path at the upstream (without the upstream's name)."""
    if is_signed(request.headers, request.query_string):
        return "aws"
    return dialect_of(path, speaks_anthropic=_VERSION_HEADER in request.headers)


async def _read(request: web.BaseRequest, limit_bytes: int) -> bytes:
    length = request.content_length
    if length is not None and length > limit_bytes:
        raise _too_large(limit_bytes)
    content = request.content
    first = await content.readany()
    if content.at_eof():
        return first
    parts = [first]
    size = len(first)
    while not content.at_eof():
        part = await content.readany()
        parts.append(part)
        size += len(part)
        if size > limit_bytes:
            raise _too_large(limit_bytes)
    return b"".join(parts)


def _too_large(limit_bytes: int) -> RequestRefused:
    return RequestRefused(
        f"The request body is larger than {limit_bytes} bytes.",
        hint="Nothing was sent to the provider. Send a smaller request, or raise body_limit_bytes.",
        code="body_too_large",
        http_status=413,
    )


def _streamed_body(request: web.BaseRequest) -> AsyncIterator[bytes] | None:
    if not request.body_exists:
        return None
    return request.content.iter_any()
