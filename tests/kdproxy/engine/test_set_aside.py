"""One request that the provider never takes, and the others of its lane: in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kdproxy.core.limits import Cost
from kdproxy.core.models import Upstream
from kdproxy.engine.lane_queue import LaneQueue
from kdproxy.engine.lanes import Lanes, LaneSettings
from kdproxy.providers.rules import TABLES
from kdproxy.testing.virtual import VirtualClock, VirtualLoop

UPSTREAM = Upstream(name="teacher", url="http://127.0.0.1:1/v1")


def virtually(main: Callable[[], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        return await main()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(run())


def queue_of(rules: str = "general", **settings: Any) -> LaneQueue:
    lanes = Lanes(VirtualClock(), otherwise=LaneSettings(**settings), jitter=lambda: 0.5)
    return lanes.queue(UPSTREAM, ("key",), "model", TABLES[rules])


async def ask(queue: LaneQueue, question: str, *, wait_seconds: float | None, sent: list[tuple[str, float]]) -> float:
    """Ask until it is answered; questions that begin with "bad" never are. Returns when."""
    at_front = False
    while True:
        permit = await queue.turn(queue.join(Cost(), at_front=at_front, question=question))
        sent.append((question, queue.now()))
        await asyncio.sleep(0.02)
        if question.startswith("bad"):
            permit.rate_limited((), wait_seconds)
            at_front = True
            continue
        permit.started(())
        await asyncio.sleep(0.3)
        permit.completed()
        return queue.now()


@pytest.mark.parametrize("rules", ["general", "deepseek"])
@pytest.mark.parametrize("wait_seconds", [None, 0.0, 0.5])
@pytest.mark.parametrize("bad", [1, 3])
def test_a_request_that_is_always_refused_leaves_the_others_unslowed(
    rules: str, wait_seconds: float | None, bad: int
) -> None:
    async def main() -> tuple[list[float], list[tuple[str, float]]]:
        queue, sent = queue_of(rules), []
        refused = [
            asyncio.create_task(ask(queue, f"bad {number}", wait_seconds=wait_seconds, sent=sent))
            for number in range(bad)
        ]
        ended = [await ask(queue, f"good {number}", wait_seconds=wait_seconds, sent=sent) for number in range(100)]
        for task in refused:
            task.cancel()
        return ended, sent

    ended, sent = virtually(main)
    # Alone a hundred take 32 s. Each bad one may stop the lane once or twice, before it is known.
    assert ended[-1] <= 32 + 3.5 * bad
    assert len([at for question, at in sent if question == "bad 0"]) <= 7


def test_others_that_come_when_only_bad_ones_are_there_go_soon() -> None:
    """For minutes nothing but a bad request was sent: its long back-off is not theirs."""

    async def main() -> float:
        queue, sent = queue_of(), []
        bad = asyncio.create_task(ask(queue, "bad", wait_seconds=0.0, sent=sent))
        await asyncio.sleep(300)
        began = queue.now()
        took = max(
            await asyncio.gather(*(ask(queue, f"good {number}", wait_seconds=None, sent=sent) for number in range(5)))
        )
        bad.cancel()
        return took - began

    assert virtually(main) < 3


def test_a_client_that_comes_again_does_not_start_the_row_anew() -> None:
    async def main() -> list[tuple[str, float]]:
        queue, sent = queue_of(), []
        for _ in range(20):
            asked = asyncio.create_task(ask(queue, "bad", wait_seconds=0.0, sent=sent))
            await asyncio.sleep(5)
            asked.cancel()
            await asyncio.wait([asked])
        assert queue.waiting == 0
        return sent

    assert len(virtually(main)) <= 8


def test_what_waits_aside_is_counted_advised_and_may_leave() -> None:
    async def main() -> None:
        queue, sent = queue_of(), []
        asked = asyncio.create_task(ask(queue, "bad", wait_seconds=0.0, sent=sent))
        await asyncio.sleep(4)
        assert queue.waiting == 1
        assert queue.drain_seconds() is None
        waiter = queue.join(Cost(), question="bad")
        assert queue.waiting == 2
        assert 2 < queue.advise(waiter).seconds < 5
        asked.cancel()
        await asyncio.wait([asked])
        assert queue.waiting == 1

    virtually(main)
