"""aiohttp's low-level server without its own messages, which would echo what a client sent.

aiohttp 3.14 writes a malformed Authorization value into the 400 body and the error log, and query strings with their
keys into the access log. Here a bad request gets a neutral answer, and nothing of it is logged.
"""

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from kdproxy.core import cache_status
from kdproxy.engine.repeats import Asker
from kdproxy.engine.runs import Hold
from kdproxy.web.response import WholeReply

log = logging.getLogger("kdproxy.web")

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

MAX_HEADER_BYTES = 65_536


class _SilentLogger(logging.LoggerAdapter[logging.Logger]):
    """Logs only aiohttp's constant message, without arguments, and the class name in place of a traceback."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        info = kwargs.get("exc_info")
        error = info if isinstance(info, BaseException) else None
        log.log(level, "connection: %s", str(msg).partition("%")[0].strip(), extra={"error": type(error).__name__})


class Connection(RequestHandler):
    """A connection whose error replies never quote the request."""

    __slots__ = ("asker", "authorization", "delivered", "delivered_at", "has_asked")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.has_asked = False
        self.asker: Asker | None = None
        """The client, once it has asked a sampled question without a run."""
        self.authorization: str | None = None
        """The header that it was recognised by."""
        self.delivered: Hold | None = None
        """The sample whose last byte was written, until the next request."""
        self.delivered_at = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether its last request has been answered. A new connection is not idle: its request is about to come."""
        return self.has_asked and self._current_request is None and not self._messages

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that could not be read, or whose handler crashed."""
        code, text = "bad_request", "kdproxy: The request is not valid HTTP; nothing was sent to the provider."
        if status < 500 and _is_tls(exc) and isinstance(self._manager, HttpServer):
            self._manager.warn_of_tls()
        if status >= 500:
            code, text = "internal_error", "kdproxy: The proxy crashed on this request (a bug: see the proxy's log)."
            log.error("a request crashed", extra={"error": type(exc).__name__, "at": _place(exc)})
        if request.writer.output_size > 0:
            raise ConnectionError("the reply has begun")
        response = WholeReply(
            status=status,
            body=orjson.dumps({"error": {"message": text, "type": "kdproxy_error", "param": None, "code": code}}),
            headers={"Content-Type": "application/json", cache_status.HEADER: cache_status.refused(code)},
        )
        response.force_close()
        return response


def _is_tls(error: BaseException | None) -> bool:
    """Whether a client began with a TLS handshake, by aiohttp's message."""
    return error is not None and "HTTPS traffic on an HTTP port" in str(error)


def _place(error: BaseException | None) -> str | None:
    """Return where an exception was raised. Its text is not logged, since it can quote the request."""
    frames = traceback.extract_tb(None if error is None else error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else None


class _Request(web.BaseRequest):
    """A request whose connection is closed after the reply if other clients wait for its place."""

    @property
    def keep_alive(self) -> bool:
        """Whether the connection stays open after the reply."""
        server = self._protocol._manager
        return not self._message.should_close and not (isinstance(server, HttpServer) and server.is_crowded)


class HttpServer(web.Server):
    """A server below aiohttp's router: one handler, no middlewares, no access log."""

    def __init__(
        self,
        handler: Handler,
        *,
        room: int = 1 << 20,
        on_shortage: Callable[[], None] = lambda: None,
        on_lost: "Callable[[Connection, bool], None]" = lambda connection, is_reset: None,
    ) -> None:
        """Take the handler of all requests.

        Args:
            on_lost: called for each connection that ends, with whether it was reset.
        """
        self._on_shortage = on_shortage
        self._on_lost = on_lost
        self._room = room
        self.has_room = asyncio.Event()
        """Set while another client may be accepted."""
        self.has_room.set()
        self._clients = 0
        self._has_warned = False
        self._has_warned_of_tls = False
        super().__init__(
            handler,
            request_factory=self._request,
            # A client that disconnects cancels its handler, which takes its request out of the queue.
            handler_cancellation=True,
        )
        self._handler_options: dict[str, Any] = {
            "access_log": None,
            "logger": _SilentLogger(log, {}),
            # Bodies are forwarded as they came, compressed or not.
            "auto_decompress": False,
            "max_line_size": MAX_HEADER_BYTES,
            "max_field_size": MAX_HEADER_BYTES,
            "read_bufsize": 1 << 18,
        }

    @property
    def is_crowded(self) -> bool:
        """Whether connections are closed after their reply: idle clients keep at most three quarters of the places."""
        return self._clients > self._room * 3 // 4

    def _request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        protocol.has_asked = True
        protocol.delivered = None
        return _Request(message, payload, protocol, writer, task, self._loop)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Count a client in."""
        super().connection_made(handler, transport)
        self._clients += 1
        if self._clients >= self._room:
            self.has_room.clear()
            if not self._has_warned:
                self._has_warned = True
                log.warning(
                    "maximum number of clients connected: others wait until one has its answer; "
                    "raise the limit of open files (ulimit -n)",
                    extra={"clients": self._room},
                )
            self._close_idle()

    def warn_of_tls(self) -> None:
        """Log once that a client speaks TLS: the client itself sees only a failed handshake."""
        if not self._has_warned_of_tls:
            self._has_warned_of_tls = True
            log.warning("a client spoke TLS, but this proxy speaks plain HTTP: its base URL must begin with http://")

    def shrink(self) -> None:
        """Accept fewer clients: fewer file descriptors are available than the limit promised."""
        self._room = max(1, min(self._room, self._clients * 2 // 3))
        self._on_shortage()
        self._close_idle()

    def _close_idle(self) -> None:
        for client in self.connections:
            if isinstance(client, Connection) and client.is_idle:
                client.force_close()

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """Count a client out."""
        super().connection_lost(handler, exc)
        # Its file descriptor is closed, even if its handler is still running.
        self._clients -= 1
        if self._clients < self._room:
            self.has_room.set()
        if isinstance(handler, Connection):
            self._on_lost(handler, exc is not None)

    def __call__(self) -> RequestHandler:
        """Return the protocol of a new connection."""
        return Connection(self, loop=asyncio.get_running_loop(), **self._handler_options)
