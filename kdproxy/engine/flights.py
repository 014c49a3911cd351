"""Flights: one call to the upstream in progress, which requests lead or join.

A flight belongs to the engine, not to the request that started it. Its bytes are kept until it is complete, so that a
late joiner gets the backlog. A flight without waiters is dropped while it is unsent, and finished once it is sent.
Event loop only.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from enum import Enum, auto
from typing import Any, NamedTuple

from kdproxy.core.models import HeaderPairs, Usage
from kdproxy.engine.lane_queue import Advice
from kdproxy.errors import KdproxyError

FlightId = tuple[str, ...]
"""Namespace, key, ordinal, form, mode, and whether usage was asked for in the stream."""


MISSED_SECONDS = 300.0
"""For so long a client that comes again gets what was stored for it meanwhile, also where it asked for a new answer:
the official clients wait up to 120 s, and Retry-After may ask for it."""


class Phase(Enum):
    """Where a flight is."""

    WAITING = auto()
    """For its turn, or between two attempts: nothing is under way at the provider."""
    SENT = auto()
    COMPLETE = auto()


class Head(NamedTuple):
    """Status and headers of the answer, known before its body."""

    status: int
    headers: HeaderPairs
    is_whole: bool
    """Whether the body is there in full (not a stream)."""


class Flight:
    """One call, its answer so far, and who waits for it."""

    def __init__(self, identity: FlightId, on_waiting: Callable[["Flight"], None] | None = None) -> None:
        self.identity = identity
        self._phase = Phase.WAITING
        self._on_waiting = on_waiting
        self.head: Head | None = None
        self.stream_options: Mapping[str, Any] | None = None
        """What a stream was asked with; who joins may want less."""
        self.is_stored = False
        self.detail: str | None = None
        """Why the answer was not stored, for Cache-Status."""
        self.usage: Usage | None = None
        self.attempts = 0
        self.trouble: str | None = None
        """Why its last attempt failed, where that was no rate limit."""
        self.error: KdproxyError | None = None
        self.waiters = 0
        self.has_lost = False
        """Whether a waiter left before its end, or got a Retry-After."""
        self.waits_for_disk = False
        self.is_worth_finishing = True
        """Whether its answer is of use once all waiters have left: it is stored."""
        self.advise: Callable[[], Advice] | None = None
        """Returns when to come again, once it is in the queue."""
        self.credentials: Callable[[], tuple[str, ...]] | None = None
        """Fingerprints of the credentials that it uses: a joiner may have others."""
        self.is_refused_credential = False
        """Whether its answer is an error about those credentials."""
        self._chunks: list[bytes] = []
        self._waiting: list[asyncio.Future[None]] = []

    def __repr__(self) -> str:
        """Name it by its key, with its phase and who waits, without headers and body."""
        name, phase = "/".join(self.identity), self._phase.name.lower()
        status = "" if self.head is None else f" status={self.head.status}"
        error = "" if self.error is None else f" error={self.error.code}"
        return f"<Flight {name} {phase} attempts={self.attempts} waiters={self.waiters}{status}{error}>"

    @property
    def phase(self) -> Phase:
        """Where the flight is."""
        return self._phase

    @phase.setter
    def phase(self, phase: Phase) -> None:
        self._phase = phase
        if phase is Phase.WAITING and self._on_waiting is not None:
            self._on_waiting(self)

    @property
    def is_stuck(self) -> bool:
        """Whether its credentials stand in its way: refused, out of quota, or held until the quota is back."""
        if self.is_refused_credential or self.phase is not Phase.WAITING or self.advise is None:
            return self.is_refused_credential
        return self.advise().is_parked

    def set_head(self, head: Head) -> None:
        """Make the head known."""
        self.head = head
        self._wake()

    def add(self, chunk: bytes) -> None:
        """Make bytes of the body known."""
        if chunk:
            self._chunks.append(chunk)
            self._wake()

    def complete(self, *, error: KdproxyError | None = None) -> None:
        """End: the body is complete, or `error` says why it is not."""
        if self._phase is not Phase.COMPLETE:
            self._phase = Phase.COMPLETE
            self.error = error
            # It leads back to the flight: left there, the collector has to find each miss's thirty objects, 22 us.
            self.advise = None
            self._wake()

    async def wait_head(self, seconds: float | None = None) -> Head:
        """Return the head once it is known; with a whole body, once that is durable.

        Raises:
            KdproxyError: the flight failed before.
            TimeoutError: it took longer than `seconds` (None: however long it takes).
        """
        ends_at = None if seconds is None else asyncio.get_running_loop().time() + seconds
        while self.head is None or (self.head.is_whole and self._phase is not Phase.COMPLETE):
            if self._phase is Phase.COMPLETE:
                assert self.error is not None  # a flight completes with a head or an error
                raise self.error
            await self._change(ends_at)
        if self.error is not None and self.head.is_whole:
            raise self.error
        return self.head

    @property
    def body(self) -> bytes:
        """The body so far."""
        return self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)

    async def chunks(self, before_last: Callable[[], None] | None = None) -> AsyncIterator[bytes]:
        """Yield the body from its beginning, live. `before_last` is called before the last piece of a whole answer.

        Raises:
            KdproxyError: the answer was cut.
        """
        position = 0
        while True:
            while position < len(self._chunks):
                # What is there goes out in one piece: a late joiner gets the backlog in one write.
                piece = b"".join(self._chunks[position:])
                position = len(self._chunks)
                if before_last is not None and self._phase is Phase.COMPLETE and self.error is None:
                    before_last()
                yield piece
            if self._phase is Phase.COMPLETE:
                break
            await self._change()
        if self.error is not None:
            raise self.error
        if before_last is not None:
            before_last()

    async def _change(self, ends_at: float | None = None) -> None:
        """Wait for news. Raises TimeoutError at the loop's time `ends_at`: a bare timer, asyncio.timeout costs 9 us."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append(future)
        timer = None if ends_at is None else loop.call_at(ends_at, _time_out, future)
        try:
            await future
        except BaseException:
            if future in self._waiting:
                self._waiting.remove(future)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


