"""Simulates days of traffic in seconds: a lane's pace against exact models of providers' limits, in virtual time.

Nothing sleeps, all randomness is seeded, and the pace is the one that ships.

    result = Traffic(Scenario(window="sliding", requests_per_minute=600)).run()
"""

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from kdproxy.core.limits import Cost, Dimension, Quota, Reading
from kdproxy.core.pacing.backoff import RequestBackoff
from kdproxy.core.pacing.pace import Grant, Pace
from kdproxy.testing.teacher.window import FixedWindow, SlidingWindow, TokenBucket, Window

REQUESTS = Quota(Dimension.REQUESTS)
TOKENS = Quota(Dimension.TOKENS)
WINDOWS: dict[str, Callable[..., Window]] = {"fixed": FixedWindow, "sliding": SlidingWindow, "bucket": TokenBucket}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One world."""

    window: str = "fixed"
    """How the provider enforces: `fixed`, `sliding` or `bucket`."""
    requests_per_minute: float | None = 600.0
    tokens_per_minute: float | None = None
    has_headers: bool = True
    has_retry_after: bool = True
    counts_at_admission: bool = True
    """Whether requests are counted on arrival, or else when they are answered."""
    latency_seconds: float = 0.3
    latency_spread: float = 0.3
    network_seconds: float = 0.01
    cold_seconds: float = 0.0
    """Extra delay of requests over new connections, until as many are answered as there are callers."""
    callers: int = 64
    requests: int = 2_000
    tokens: int = 200
    estimate_factor: float = 1.0
    """How wrong our estimate of a request's tokens is."""
    used_factor: float = 1.0
    """Share of the counted tokens that an answer reports: OpenAI counts all of max_tokens."""
    neighbour_share: float = 0.0
    """Share of the limit that another client takes, evenly."""
    error_share: float = 0.0
    """Share of the attempts that end in a 5xx."""
    counts_errors: bool = False
    """Whether those count towards the limit too."""
    change_at: float | None = None
    change_factor: float = 1.0
    """The limit from then on."""
    concurrency_limit: int | None = None
    """Most concurrent requests that the provider accepts."""
    is_hosted: bool = False
    """Whether our side knows that other clients use the limit too."""
    most_in_flight: int = 256
    seed: int = 0


@dataclass(slots=True, kw_only=True)
class Result:
    """The result of a scenario."""

    started_at: float = 0.0
    seconds: float = 0.0
    served: int = 0
    attempts: int = 0
    refused: int = 0
    errors: int = 0
    peak_in_flight: int = 0
    longest_wait_seconds: float = 0.0
    sent_early: int = 0
    """Requests sent before the time that the provider had given."""
    served_at: list[float] = field(default_factory=list)
    refused_at: list[float] = field(default_factory=list)
    first_sent: list[int] = field(default_factory=list)
    """Requests in the order in which they first went out."""

    @property
    def refused_share(self) -> float:
        """Share of the attempts that got a 429."""
        return self.refused / max(1, self.attempts)

    def refused_share_after(self, seconds: float) -> float:
        """The same, of those that ended later than so many seconds after the start."""
        late = sum(1 for at in self.refused_at if at > self.started_at + seconds)
        good = sum(1 for at in self.served_at if at > self.started_at + seconds)
        return late / max(1, late + good)

    def goodput(self, per_minute: float) -> float:
        """Served over what a limit allows at its steady rate in the time that it took."""
        return self.served / max(1e-9, per_minute * self.seconds / 60)


