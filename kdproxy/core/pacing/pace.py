"""The pace of one lane: when the next request may go. Everything a lane knows, and no clock: `now` is an argument.

It puts together a meter per quota; where no header names a limit, a slow start, a bound on calls in flight that widens
by time, and a rate probe; what the server can answer before a deadline; and the pause that a refusal brings for all.
`now` is a monotonic time.
"""

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from kdproxy.core.limits import Allowance, Cost, Quota, Reading
from kdproxy.core.pacing.backoff import (
    FIRST_BACKOFF_SECONDS,
    LONGEST_BACKOFF_SECONDS,
    LONGEST_PROBE_SECONDS,
    WINDOW_SECONDS,
    RequestBackoff,
    floor_seconds,
    named_seconds,
)
from kdproxy.core.pacing.concurrency_limit import CAREFUL_RATE, FIRST_RATE, ConcurrencyLimit
from kdproxy.core.pacing.memory import Learned
from kdproxy.core.pacing.meter import Mark, Meter
from kdproxy.core.pacing.overload import Overload
from kdproxy.core.pacing.rate_probe import RateProbe
from kdproxy.core.pacing.slow_start import SlowStart
from kdproxy.core.pacing.throughput import LEAST_BESIDE_BATCHING, Throughput

PROBE_SECONDS = 2.0
SHORTEST_WAIT = 0.0005
"""Anything shorter is a floating-point rounding error, not a wait."""


@dataclass(slots=True, eq=False)
class Grant:
    """A permit to send one request."""

    cost: Cost
    granted_at: float
    marks: dict[Quota, Mark]
    beside: int = 1
    """How many were in flight when it was granted, itself included."""
    has_started: bool = False
    is_over: bool = False


