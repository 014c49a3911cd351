"""Flights by themselves: who completes them, who waits, and what becomes of those that nobody waits for."""

import asyncio

import pytest

from kdproxy.engine.flights import Flight, Flights, Head, Phase
from kdproxy.errors import KdproxyError

pytestmark = pytest.mark.asyncio

IDENTITY = ("default", "key", "0", "json", "cache")
WHOLE = Head(status=200, headers=(), is_whole=True)
LIVE = Head(status=200, headers=(), is_whole=False)


def failure() -> KdproxyError:
    return KdproxyError("It failed.", hint="Ask again.")


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


class Pilot:
    """Flies as a cached call does, step by step as the test says."""

    def __init__(self) -> None:
        self.flight: Flight | None = None
        self.sent = asyncio.Event()
        self.may_complete = asyncio.Event()
        self.was_cancelled = False

    async def fly(self, flight: Flight) -> None:
        self.flight = flight
        try:
            await self.sent.wait()
            flight.phase = Phase.SENT
            await self.may_complete.wait()
            flight.set_head(WHOLE)
            flight.add(b"answer")
            flight.complete()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        finally:
            flight.complete(error=failure())


async def test_late_joiners_get_the_backlog_in_one_piece() -> None:
    flight = Flight(IDENTITY)
    flight.set_head(LIVE)
    for piece in (b"a", b"b", b"", b"c"):
        flight.add(piece)
    chunks = flight.chunks()
    assert await anext(chunks) == b"abc"
    flight.add(b"d")
    flight.complete()
    assert [chunk async for chunk in chunks] == [b"d"]


async def test_a_whole_head_is_reported_only_once_it_has_landed() -> None:
    flight = Flight(IDENTITY)
    waiting = asyncio.create_task(flight.wait_head())
    flight.set_head(WHOLE)
    flight.add(b"x")
    await settle()
    assert not waiting.done()
    flight.complete()
    assert await waiting is WHOLE
    assert flight.body == b"x"


async def test_an_error_reaches_who_waits_and_who_comes_later() -> None:
    flight = Flight(IDENTITY)
    waiting = [asyncio.create_task(flight.wait_head()) for _ in range(3)]
    await settle()
    error = failure()
    flight.complete(error=error)
    flight.complete(error=failure())  # the first word counts
    for found in await asyncio.gather(*waiting, return_exceptions=True):
        assert found is error
    with pytest.raises(KdproxyError):
        await flight.wait_head()


async def test_a_cut_stream_gives_its_bytes_and_then_raises() -> None:
    flight = Flight(IDENTITY)
    flight.set_head(LIVE)
    flight.add(b"half")
    flight.complete(error=failure())
    chunks = flight.chunks()
    assert await anext(chunks) == b"half"
    with pytest.raises(KdproxyError):
        await anext(chunks)


async def test_one_that_waits_ends_with_its_last_passenger() -> None:
    flights, pilot = Flights(detached_seconds=10), Pilot()
    flight = flights.start(IDENTITY, pilot.fly)
    flights.join(flight)
    flights.join(flight)
    await settle()
    flights.leave(flight)
    await settle()
    assert not pilot.was_cancelled
    flights.leave(flight)
    assert flights.under_way(IDENTITY) is None
    await settle()
    assert pilot.was_cancelled
    assert len(flights) == 0


async def test_one_that_is_sent_is_finished_without_waiters_and_can_be_joined() -> None:
    flights, pilot = Flights(detached_seconds=10), Pilot()
    flight = flights.start(IDENTITY, pilot.fly)
    flights.join(flight)
    pilot.sent.set()
    await settle()
    flights.leave(flight)
    await settle()
    assert flights.under_way(IDENTITY) is flight
    flights.join(flight)
    pilot.may_complete.set()
    assert (await flight.wait_head()).status == 200
    await settle()
    assert flights.under_way(IDENTITY) is None
    flights.leave(flight)


async def test_one_that_would_have_to_be_sent_again_ends_if_nobody_waits() -> None:
    flights, pilot = Flights(detached_seconds=10), Pilot()
    flight = flights.start(IDENTITY, pilot.fly)
    flights.join(flight)
    pilot.sent.set()
    await settle()
    flights.leave(flight)
    flight.phase = Phase.WAITING
    assert flights.under_way(IDENTITY) is None
    await settle()
    assert pilot.was_cancelled


async def test_a_detached_one_ends_at_its_limit() -> None:
    flights, pilot = Flights(detached_seconds=0), Pilot()
    flight = flights.start(IDENTITY, pilot.fly)
    flights.join(flight)
    pilot.sent.set()
    await settle()
    flights.leave(flight)
    await asyncio.sleep(0.01)
    assert pilot.was_cancelled


async def test_stopping_ends_what_waits_and_what_begins_to() -> None:
    flights, waiting, sent = Flights(detached_seconds=10), Pilot(), Pilot()
    first = flights.start(IDENTITY, waiting.fly)
    second = flights.start((*IDENTITY, "other"), sent.fly)
    for flight in (first, second):
        flights.join(flight)
    sent.sent.set()
    await settle()
    error = failure()
    flights.cancel_unsent(error)
    await settle()
    assert (waiting.was_cancelled, sent.was_cancelled) == (True, False)
    assert first.error is error
    second.phase = Phase.WAITING
    await settle()
    assert sent.was_cancelled
    assert second.error is error


async def test_those_sent_are_counted_and_the_rest_can_be_cut() -> None:
    flights, quick, slow = Flights(detached_seconds=10), Pilot(), Pilot()
    for number, pilot in enumerate((quick, slow)):
        flights.join(flights.start((*IDENTITY, str(number)), pilot.fly))
        pilot.sent.set()
    quick.may_complete.set()
    await settle()
    assert flights.sent == 1
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(flights.wait_all(), 0.02)
    await flights.abandon()
    assert (quick.was_cancelled, slow.was_cancelled) == (False, True)
    await asyncio.wait_for(flights.wait_all(), 1)
    assert flights.sent == 0


async def test_a_flight_shows_its_key_its_phase_and_who_waits_but_no_body() -> None:
    flights = Flights(detached_seconds=1)
    flight = Flight(IDENTITY)
    flights.join(flight)
    assert repr(flight) == "<Flight default/key/0/json/cache waiting attempts=0 waiters=1>"
    flight.set_head(Head(status=200, headers=(("set-cookie", "secret"),), is_whole=True))
    flight.add(b"answer")
    flight.complete(error=failure())
    assert repr(flight) == (
        f"<Flight default/key/0/json/cache complete attempts=0 waiters=1 status=200 error={failure().code}>"
    )