class Traffic:
    """Runs one scenario: callers in a closed loop, a FIFO queue, one lane, one provider."""

    def __init__(self, scenario: Scenario, pace: Pace | None = None) -> None:
        self.scenario = scenario
        self.random = random.Random(scenario.seed)  # noqa: S311 - a model, not a secret
        self.now = 1_000.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self._ids = itertools.count()
        self.pace = pace or Pace(
            most_in_flight=scenario.most_in_flight,
            finds_rate=scenario.concurrency_limit is None,
            is_hosted=scenario.is_hosted,
            expects_headers=scenario.has_headers,
        )
        self.queue: deque[tuple[int, float]] = deque()
        self.result = Result(started_at=self.now)
        self._sent: set[int] = set()
        self._backoffs: dict[int, RequestBackoff] = {}
        self.to_issue = iter(range(scenario.requests))
        self.windows: dict[Quota, Window] = {}
        for quota, limit in ((REQUESTS, scenario.requests_per_minute), (TOKENS, scenario.tokens_per_minute)):
            if limit is not None:
                self.windows[quota] = WINDOWS[scenario.window](limit=limit, seconds=60.0, clock=lambda: self.now)
        self.serving = 0
        self.floor = -math.inf
        self._wake_at = math.inf

    def at(self, seconds: float, act: Callable[[], None]) -> None:
        """Schedule an action."""
        heapq.heappush(self.events, (self.now + seconds, next(self._ids), act))

    def run(self, most_seconds: float = 86_400.0) -> Result:
        """Run until all is served, or time is up."""
        start = self.now
        if self.scenario.change_at is not None:
            self.at(self.scenario.change_at, self._change)
        if self.scenario.neighbour_share:
            self.at(0.0, self._neighbour)
        for _ in range(self.scenario.callers):
            self._issue()
        while self.events and self.result.served < self.scenario.requests and self.now - start < most_seconds:
            self.now, _, act = heapq.heappop(self.events)
            act()
            self._pump()
        self.result.seconds = self.now - start
        return self.result

    def _issue(self) -> None:
        number = next(self.to_issue, None)
        if number is not None:
            self.queue.append((number, self.now))
            self._pump()

    def cost(self) -> Cost:
        """Return the estimated cost of a request."""
        return Cost(input_tokens=self.scenario.tokens * self.scenario.estimate_factor)

    def _pump(self) -> None:
        while self.queue:
            wait = self.pace.wait(self.cost(), self.now)
            assert wait >= 0.0
            if wait > 0:
                if wait == math.inf and not self.pace.in_flight:
                    raise AssertionError("it waits for a call to end, but no call is in flight")
                if wait < math.inf and self.now + wait < self._wake_at - 1e-9:
                    self._wake_at = self.now + wait
                    self.at(wait, self._woken)
                return
            if self.pace.is_probing:
                # As in a queue: best one that was not refused itself.
                chosen = min(self.queue, key=lambda each: self._backoff(each[0]).refusals)
                self.queue.remove(chosen)
                self._send(*chosen)
            else:
                self._send(*self.queue.popleft())

    def _backoff(self, number: int) -> RequestBackoff:
        return self._backoffs.setdefault(number, RequestBackoff())

    def _woken(self) -> None:
        self._wake_at = math.inf

    def _send(self, number: int, asked_at: float) -> None:
        grant = self.pace.take(self.cost(), self.now)
        result = self.result
        result.attempts += 1
        if number not in self._sent:
            self._sent.add(number)
            result.first_sent.append(number)
        result.longest_wait_seconds = max(result.longest_wait_seconds, self.now - asked_at)
        result.sent_early += self.now < self.floor
        result.peak_in_flight = max(result.peak_in_flight, self.pace.in_flight)
        seconds = self.scenario.network_seconds * (0.5 + self.random.random())
        if result.served < self.scenario.callers:
            seconds += self.scenario.cold_seconds
        self.at(seconds, lambda: self._arrive(number, asked_at, grant))

    def _arrive(self, number: int, asked_at: float, grant: Grant) -> None:
        scenario = self.scenario
        if scenario.error_share and self.random.random() < scenario.error_share:
            if scenario.counts_errors:
                for window in self.windows.values():
                    window.spend(min(1.0, window.remaining))
            self.at(0.05, lambda: self._error(number, asked_at, grant))
            return
        spread = 1 + scenario.latency_spread * (2 * self.random.random() - 1)
        seconds = scenario.latency_seconds * spread
        if not scenario.counts_at_admission:
            self.at(seconds, lambda: self._admit(number, asked_at, grant, 0.0))
        else:
            self._admit(number, asked_at, grant, seconds)

    def _admit(self, number: int, asked_at: float, grant: Grant, seconds: float) -> None:
        scenario = self.scenario
        amounts = {REQUESTS: 1.0, TOKENS: float(scenario.tokens)}
        is_full = any(not window.fits(amounts[quota]) for quota, window in self.windows.items())
        is_crowded = scenario.concurrency_limit is not None and self.serving >= scenario.concurrency_limit
        if is_full or is_crowded:
            wait = max((window.wait_for(amounts[quota]) for quota, window in self.windows.items()), default=0.0)
            readings = self._readings()
            self.at(scenario.network_seconds, lambda: self._refuse(number, asked_at, grant, readings, wait))
            return
        for quota, window in self.windows.items():
            window.spend(amounts[quota])
        self.serving += 1
        readings = self._readings()
        self.at(seconds, lambda: self._answer(asked_at, number, grant, readings))

    def _answer(self, asked_at: float, number: int, grant: Grant, readings: list[Reading]) -> None:
        self.serving -= 1
        self.pace.learn(grant, readings, self.now)
        self.pace.started(grant, self.now)
        self.pace.completed(grant, self.now, used=Cost(input_tokens=self.scenario.tokens * self.scenario.used_factor))
        self.result.served += 1
        self.result.served_at.append(self.now)
        self._issue()

    def _refuse(self, number: int, asked_at: float, grant: Grant, readings: list[Reading], wait: float) -> None:
        has_wait = self.scenario.has_retry_after and self.scenario.concurrency_limit is None
        self.result.refused += 1
        self.result.refused_at.append(self.now)
        self.pace.learn(grant, readings, self.now)
        asked = math.ceil(wait * 1000) / 1000 if has_wait else None
        backoff = self._backoff(number)
        is_exhausted = any(reading.is_exhausted for reading in readings)
        self.pace.rate_limited(
            grant, self.now, wait_seconds=asked, jitter=self.random.random(), request=backoff, is_exhausted=is_exhausted
        )
        if asked is not None and not backoff.is_aside:
            self.floor = max(self.floor, self.now + asked)
        wait = backoff.ready_at - self.now
        if wait > 0:
            self.at(wait, lambda: self.queue.appendleft((number, asked_at)))
        elif backoff.yields:
            self.queue.append((number, asked_at))
        else:
            self.queue.appendleft((number, asked_at))

    def _error(self, number: int, asked_at: float, grant: Grant) -> None:
        self.result.errors += 1
        self.pace.upstream_failed(grant, self.now)
        self.queue.appendleft((number, asked_at))

    def _readings(self) -> list[Reading]:
        if not self.scenario.has_headers:
            return []
        return [
            Reading(
                quota=quota,
                limit=window.limit,
                remaining=math.floor(window.remaining),
                reset_seconds=round(window.reset_seconds, 3),
            )
            for quota, window in self.windows.items()
        ]

    def _change(self) -> None:
        for window in self.windows.values():
            window.limit *= self.scenario.change_factor

    def _neighbour(self) -> None:
        window = self.windows[REQUESTS]
        shares = {quota: each.limit / window.limit for quota, each in self.windows.items()}
        if all(each.fits(shares[quota]) for quota, each in self.windows.items()):
            for quota, each in self.windows.items():
                each.spend(shares[quota])
        self.at(60 / (window.limit * self.scenario.neighbour_share), self._neighbour)
