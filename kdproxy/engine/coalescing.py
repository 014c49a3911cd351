"""Lead or join a flight, and wait for its head as long as the client does. Event loop only.

Flights are joined across credentials for their answers only: where the credentials of a flight stand
in its way (refused, out of quota, or held until the quota is back), a joiner with others leads one with its own, and
what waits gets its answer.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from kdproxy.core.models import Form
from kdproxy.core.ports import Archive
from kdproxy.engine import keepalive
from kdproxy.engine.call import Asked, Incoming
from kdproxy.engine.errors import ComeAgain, come_again, disk_refuses, draining
from kdproxy.engine.flights import Flight, FlightId, Flights, Head, Phase

RETURN_SECONDS = 10.0
"""How much later than its Retry-After a client may come back and still find its place in the queue."""

CHECK_SECONDS = 1.0
"""How often a joiner with other credentials checks whether those of the flight stand in its way."""

Fly = Callable[[Flight], Coroutine[Any, Any, None]]


class _Stuck(Exception):
    """The credentials of the flight stand in its way, and the request has others."""


@dataclass(slots=True, eq=False)
class Joined:
    """A request on its flight; `flight` changes where it leads one after all."""

    asked: Asked
    identity: FlightId
    fly: Fly
    flight: Flight
    is_joined: bool
    head: Head | None = None
    """None: the client is held by other means from here on."""

    @property
    def is_stranger(self) -> bool:
        """Whether the flight uses other credentials than the request has."""
        credentials = self.flight.credentials
        return self.is_joined and credentials is not None and credentials() != self.asked.incoming.credentials()


class Coalescer:
    """Puts requests on flights."""

    def __init__(self, flights: Flights, archive: Archive, *, keep_alive_seconds: float) -> None:
        self._flights = flights
        self._archive = archive
        self._keep_alive_seconds = keep_alive_seconds
        self.may_lead = True
        """Whether new flights may start: not while the proxy shuts down."""

    async def join(self, asked: Asked, identity: FlightId, flight: Flight | None, fly: Fly) -> Joined:
        """Join `flight`, or lead one that `fly` runs; return once its head is there, or the client is held otherwise.

        The caller must leave the flight that it is on at the end, unless this raises.

        Raises:
            KdproxyError: the flight failed, the client's time is up, or no new flights may start.
        """
        is_joined = flight is not None
        joined = Joined(asked, identity, fly, flight or self._lead(asked, identity, fly, None), is_joined)
        while True:
            try:
                joined.head = await self._wait(joined.flight, asked, is_stranger=joined.is_stranger)
                if not (joined.is_stranger and joined.flight.is_refused_credential):
                    return joined
                self._flights.leave(joined.flight)
            except _Stuck:
                pass
            self._change(joined)

    async def head_within(self, joined: Joined, seconds: float) -> Head:
        """Wait for the head of one that is held by other means; where other credentials are in its way, it leads.

        Raises:
            KdproxyError: the flight failed, or no new flights may start.
            TimeoutError: it took longer.
        """
        while True:
            flight, is_stranger = joined.flight, joined.is_stranger
            step = min(seconds, CHECK_SECONDS) if is_stranger else seconds
            try:
                head = await flight.wait_head(step)
                if not (is_stranger and flight.is_refused_credential):
                    return head
            except TimeoutError:
                seconds -= step
                if not (is_stranger and flight.is_stuck):
                    if seconds > 0:
                        continue
                    raise
            self._change(joined)
            self._flights.join(joined.flight)
            self._flights.leave(flight)

    def _change(self, joined: Joined) -> None:
        """Put a request on another flight than the one whose credentials stand in its way. It is not counted there."""
        flight, identity = joined.flight, joined.identity
        other = self._flights.under_way(identity)
        joined.is_joined = other is not None and other is not flight
        if other is None or other is flight:
            other = self._lead(joined.asked, identity, joined.fly, flight)
        joined.flight = other

    def _lead(self, asked: Asked, identity: FlightId, fly: Fly, stuck: Flight | None) -> Flight:
        if not self.may_lead:
            raise draining()

        async def instead(started: Flight) -> None:
            await fly(started)
            if stuck is not None and started.is_stored:
                self._flights.satisfy(stuck, started)

        flight = self._flights.start(identity, fly if stuck is None else instead)
        flight.stream_options = asked.question.stream_options
        flight.credentials = asked.incoming.credentials
        return flight

    async def _wait(self, flight: Flight, asked: Asked, *, is_stranger: bool) -> Head | None:
        self._flights.join(flight)
        try:
            return await self.wait_head(flight, asked.incoming, asked.question.form, is_stranger=is_stranger)
        except ComeAgain as error:
            # Its place in the queue is kept until it comes back.
            self._flights.leave_in((error.retry_after_seconds or 0.0) + RETURN_SECONDS, flight)
            raise
        except BaseException:
            self._flights.leave(flight)
            raise

    async def wait_head(
        self, flight: Flight, incoming: Incoming, form: Form | None, *, is_stranger: bool = False
    ) -> Head | None:
        """Wait as long as the client does; then raise `ComeAgain`, unless its call is under way.

        None: it is held by other means from here on.
        """
        holds = self._keep_alive_seconds > 0 and form is not None and keepalive.can_hold(form)
        remaining = min(incoming.patience_seconds, self._keep_alive_seconds) if holds else incoming.patience_seconds
        while True:
            step = min(remaining, CHECK_SECONDS) if is_stranger else remaining
            try:
                return await flight.wait_head(step)
            except TimeoutError:
                if is_stranger and flight.is_stuck:
                    raise _Stuck from None
                remaining -= step
                if remaining > 0:
                    continue
                if holds:
                    return None
                if flight.phase is Phase.WAITING:
                    trouble = self._archive.trouble
                    if flight.waits_for_disk and trouble is not None:
                        raise disk_refuses(trouble, self._archive.trouble_hint) from None
                    raise come_again(flight) from None
                remaining = 1.0
