"""Records which delivered samples a client may never have read, by how its connection ended after the delivery.

A killed program's kernel resets a connection with bytes that were not read, and closes the others. So a reset always
counts. A close counts if it comes right after the delivery and its attempt stays silent: a living program that closes a
connection asks again on another one.
"""

import asyncio

from kdproxy.core.ports import Clock
from kdproxy.engine.runs import Hold

CLOSE_SECONDS = 1.0
"""How soon after the delivery a close must come."""
SILENCE_SECONDS = 1.0
"""How long the attempt must be silent after it."""


class UnreadSamples:
    """Event loop only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._closed: list[tuple[Hold, int, float]] = []
        """Samples whose connections were closed, how many samples their attempts had been asked for, and when."""
        self._timer: asyncio.TimerHandle | None = None
        self._is_stopped = False

    def lost(self, hold: Hold, delivered_at: float, *, is_reset: bool) -> None:
        """Take note that the connection of a delivered sample has ended, with no other request on it."""
        if self._is_stopped:
            return
        if is_reset:
            hold.note_unread(self._clock.now(), is_reset=True)
        elif self._clock.monotonic() - delivered_at <= CLOSE_SECONDS:
            self._closed.append((hold, hold.asked, self._clock.now()))
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(SILENCE_SECONDS, self._record)

    def _record(self) -> None:
        self._timer = None
        closed, self._closed = self._closed, []
        for hold, asked, at in closed:
            if hold.asked == asked:
                hold.note_unread(at, is_reset=False)

    def stop(self) -> None:
        """Record what is waiting. Connections that end from now on are closed by the proxy."""
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._record()
