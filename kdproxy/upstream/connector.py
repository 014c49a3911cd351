"""aiohttp's connector with this package's protocol. aiohttp does addresses, TLS and pooling; tunnels are ours."""

import asyncio
import errno
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.connector import Connection

from kdproxy.upstream.connection import CutOff, StrayResponse, UpstreamConnection
from kdproxy.upstream.framing import BadFraming

if TYPE_CHECKING:
    from aiohttp.tracing import Trace


QUARANTINE_SECONDS = 0.1
"""How long a connection rests after an answer. A faulty gateway's second response comes within this time, when no
request is under way that it could be matched to. The price: the extra connections of a tenth of a second."""

_OUT_OF_FILES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
"""This machine has run out of file descriptors, buffers or local ports: the upstream is not at fault."""


class TunnelRefused(Exception):
    """The environment's proxy refused the tunnel to the upstream. The text says why."""


def wire_of(protocol: Any) -> UpstreamConnection:
    """Return the connection's protocol with its real type: aiohttp's annotation names its own."""
    assert isinstance(protocol, UpstreamConnection)
    return protocol


def is_shortage(error: BaseException | None) -> bool:
    """Whether a connection failed because this machine ran out of a resource."""
    found = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return isinstance(found, OSError) and found.errno in _OUT_OF_FILES


class Connector(aiohttp.TCPConnector):
    """Makes and pools UpstreamConnections. It overrides aiohttp internals, so aiohttp's minor release is pinned."""

    def __init__(self, on_stray: Callable[[UpstreamConnection], None]) -> None:
        # Not aiodns, which aiohttp uses if it is installed: its errors do not say whether a name exists.
        super().__init__(limit=0, ttl_dns_cache=60, resolver=aiohttp.ThreadedResolver())
        loop = asyncio.get_running_loop()
        self.resolved: set[str] = set()
        """Names that DNS has resolved: a failure to resolve one of them later is not a typing error."""
        self.connected: set[tuple[str | None, int | None]] = set()
        """Hosts and ports with a past connection, TLS included where it is used."""
        self._factory = lambda: UpstreamConnection(loop, on_stray)  # type: ignore[assignment]

    def close_idle(self) -> None:
        """Close all connections that are not in use."""
        for idle in self._conns.values():
            for protocol, _ in idle:
                protocol.close()
        self._conns.clear()

    async def _get(self, key: Any, traces: list["Trace"]) -> Connection | None:
        """Take the connection that has been idle longest, if it has rested long enough."""
        idle = self._conns.get(key)
        if idle and monotonic() - idle[0][1] < QUARANTINE_SECONDS:
            return None
        return await super()._get(key, traces)

    async def _resolve_host(self, host: str, port: int, traces: Any = None) -> Any:
        found = await super()._resolve_host(host, port, traces)
        self.resolved.add(host)
        return found

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list["Trace"], timeout: aiohttp.ClientTimeout
    ) -> Any:
        made = await super()._create_connection(req, traces, timeout)
        self.connected.add((req.url.raw_host, req.port))
        return made

    async def _create_proxy_connection(
        self, req: aiohttp.ClientRequest, traces: list["Trace"], timeout: aiohttp.ClientTimeout
    ) -> Any:
        proxied = self._update_proxy_auth_header_and_build_proxy_req(req)
        transport, made = await self._create_direct_connection(
            proxied, [], timeout, client_error=aiohttp.ClientProxyConnectionError
        )
        wire = wire_of(made)
        if not req.is_ssl():
            return transport, wire
        try:
            async with asyncio.timeout(timeout.sock_connect):
                await _open_tunnel(wire, req, proxied.headers.get("Proxy-Authorization"))
        except BaseException:
            transport.close()
            raise
        return await self._start_tls_connection(transport, req=req, timeout=timeout)


async def _open_tunnel(wire: UpstreamConnection, req: aiohttp.ClientRequest, credential: str | None) -> None:
    """Ask the proxy for a tunnel to the upstream (RFC 9110 section 9.3.6). Raises TunnelRefused."""
    host = req.url.raw_host or ""
    target = f"[{host}]:{req.url.port}" if ":" in host else f"{host}:{req.url.port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if credential is not None:
        lines.append(f"Proxy-Authorization: {credential}")
    wire.begin("CONNECT", f"proxy for {target}")
    try:
        wire.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        head = await wire.head()
    except CutOff as error:
        raise TunnelRefused("it closed the connection") from error
    except (BadFraming, StrayResponse) as error:
        raise TunnelRefused("its reply is not HTTP/1.1") from error
    if not 200 <= head.status < 300:
        raise TunnelRefused(f"it answered {head.status}")
    if wire.is_stray:
        raise TunnelRefused("it sent more than its reply")
