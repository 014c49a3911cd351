"""Listens (on both addresses of loopback) and accepts only as many clients as there are file descriptors for.

asyncio's own listener accepts until file descriptors run out; uvloop then accepts and closes (libuv's EMFILE trick), so
clients see connection resets that are not logged. Here further clients wait in the kernel's queue.
"""

import asyncio
import errno
import logging
import socket
from typing import Any

from aiohttp import web

from kdproxy.web.server import HttpServer

log = logging.getLogger("kdproxy.web")

BACKLOG = 1_024
_BOTH_LOOPBACKS = frozenset({"127.0.0.1", "localhost"})
_NO_IPV6 = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT, errno.ENOPROTOOPT})
_OUT_OF_FILES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_SHORTAGE_SECONDS = 0.1
_LOG_AGAIN_SECONDS = 60.0
_AT_ONCE = 64
"""Clients accepted in one step of the event loop."""
_PORT_TRIES = 20


def bind(host: str, port: int) -> list[socket.socket]:
    """Return listening sockets. The loopback default means both addresses: some clients resolve localhost to ::1.

    Raises:
        OSError: the port is taken or the address is not this machine's.
    """
    if host not in _BOTH_LOOPBACKS:
        return _bind_all(host, port)
    for _ in range(_PORT_TRIES):
        first = _bind(socket.AF_INET, ("127.0.0.1", port))
        try:
            second = _bind(socket.AF_INET6, ("::1", first.getsockname()[1]))
        except OSError as error:
            if port == 0 and error.errno == errno.EADDRINUSE:
                first.close()  # the port must be free on both addresses
                continue
            if error.errno not in _NO_IPV6:
                log.warning(
                    "cannot listen on [::1]: clients that resolve localhost to ::1 do not reach this proxy",
                    extra={"port": first.getsockname()[1], "reason": error.strerror},
                )
            return [first]
        return [first, second]
    raise OSError(errno.EADDRINUSE, "no port is free on both 127.0.0.1 and ::1")


def _bind_all(host: str, port: int) -> list[socket.socket]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, address in dict.fromkeys((entry[0], entry[4]) for entry in found):
            sockets.append(_bind(family, address))
    except OSError:
        for made in sockets:
            made.close()
        raise
    return sockets


def _bind(family: int, address: tuple[Any, ...]) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
        made.listen(BACKLOG)
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made


class Listener:
    """Accepts until it is closed. aiohttp's runner uses it as an asyncio server."""

    def __init__(self, sockets: list[socket.socket], server: HttpServer) -> None:
        self.sockets = sockets
        self._server = server
        self._has_room = server.has_room
        self._shortage_logged_at = -_LOG_AGAIN_SECONDS
        self._accepting = [asyncio.ensure_future(self._accept(listening)) for listening in sockets]

    def close(self) -> None:
        """Accept no more."""
        for task in self._accepting:
            task.cancel()
        for listening in self.sockets:
            listening.close()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._has_room.wait()
            try:
                client, _ = await loop.sock_accept(listening)
                await self._take(client)
                for _ in range(_AT_ONCE):
                    if not self._has_room.is_set():
                        break
                    client, _ = listening.accept()
                    await self._take(client)
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno in _OUT_OF_FILES:
                    self._log_shortage()
                    self._server.shrink()
                    await asyncio.sleep(_SHORTAGE_SECONDS)
                # Other errors mean that a client left before it was accepted (accept(2)).
                await asyncio.sleep(0)

    async def _take(self, client: socket.socket) -> None:
        client.setblocking(False)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._server, client)
        except OSError:
            client.close()

    def _log_shortage(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._shortage_logged_at + _LOG_AGAIN_SECONDS:
            self._shortage_logged_at = now
            log.error("out of file descriptors: new clients wait; raise the limit of open files (ulimit -n)")


class Site(web.BaseSite):
    """A listener as a site of aiohttp's runner."""

    __slots__ = ("_http", "_sockets")

    def __init__(self, runner: web.ServerRunner, sockets: list[socket.socket], server: HttpServer) -> None:
        super().__init__(runner)
        self._sockets = sockets
        self._http = server

    @property
    def name(self) -> str:
        """Not used."""
        return "kdproxy"

    async def start(self) -> None:
        """Begin to accept."""
        await super().start()
        self._server = Listener(self._sockets, self._http)  # type: ignore[assignment]