@dataclass(slots=True, kw_only=True)
class Pace:
    """The pace of one lane."""

    allowed: Allowance = field(default_factory=dict)
    """Limits of our own."""
    is_strict: bool = False
    """Send evenly (Azure)."""
    finds_rate: bool = True
    """False where a refusal means too many at once, not too many a minute (DeepSeek)."""
    is_hosted: bool = False
    """A hosted API that others use too: it may have a low limit."""
    expects_headers: bool = False
    """Whether its answers carry limit headers, as far as is known of the provider."""
    most_in_flight: int = 1_024
    in_flight: int = 0
    paused_until: float = -math.inf
    refusals: int = 0
    set_aside: int = 0
    """Refusals that were one request's own."""
    episodes: int = 0
    meters: dict[Quota, Meter] = field(default_factory=dict)
    rate_probe: RateProbe = field(default_factory=RateProbe)
    concurrency: ConcurrencyLimit = field(init=False)
    start: SlowStart = field(default_factory=SlowStart)
    throughput: Throughput = field(default_factory=Throughput)
    overload: Overload = field(default_factory=Overload)
    _episode_at: float = -math.inf
    _is_probing: bool = False
    """After a refusal without a wait: one alone, until it gets through."""
    _probe: Grant | None = None
    _row: set[RequestBackoff] = field(default_factory=set)
    """The requests that were refused since one passed."""
    _row_began_at: float = -math.inf
    _passed_sent_at: float = -math.inf
    """When the youngest call that has passed was sent."""

    def __post_init__(self) -> None:
        self.concurrency = ConcurrencyLimit(
            float(self.most_in_flight), first_rate=CAREFUL_RATE if self.is_hosted else FIRST_RATE
        )
        self.start.expects_headers = self.expects_headers
        if not self.is_hosted:
            self.start.end()
        for quota, limit in self.allowed.items():
            if quota.is_paced:
                self.meters[quota] = Meter(quota, is_strict=self.is_strict, allowed=limit)

    @property
    def has_limits(self) -> bool:
        """Whether a header or a setting says how many requests or tokens may be sent."""
        for meter in self.meters.values():  # noqa: SIM110  # a generator takes longer: several times for each call
            if meter.bound is not None:
                return True
        return False

    @property
    def is_probing(self) -> bool:
        """Whether the next request goes alone, to see if it gets through: best one that was not refused itself."""
        return self._is_probing

    @property
    def bound_in_flight(self) -> int:
        """How many calls may be in flight at once."""
        bound = float(self.most_in_flight) if self.has_limits else min(self.concurrency.bound, self.start.bound)
        return max(1, int(min(bound, self.throughput.bound)))

    @property
    def is_full(self) -> bool:
        """Whether the configured bound on calls at once is reached."""
        return self.in_flight >= self.most_in_flight

    @property
    def excess(self) -> int:
        """How many more are in flight than the server can answer in time, where that is a good part of them."""
        bound = self.throughput.bound
        return 0 if self.in_flight <= 1.25 * bound + 1 else self.in_flight - int(bound)

    def recognise(self, *, is_batching: bool, slots: int | None = None) -> None:
        """Use what is known of the server: it takes full concurrency, or names how many it runs at once."""
        self.start.end()
        if slots is not None:
            # As many again wait at the server, so that no slot idles between two answers.
            self.concurrency.most = min(float(self.most_in_flight), 2.0 * slots)
            self.concurrency.open()
        elif is_batching:
            self.throughput.least_beside = LEAST_BESIDE_BATCHING
            self.concurrency.open()

    @property
    def learned(self) -> Learned:
        """What is worth remembering from start to start."""
        if self.has_limits:
            return Learned()
        return Learned(
            rate=self.rate_probe.rate,
            wall=self.concurrency.lasting_wall,
            has_started=self.is_hosted and self.start.is_over,
        )

    def restore(self, learned: Learned) -> None:
        """Resume with what an earlier process learned."""
        self.rate_probe.rate = learned.rate
        if learned.wall is not None and not self.finds_rate:
            self.concurrency.crowded(int(learned.wall), is_restored=True)
        if learned.has_started:
            self.start.end()

    def wait(self, cost: Cost, now: float) -> float:
        """Return the seconds until a request may go: 0 for now, infinity for not before another one ends."""
        has_limits = self.has_limits
        most = self.most_in_flight if has_limits else min(self.concurrency.most, self.start.bound)
        if self.in_flight >= min(most, max(1.0, self.throughput.bound)):
            return math.inf
        longest = self.paused_until - now
        if self._is_probing and self._probe is not None:
            # Refusals come at once, answers may take minutes: a probe that is not refused soon has got through.
            # At the start of a hosted API only an answer is proof: the next token of a bucket lets one in, and no more.
            probe_seconds = PROBE_SECONDS if self.start.is_over or has_limits else LONGEST_BACKOFF_SECONDS
            longest = max(longest, self._probe.granted_at + probe_seconds - now)
        if not has_limits:
            # A rate that was found replaces the slow start.
            longest = max(longest, self.start.wait(now) if self.rate_probe.rate is None else self.rate_probe.wait(now))
        for quota, meter in self.meters.items():
            longest = max(longest, meter.wait(cost.of(quota.dimension), now))
        if longest < SHORTEST_WAIT and not has_limits:
            # Asked last: it widens only where it alone is in the way.
            if self.start.is_over:
                longest = self.concurrency.wait(self.in_flight, now)
            elif self.concurrency.bound <= self.in_flight:
                self.concurrency.bound = min(self.concurrency.most, self.in_flight + 1.0)
        return longest if longest >= SHORTEST_WAIT else 0.0

    def rate(self, cost: Cost | None = None) -> float | None:
        """Return about how many such requests a second it lets go, as far as is known."""
        price = Cost() if cost is None else cost
        rates = [
            meter.bound / meter.reset.window_seconds / amount
            for quota, meter in self.meters.items()
            if meter.bound and (amount := price.of(quota.dimension) * meter.scale.value) > 0
        ]
        if not self.has_limits and self.rate_probe.rate is not None:
            rates.append(self.rate_probe.rate)
        return min(rates, default=None)

    def take(self, cost: Cost, now: float, *, deadline_seconds: float = math.inf) -> Grant:
        """Grant a permit.

        Args:
            deadline_seconds: how long the answer may take, whoever says so: a setting, or the client.
        """
        self.in_flight += 1
        self.rate_probe.take(now)
        self.start.take(now)
        self.throughput.take(deadline_seconds, now)
        marks = {quota: meter.take(cost.of(quota.dimension), now) for quota, meter in self.meters.items()}
        grant = Grant(cost, now, marks, self.in_flight)
        if self._is_probing:
            self._is_probing = self._probe is None
            self._probe = grant if self._is_probing else None
        return grant

    def learn(self, grant: Grant, readings: Iterable[Reading], now: float) -> None:
        """Learn the limits from the headers of an answer, whatever its status."""
        for reading in readings:
            if not reading.quota.is_paced or (reading.limit is None and reading.quota not in self.meters):
                continue
            meter = self.meters.get(reading.quota)
            if meter is None:
                meter = self.meters[reading.quota] = Meter(reading.quota, is_strict=self.is_strict)
            # A quota that appears for the first time: what else is in flight has not been counted yet.
            mark = grant.marks.get(reading.quota, meter.mark)
            meter.learn(reading, mark=mark, sent_at=grant.granted_at, now=now)

    def started(self, grant: Grant, now: float) -> None:
        """Take note that a request got through: its answer has begun."""
        grant.has_started = True
        self._passed_sent_at = max(self._passed_sent_at, grant.granted_at)
        self.start.passed += 1
        if grant.granted_at >= self._episode_at:
            self._is_probing = False
            self._row.clear()
        self.rate_probe.started(now, sent_at=grant.granted_at)

    def completed(self, grant: Grant, now: float, *, used: Cost | None = None) -> None:
        """End: the answer was read to its end. `used` is what it took."""
        if self._end(grant):
            self.concurrency.completed(self.in_flight + 1)
            self.throughput.completed(grant.beside, now - grant.granted_at, now)
            if used is not None:
                self._settle(grant, used, now)

    def aborted(self, grant: Grant) -> None:
        """End: the call was given up before the end of its answer. That says nothing about limits."""
        self._end(grant)

    def lane_stopped(self, grant: Grant) -> None:
        """End: the lane stops, since its quota is spent or its credential is bad. That says nothing about its pace."""
        self._end(grant)

    def rejected(self, grant: Grant, now: float) -> None:
        """End: the provider said no to this request alone. It got through."""
        self.started(grant, now)
        self._end(grant)

    def upstream_failed(self, grant: Grant, now: float, *, overloaded_by: Hashable = None) -> None:
        """End: the upstream failed. The pace does not slow down: another request takes the slot.

        Args:
            overloaded_by: the question, where the failure may mean too many at once: a 503 that says so, a connection
                that was refused, an answer that did not come in time.
        """
        if self._end(grant):
            self.rate_probe.upstream_failed(sent_at=grant.granted_at)
            for quota, meter in self.meters.items():
                if quota in grant.marks:
                    meter.upstream_failed(grant.cost.of(quota.dimension), now)
            if overloaded_by is not None and not self.has_limits and self.overload.upstream_failed(overloaded_by, now):
                self.concurrency.narrow(grant.beside - 1, now)

    def not_sent(self, grant: Grant) -> None:
        """End: nothing was sent, or the call was taken back."""
        if self._end(grant):
            self.rate_probe.not_passed(sent_at=grant.granted_at)
            for quota, meter in self.meters.items():
                if quota in grant.marks:
                    meter.not_sent(grant.cost.of(quota.dimension))

    def rate_limited(
        self,
        grant: Grant,
        now: float,
        *,
        wait_seconds: float | None,
        jitter: float,
        request: RequestBackoff | None = None,
        is_exhausted: bool = False,
        lanes: int = 1,
    ) -> float:
        """End with a 429: pause the lane for all, or set this request aside. Return for how long the lane pauses.

        Args:
            wait_seconds: what the provider asked, a floor; None: it did not say.
            jitter: uniform in [0, 1), put above the floor.
            request: what this request was refused with before.
            is_exhausted: the refusal's own headers say that a limit of the lane is used up.
            lanes: how many the request may go by.
        """
        self._end(grant)
        self.refusals += 1
        self.rate_probe.not_passed(sent_at=grant.granted_at)
        request = request or RequestBackoff()
        # Where calls at once are bounded, the end of another one lets the next in: no time has to pass.
        is_crowded = not self.finds_rate and not self.has_limits and self.in_flight > 0
        is_own = request.rate_limited(
            now,
            is_late=grant.granted_at < self._episode_at,
            passed_sent_at=-math.inf if is_exhausted else self._passed_sent_at,
            wait_seconds=wait_seconds,
            jitter=jitter,
            is_crowded=is_crowded,
            lanes=lanes,
        )
        if is_own:
            self.set_aside += 1
        elif is_crowded:
            self._crowded(grant, now, wait_seconds=wait_seconds, jitter=jitter)
        else:
            self._pause_lane(grant, now, request, wait_seconds=wait_seconds, jitter=jitter)
        return max(0.0, self.paused_until - now)

    def _crowded(self, grant: Grant, now: float, *, wait_seconds: float | None, jitter: float) -> None:
        self.concurrency.crowded(self.in_flight)
        if wait_seconds is not None:
            self._pause(now + named_seconds(wait_seconds, jitter=jitter))
        if grant.granted_at >= self._episode_at:
            self._episode_at = now
            self._is_probing, self._probe = False, None
            if not self._row:
                self.episodes += 1

    def _pause_lane(
        self, grant: Grant, now: float, request: RequestBackoff, *, wait_seconds: float | None, jitter: float
    ) -> None:
        # A request that was sent before the wall was seen is part of it.
        is_new = grant.granted_at >= self._episode_at
        is_first = is_new and not self._row
        if is_first:
            self._row_began_at = now
        if is_new:
            self._row.add(request)
        wait = 0.0 if wait_seconds is None else named_seconds(wait_seconds, jitter=jitter)
        if is_new:
            longest = LONGEST_BACKOFF_SECONDS
            if wait_seconds is None:
                wait = FIRST_BACKOFF_SECONDS * (1 + 0.25 * jitter)
                if not self.start.is_over and not self.has_limits and len(self._row) > 1:
                    wait = max(wait, self.start.until_window(now) * (1 + 0.01 * jitter))
                if self._passed_sent_at > -math.inf and now - self._row_began_at < WINDOW_SECONDS:
                    longest = LONGEST_PROBE_SECONDS
            wait = max(wait, floor_seconds(len(self._row), jitter=jitter, longest_seconds=longest))
        self._pause(now + wait)
        if is_new:
            self._episode_at = now
            # Known limits name the next time; else one request goes ahead as a probe.
            self._is_probing, self._probe = not self.has_limits, None
            if is_first:
                self._begin_episode(now)

    def _pause(self, until: float) -> None:
        self.paused_until = max(self.paused_until, until)

    def _begin_episode(self, now: float) -> None:
        self.episodes += 1
        if not self.has_limits:
            if not self.finds_rate or self.rate_probe.rate is None:
                self.concurrency.narrow(self.in_flight, now)
            if self.finds_rate:
                self.rate_probe.episode_began(now)
        for meter in self.meters.values():
            meter.rate_limited(until=self.paused_until, now=now)

    def _end(self, grant: Grant) -> bool:
        if grant.is_over:
            return False
        grant.is_over = True
        self.in_flight -= 1
        if grant is self._probe:
            # It ended and showed nothing of limits: the next one is the probe.
            self._probe = None
        for quota, meter in self.meters.items():
            if quota in grant.marks:
                meter.ended(grant.cost.of(quota.dimension))
        return True

    def _settle(self, grant: Grant, used: Cost, now: float) -> None:
        for quota, meter in self.meters.items():
            if quota in grant.marks:
                meter.completed(grant.cost.of(quota.dimension), used.of(quota.dimension), now)