def _time_out(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_exception(TimeoutError())


class Flights:
    """All flights under way, by identity, and the tasks that run them."""

    def __init__(self, *, detached_seconds: float) -> None:
        self._detached_seconds = detached_seconds
        self._flights: dict[FlightId, Flight] = {}
        self._tasks: dict[Flight, asyncio.Task[None]] = {}
        self._timers: dict[Flight, asyncio.TimerHandle] = {}
        self._missed: dict[FlightId, float] = {}
        """Flights whose answer was stored after a waiter had left, and when."""
        self._closed: KdproxyError | None = None
        """Once set, what a flight ends with that has nothing under way."""

    def __len__(self) -> int:
        return len(self._tasks)

    def under_way(self, identity: FlightId) -> Flight | None:
        """Return the flight that a request may join, or None."""
        return self._flights.get(identity)

    def was_missed(self, identity: FlightId) -> bool:
        """Whether an answer was stored of late after a waiter had left."""
        at = self._missed.get(identity)
        return at is not None and asyncio.get_running_loop().time() - at <= MISSED_SECONDS

    def start(self, identity: FlightId, fly: Callable[[Flight], Coroutine[Any, Any, None]]) -> Flight:
        """Start a flight. `fly` completes it."""
        flight = Flight(identity, self._decide)
        self._flights[identity] = flight
        task = asyncio.get_running_loop().create_task(fly(flight))
        self._tasks[flight] = task
        task.add_done_callback(lambda _: self._forget(flight))
        return flight

    def satisfy(self, flight: Flight, by: Flight) -> None:
        """End a flight that waits with the stored answer of another one: the same question is not paid for twice."""
        task = self._tasks.get(flight)
        if task is None or flight.phase is not Phase.WAITING or by.head is None:
            return
        flight.is_stored, flight.usage = by.is_stored, by.usage
        flight.set_head(by.head)
        flight.add(by.body)
        flight.complete()
        self._retire(flight)
        task.cancel()

    def join(self, flight: Flight) -> None:
        """Count a request in; each must `leave`."""
        flight.waiters += 1
        timer = self._timers.pop(flight, None)
        if timer is not None:
            timer.cancel()

    def leave(self, flight: Flight) -> None:
        """Count a request out; the last one decides what becomes of the flight."""
        flight.waiters -= 1
        flight.has_lost = flight.has_lost or flight.phase is not Phase.COMPLETE
        task = self._tasks.get(flight)
        if flight.waiters or task is None:
            return
        if flight.phase is Phase.WAITING or not flight.is_worth_finishing:
            self._retire(flight)
            task.cancel()
        elif flight.phase is Phase.SENT:
            loop = asyncio.get_running_loop()
            self._timers[flight] = loop.call_later(self._detached_seconds, task.cancel)

    def leave_in(self, seconds: float, flight: Flight) -> None:
        """Count a request out later: its client got a Retry-After, and keeps its place in the queue till then."""
        flight.has_lost = True
        asyncio.get_running_loop().call_later(seconds, self.leave, flight)

    def cancel_unsent(self, error: KdproxyError) -> None:
        """End every flight that has nothing under way at the provider, now or later."""
        self._closed = error
        for flight in list(self._tasks):
            if flight.phase is Phase.WAITING:
                self._decide(flight)

    def _decide(self, flight: Flight) -> None:
        """A flight waits for its turn, or again after a failure: end it if it has no waiters."""
        task = self._tasks.get(flight)
        if task is None or (flight.waiters and self._closed is None):
            return
        if self._closed is not None:
            flight.complete(error=self._closed)
        self._retire(flight)
        task.cancel()

    @property
    def sent(self) -> int:
        """How many have a call under way at the provider."""
        return sum(flight.phase is Phase.SENT for flight in self._tasks)

    async def wait_all(self) -> None:
        """Wait until all flights are complete; no new ones may start."""
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    async def abandon(self) -> None:
        """Cancel all flights."""
        rest = list(self._tasks.values())
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    def _retire(self, flight: Flight) -> None:
        """Accept no more joiners."""
        if self._flights.get(flight.identity) is flight:
            del self._flights[flight.identity]

    def _remember(self, identity: FlightId) -> None:
        now = asyncio.get_running_loop().time()
        self._missed.pop(identity, None)
        self._missed[identity] = now
        # Oldest first.
        while now - next(iter(self._missed.values())) > MISSED_SECONDS:
            del self._missed[next(iter(self._missed))]

    def _forget(self, flight: Flight) -> None:
        self._retire(flight)
        self._tasks.pop(flight, None)
        if flight.has_lost and flight.is_stored:
            self._remember(flight.identity)
        timer = self._timers.pop(flight, None)
        if timer is not None:
            timer.cancel()
