"""Lane queues: who goes when, and what a cancelled, stopped or revoked one leaves behind. In virtual time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdproxy.core.limits import QUOTAS, Cost
from kdproxy.core.models import Upstream
from kdproxy.core.retry import Park
from kdproxy.engine.lane import FAIL_FAST_SECONDS, Policy, Refusal
from kdproxy.engine.lane_queue import LaneQueue, LaneQueueClosed
from kdproxy.engine.lanes import Lanes, LaneSettings
from kdproxy.engine.permit import Permit
from kdproxy.providers.rules import TABLES
from kdproxy.testing.virtual import VirtualClock, VirtualLoop

UPSTREAM = Upstream(name="teacher", url="http://127.0.0.1:1/v1")
ONE = Cost()
SPENT = Refusal(status=429, headers=(), body=b"no money", is_fatal=True)
RPM = QUOTAS["requests_per_minute"]


def virtually(main: Callable[[], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        return await main()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(run())


def queue_of(*credentials: str, lanes: Lanes | None = None, **settings: Any) -> LaneQueue:
    lanes = lanes or Lanes(VirtualClock(), otherwise=LaneSettings(**settings), jitter=lambda: 0.5)
    return lanes.queue(UPSTREAM, credentials or ("key",), "model", TABLES["general"])


async def turn(queue: LaneQueue, **more: Any) -> Permit:
    return await queue.turn(queue.join(ONE, **more))


async def answered(queue: LaneQueue, seconds: float = 0.1, **more: Any) -> float:
    permit = await turn(queue, **more)
    at = queue.now()
    permit.started(())
    try:
        await asyncio.sleep(seconds)
    finally:
        permit.completed()
    return at


def test_inside_a_run_it_is_first_come_first_served() -> None:
    async def main() -> list[int]:
        queue, order = queue_of(most_in_flight=1), []

        async def one(number: int) -> None:
            await answered(queue)
            order.append(number)

        async with asyncio.TaskGroup() as group:
            for number in range(30):
                group.create_task(one(number))
        return order

    assert virtually(main) == list(range(30))


def test_between_runs_it_is_turn_about() -> None:
    """A run of a thousand does not keep one of three waiting."""

    async def main() -> list[str]:
        queue, order = queue_of(most_in_flight=1), []

        async def one(run: str) -> None:
            await answered(queue, run=run)
            order.append(run)

        async with asyncio.TaskGroup() as group:
            for run in ["large"] * 1_000 + ["small"] * 3:
                group.create_task(one(run))
        return order

    order = virtually(main)
    assert [place for place, run in enumerate(order) if run == "small"][-1] <= 6


def test_a_request_sent_back_keeps_its_place() -> None:
    async def main() -> list[str]:
        queue, order = queue_of(most_in_flight=1), []

        async def one(name: str, **more: Any) -> None:
            await answered(queue, **more)
            order.append(name)

        permit = await turn(queue)
        async with asyncio.TaskGroup() as group:
            group.create_task(one("second"))
            await asyncio.sleep(0.01)
            group.create_task(one("again", at_front=True))
            await asyncio.sleep(0.01)
            permit.rate_limited((), 0.5)
        return order

    assert virtually(main) == ["again", "second"]


@given(
    steps=st.lists(st.tuples(st.integers(0, 20), st.floats(0, 0.5), st.booleans()), min_size=1, max_size=40),
    at_once=st.integers(1, 4),
)
@settings(max_examples=150)
def test_cancelled_waiters_leave_no_hole(steps: list[tuple[int, float, bool]], at_once: int) -> None:
    async def main() -> None:
        queue = queue_of(most_in_flight=at_once)
        tasks = []
        for number, pause, is_cancelled in steps:
            task = asyncio.create_task(answered(queue, run=str(number % 3)))
            tasks.append((task, is_cancelled))
            await asyncio.sleep(pause)
            if is_cancelled:
                task.cancel()
        results = await asyncio.gather(*(task for task, _ in tasks), return_exceptions=True)
        for result, (_, is_cancelled) in zip(results, tasks, strict=True):
            assert is_cancelled or isinstance(result, float)
        assert queue.waiting == 0
        assert queue.lanes[0].pace.in_flight == 0
        for _ in range(at_once):
            await asyncio.wait_for(turn(queue), 60)

    virtually(main)


def test_a_permit_granted_to_a_cancelled_waiter_goes_to_the_next() -> None:
    async def main() -> None:
        queue = queue_of(most_in_flight=1)
        first = await turn(queue)
        waiting = asyncio.create_task(turn(queue))
        behind = asyncio.create_task(turn(queue))
        await asyncio.sleep(0)
        first.completed()  # the turn comes now ...
        waiting.cancel()  # ... and the waiter leaves before it runs
        await asyncio.wait_for(behind, 1)
        assert queue.lanes[0].pace.in_flight == 1

    virtually(main)


def test_one_429_pauses_the_lane_and_not_one_request() -> None:
    async def main() -> list[float]:
        queue = queue_of()
        (await turn(queue)).rate_limited((), 7.0)
        return await asyncio.gather(*(answered(queue) for _ in range(10)))

    assert min(virtually(main)) >= 7.0


def test_a_limit_of_our_own_is_kept() -> None:
    async def main() -> list[float]:
        queue = queue_of(allowed={RPM: 60.0})
        return sorted(await asyncio.gather(*(answered(queue) for _ in range(150))))

    at = virtually(main)
    for start in at:
        assert sum(1 for each in at if start <= each < start + 60) <= 60
    assert at[-1] < 155


# -- stops --------------------------------------------------------------------------------------------------


def test_a_spent_quota_fails_all_that_wait_with_one_call() -> None:
    async def main() -> None:
        queue = queue_of(most_in_flight=1)
        permit = await turn(queue)
        rest = [asyncio.create_task(turn(queue)) for _ in range(50)]
        await asyncio.sleep(0.1)
        permit.lane_stopped(Park(reason="insufficient_quota"), SPENT)
        # The first waiter is the probe; its answer holds for the rest.
        probe = await rest[0]
        probe.lane_stopped(Park(reason="insufficient_quota"), SPENT)
        for result in await asyncio.gather(*rest[1:], return_exceptions=True):
            assert isinstance(result, LaneQueueClosed)
            assert result.refusal is SPENT
        await asyncio.sleep(FAIL_FAST_SECONDS)
        (await turn(queue)).started(())
        assert queue.lanes[0].stop is None

    virtually(main)


def test_a_parked_lane_holds_probes_rarely_and_resumes() -> None:
    async def main() -> tuple[int, float]:
        queue = queue_of(policy=Policy.PARK)
        probes, paid_at = 0, 3_000.0

        async def one() -> float:
            nonlocal probes
            at_front = False
            while True:
                permit = await turn(queue, at_front=at_front)
                if queue.now() >= paid_at:
                    permit.started(())
                    permit.completed()
                    return queue.now()
                probes += 1
                permit.lane_stopped(Park(reason="insufficient_quota"), SPENT)
                at_front = True

        at = await asyncio.gather(*(one() for _ in range(20)))
        return probes, max(at)

    probes, last = virtually(main)
    # Twenty went out before the first word came; then one now and then.
    assert probes <= 20 + 7
    assert last < 3_000 + 900


def test_a_parked_lane_is_probed_when_its_quota_resets() -> None:
    async def main() -> float:
        queue = queue_of(policy=Policy.PARK)
        (await turn(queue)).lane_stopped(Park(reason="requests_per_day is spent", wait_seconds=500.0), SPENT)
        await turn(queue)
        return queue.now()

    assert virtually(main) == pytest.approx(500.0)


def test_work_goes_to_the_lane_that_can_send_soonest() -> None:
    async def main() -> list[int]:
        queue = queue_of("a", "b", allowed={RPM: 60.0})
        permits = [await turn(queue) for _ in range(100)]
        return [permit.lane.key_index for permit in permits]

    used = virtually(main)
    assert 40 <= used.count(0) <= 60


def test_a_429_at_one_key_leaves_the_other_going() -> None:
    async def main() -> None:
        queue = queue_of("a", "b")
        permit = await turn(queue)
        permit.rate_limited((), 100.0)
        other = await turn(queue)
        assert other.lane is not permit.lane
        assert queue.now() < 1

    virtually(main)


def test_a_revoked_key_takes_only_itself_out() -> None:
    async def main() -> None:
        queue = queue_of("a", "b")
        permit = await turn(queue)
        permit.credential_rejected(Refusal(status=401, headers=(), body=b"bad key"))
        for _ in range(5):
            other = await turn(queue)
            assert other.lane is not permit.lane
            other.started(())
            other.completed()

    virtually(main)


# -- what is told ---------------------------------------------------------------------------------------------


def test_advice_is_when_the_turn_will_come() -> None:
    async def main() -> None:
        queue = queue_of(allowed={RPM: 60.0})
        tasks = [asyncio.create_task(answered(queue)) for _ in range(60)]
        await asyncio.sleep(30)
        waiter = queue.join(ONE)
        advice = queue.advise(waiter)
        await queue.turn(waiter)
        assert advice.is_rate_limit
        assert advice.seconds == pytest.approx(queue.now() - 30, rel=0.3, abs=2.0)
        await asyncio.gather(*tasks)

    virtually(main)


def test_advice_is_never_more_than_a_client_takes() -> None:
    async def main() -> None:
        queue = queue_of()
        (await turn(queue)).rate_limited((), 3_000.0)
        assert queue.advise(None).seconds == 120

    virtually(main)


def test_the_snapshot_shows_each_lane() -> None:
    async def main() -> list[dict[str, Any]]:
        lanes = Lanes(VirtualClock(), otherwise=LaneSettings(allowed={RPM: 60.0}), jitter=lambda: 0.5)
        queue = queue_of("a", "b", lanes=lanes)
        (await turn(queue)).rate_limited((), 50.0)
        (await turn(queue)).completed()
        waiting = [asyncio.create_task(answered(queue)) for _ in range(100)]
        await asyncio.sleep(1)
        rows = lanes.snapshot()
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return rows

    first, second = virtually(main)
    assert (first["rate_limited"], first["paused_seconds"] > 40, second["rate_limited"]) == (1, True, 0)
    assert second["limits"]["requests_per_minute"]["limit"] == 60
    assert first["queued"] > 0
    assert first["drain_seconds"] > 0
    assert {"upstream", "credential", "model", "in_flight", "stopped", "breaker", "longest_wait_seconds"} <= set(first)


# -- thousands of credentials -----------------------------------------------------------------------------------


def test_a_call_costs_the_same_beside_thousands_of_other_lanes() -> None:
    """Only lanes with somebody in line are told what becomes of a call."""

    async def main() -> None:
        lanes = Lanes(VirtualClock(), otherwise=LaneSettings(most_in_flight=1))
        for number in range(500):
            queue = lanes.queue(UPSTREAM, (f"key {number}",), "model", TABLES["general"])
            await answered(queue)
        health = queue.health
        assert len(health._listeners) == 0
        first = await turn(queue)
        second = asyncio.create_task(answered(queue))
        third = asyncio.create_task(answered(queue))
        await asyncio.sleep(0.1)
        assert len(health._listeners) == 1
        third.cancel()
        first.started(())
        first.completed()
        await second
        assert len(health._listeners) == 0

    virtually(main)


def test_a_lane_that_nobody_used_for_an_hour_goes_away() -> None:
    async def main() -> None:
        lanes = Lanes(VirtualClock())

        def queue(key: str) -> LaneQueue:
            return lanes.queue(UPSTREAM, (key,), "model", TABLES["general"])

        for number in range(1_000):
            await answered(queue(f"key {number}"))
        busy = await turn(queue("busy"))
        await asyncio.sleep(3_000)
        used = queue("key 7")
        await asyncio.sleep(700)
        queue("new")
        assert {row["credential"] for row in lanes.snapshot()} == {"busy", "key 7", "new"}
        assert queue("key 7") is used
        busy.completed()
        await asyncio.sleep(3_700)
        queue("new")
        assert {row["credential"] for row in lanes.snapshot()} == {"new"}

    virtually(main)
