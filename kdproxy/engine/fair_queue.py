"""The order in a lane queue: who is next, who waits for its own back-off, how many wait. Event loop only.

FIFO within a run, round-robin between runs. A request that is refused again and again waits apart until its
back-off is over, and does not delay the others.
"""

import asyncio
import heapq
import itertools
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

from kdproxy.core.limits import Cost
from kdproxy.core.pacing.backoff import RequestBackoff


@dataclass(slots=True, eq=False)
class Waiter:
    """One request in the queue."""

    cost: Cost
    run: str
    since: float
    future: asyncio.Future[Any]
    """Set to a Permit."""
    question: Hashable
    backoff: RequestBackoff
    deadline_seconds: float = math.inf
    """How long its answer may take, as its client says."""


@dataclass(slots=True)
class FairQueue:
    """Waiters in order."""

    _runs: OrderedDict[str, deque[Waiter]] = field(default_factory=OrderedDict)
    _aside: list[tuple[float, int, Waiter]] = field(default_factory=list)
    """A heap of those that wait for their own back-off, by when that ends."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def __len__(self) -> int:
        aside = sum(not waiter.future.done() for _, _, waiter in self._aside)
        return sum(len(waiters) for waiters in self._runs.values()) + aside

    @property
    def is_empty(self) -> bool:
        """Whether there are no waiters; cheaper than `len`."""
        return not self._runs and not self._aside

    @property
    def next_due_at(self) -> float:
        """When the first back-off ends; infinity: no waiter has one."""
        return self._aside[0][0] if self._aside else math.inf

    def add(self, waiter: Waiter, now: float, *, at_front: bool) -> None:
        """Add a waiter."""
        if waiter.backoff.ready_at > now:
            heapq.heappush(self._aside, (waiter.backoff.ready_at, next(self._numbers), waiter))
        else:
            self._append(waiter, at_front=at_front and not waiter.backoff.yields)

    def admit_due(self, now: float) -> None:
        """Move waiters whose back-off is over to the front: they have waited enough."""
        while self._aside and (self._aside[0][0] <= now or self._aside[0][2].future.done()):
            _, _, waiter = heapq.heappop(self._aside)
            if not waiter.future.done():
                self._append(waiter, at_front=True)

    def first(self) -> Waiter | None:
        """Return who is next."""
        if not self._runs:
            return None
        for run in list(self._runs):
            waiters = self._runs[run]
            while waiters and waiters[0].future.done():
                waiters.popleft()
            if waiters:
                return waiters[0]
            del self._runs[run]
        return None

    def least_refused(self) -> Waiter:
        """Return who was refused least, the first of those; the queue must not be empty."""
        return min(itertools.chain(*self._runs.values()), key=_refusals)

    def first_but(self, is_out: Callable[[Hashable], bool]) -> Waiter | None:
        """Return who is next of those whose question is not out."""
        waiters = itertools.chain(*self._runs.values())
        return next((each for each in waiters if not each.future.done() and not is_out(each.question)), None)

    def take(self, waiter: Waiter) -> None:
        """It is this one's turn; the next one is another run's."""
        waiters = self._runs[waiter.run]
        waiters.remove(waiter)
        if waiters:
            self._runs.move_to_end(waiter.run)
        else:
            del self._runs[waiter.run]

    def leave(self, waiter: Waiter) -> None:
        """Remove a waiter that was cancelled."""
        waiter.future.cancel()
        waiters = self._runs.get(waiter.run)
        if waiters is not None and waiter in waiters:
            waiters.remove(waiter)

    def ahead(self, waiter: Waiter | None) -> int:
        """Return how many go before."""
        if waiter is None or waiter.run not in self._runs:
            return len(self)
        place = next((place for place, each in enumerate(self._runs[waiter.run]) if each is waiter), 0)
        return sum(min(place + 1, len(waiters)) for waiters in self._runs.values()) - 1

    def _append(self, waiter: Waiter, *, at_front: bool) -> None:
        waiters = self._runs.setdefault(waiter.run, deque())
        if at_front:
            waiters.appendleft(waiter)
        else:
            waiters.append(waiter)


def _refusals(waiter: Waiter) -> tuple[bool, int]:
    return waiter.future.done(), waiter.backoff.refusals
