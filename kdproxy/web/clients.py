"""What the life of a connection says about its client: which program asks, and whether it has read what it was sent."""

from aiohttp import web

from kdproxy.core.ports import Clock
from kdproxy.engine.call import Incoming
from kdproxy.engine.repeats import Asker, Repeats
from kdproxy.engine.runs import Hold
from kdproxy.engine.unread import UnreadSamples
from kdproxy.web.guard import TokenGuard
from kdproxy.web.server import Connection


class Clients:
    """Event loop only."""

    def __init__(self, token_guard: TokenGuard, repeats: Repeats, unread: UnreadSamples, clock: Clock) -> None:
        self._token_guard = token_guard
        self._repeats = repeats
        self._unread = unread
        self._clock = clock

    def lost(self, connection: Connection, *, is_reset: bool) -> None:
        """Take note that a connection has ended."""
        if connection.asker is not None:
            self._repeats.leave(connection.asker)
            connection.asker = None
        if connection.delivered is not None:
            self._unread.lost(connection.delivered, connection.delivered_at, is_reset=is_reset)

    def delivered(self, request: web.BaseRequest, response: web.StreamResponse, hold: Hold) -> None:
        """Take note that the last byte of a sample was written."""
        connection = request.protocol
        if request.transport is None:
            self._unread.lost(hold, self._clock.monotonic(), is_reset=True)
        elif isinstance(connection, Connection) and response.keep_alive:  # else the proxy itself closes it
            connection.delivered, connection.delivered_at = hold, self._clock.monotonic()

    def note_sampled(self, request: web.BaseRequest, incoming: Incoming, key: str) -> None:
        """Note that a client was given an answer to a sampled question, if there is one for all who ask."""
        if incoming.run_ref is not None or incoming.taking is not None or not incoming.mode.reads:
            return
        connection = request.protocol
        if not isinstance(connection, Connection):
            return
        authorization = incoming.headers.get("Authorization")
        asker = connection.asker
        if asker is None or connection.authorization != authorization:
            if request.transport is None:
                return  # it has ended in the meantime
            asker = self._recognise(connection, incoming)
            connection.authorization = authorization
        self._repeats.note(asker, key)

    def _recognise(self, connection: Connection, incoming: Incoming) -> Asker:
        if connection.asker is not None:  # another credential on the same connection
            self._repeats.leave(connection.asker)
        credential = self._token_guard.fingerprint(incoming.headers, incoming.query)
        connection.asker = self._repeats.connect(credential, incoming.headers.get("User-Agent", ""))
        return connection.asker
