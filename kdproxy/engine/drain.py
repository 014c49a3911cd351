"""The end of a process: while time lasts, calls under way are finished and what memory alone holds is written."""

import asyncio
from dataclasses import dataclass

from kdproxy.core.ports import Archive
from kdproxy.engine.flights import Flights
from kdproxy.engine.pass_through import PassThrough


@dataclass(frozen=True, slots=True, kw_only=True)
class UnderWay:
    """What would be lost if the process ended now."""

    calls: int
    """Sent to a provider, which may bill them, and not answered to the end."""
    answers: int
    """Answered, delivered, and refused by the disk."""

    def __bool__(self) -> bool:
        return bool(self.calls or self.answers)


class Drain:
    """Event loop only. New calls must be refused before it `run`s."""

    def __init__(self, flights: Flights, passing: PassThrough, archive: Archive, *, seconds: float) -> None:
        self._flights = flights
        self._passing = passing
        self._archive = archive
        self._seconds = seconds
        self._is_hurried = asyncio.Event()

    @property
    def under_way(self) -> UnderWay:
        """Return what is under way now."""
        return UnderWay(calls=self._flights.sent + len(self._passing), answers=self._archive.unwritten)

    def hurry(self) -> None:
        """Wait no longer."""
        self._is_hurried.set()

    async def run(self) -> UnderWay:
        """Wait until nothing is under way, time is up, or it is hurried; return what is given up."""
        waits = [asyncio.ensure_future(self._all_over()), asyncio.ensure_future(self._is_hurried.wait())]
        await asyncio.wait(waits, timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED)
        given_up = self.under_way
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        await self._flights.abandon()
        return given_up

    async def _all_over(self) -> None:
        await self._flights.wait_all()
        await self._passing.wait_all()
        if self._archive.unwritten:
            await self._archive.wait_writable()
