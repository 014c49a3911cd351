"""How a call may end: what each ending of a permit does to the lane, its pace, the circuit breaker and the counts."""

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from kdproxy.core.limits import Cost
from kdproxy.core.pacing.breaker import FAILURES_TO_OPEN, State
from kdproxy.core.retry import Park
from kdproxy.engine.lane import Refusal
from kdproxy.engine.lane_queue import LaneQueue, LaneQueueClosed
from kdproxy.engine.permit import Permit
from kdproxy.providers.rules import TABLES
from tests.kdproxy.engine.scripted_provider import Provider, ScriptedFetcher, in_turn, virtually

REFUSAL = Refusal(status=429, headers=(), body=b"no")
COUNTED = ("sent", "answered", "failed", "refused", "dropped", "taken_back")


def _completed(permit: Permit) -> None:
    permit.started(())
    permit.completed()


def _aborted(permit: Permit) -> None:
    permit.started(())
    permit.aborted()


def _taken_back(permit: Permit) -> None:
    permit.is_taken_back = True
    permit.not_sent()


class Case(NamedTuple):
    """An ending, and what it leaves."""

    end: Callable[[Permit], Any]
    counted: str
    """Its key in `counts`."""
    got_through: bool = False
    """Whether the pace counts it as a request that the provider took."""
    pauses: bool = False
    stops: bool = False
    breaker: str = ""
    """What the breaker makes of it: "answered", "failed", or nothing."""
    was_sent: bool = True
    next_gets: type = Permit
    """What the next request in the queue gets."""


CASES = {
    "completed": Case(_completed, "answered", got_through=True, breaker="answered"),
    "aborted after its start": Case(_aborted, "failed", got_through=True, breaker="answered"),
    "aborted before its start": Case(Permit.aborted, "failed"),
    "rate limited": Case(
        lambda permit: permit.rate_limited((), 7.0),
        "refused",
        pauses=True,
        breaker="answered",
        next_gets=asyncio.CancelledError,
    ),
    "rejected": Case(lambda permit: permit.rejected(()), "answered", got_through=True, breaker="answered"),
    "upstream failed": Case(lambda permit: permit.upstream_failed("cut"), "failed", breaker="failed"),
    "lane stopped": Case(
        lambda permit: permit.lane_stopped(Park(reason="quota"), REFUSAL), "refused", stops=True, breaker="answered"
    ),
    "credential rejected": Case(
        lambda permit: permit.credential_rejected(REFUSAL),
        "refused",
        stops=True,
        breaker="answered",
        next_gets=LaneQueueClosed,
    ),
    "not sent": Case(Permit.not_sent, "dropped", was_sent=False),
    "taken back": Case(_taken_back, "taken_back", was_sent=False),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def queue_of() -> LaneQueue:
    # "general" rules and a server of one's own: no header names a limit, no slow start.
    return ScriptedFetcher(Provider(in_turn()), rules=TABLES["general"]).queue


async def permit_of(queue: LaneQueue, question: object) -> Permit:
    return await queue.turn(queue.join(Cost(), question=question))


def state_of(queue: LaneQueue) -> dict[str, Any]:
    """Return all that an ending may change."""
    (lane,), health = queue.lanes, queue.health
    pace = lane.pace
    return {
        "in flight": pace.in_flight,
        "in flight at the upstream": health.breaker.in_flight,
        "got through": pace.start.passed,
        "rate limited": pace.refusals,
        "paused until": pace.paused_until,
        "stop": lane.stop,
        "counts": {name: lane.counts[name] for name in COUNTED},
        "failed": {question: health.breaker.has_failed(question) for question in ("earlier", "this")},
        "budget": health.budget.tokens,
        "succeeded at": health.succeeded_at,
    }


@each_case
def test_each_ending_reaches_the_pace_the_breaker_and_the_counts(case: Case) -> None:
    async def main() -> None:
        queue = queue_of()
        (await permit_of(queue, "earlier")).upstream_failed("down")
        before = state_of(queue)
        case.end(await permit_of(queue, "this"))
        after = state_of(queue)

        assert after["in flight"] == after["in flight at the upstream"] == 0
        assert after["got through"] - before["got through"] == case.got_through
        assert after["rate limited"] == case.pauses
        assert (after["paused until"] > queue.now()) == case.pauses
        assert (after["stop"] is not None) == case.stops
        counts = {name: after["counts"][name] - before["counts"][name] for name in COUNTED}
        assert counts == {**dict.fromkeys(COUNTED, 0), "sent": int(case.was_sent), case.counted: 1}
        assert after["failed"] == {"earlier": case.breaker != "answered", "this": case.breaker == "failed"}

    virtually(main)


@each_case
@pytest.mark.parametrize("second", CASES.values(), ids=CASES)
def test_a_second_ending_does_nothing(case: Case, second: Case) -> None:
    async def main() -> None:
        queue = queue_of()
        permit = await permit_of(queue, "this")
        case.end(permit)
        before = state_of(queue)
        second.end(permit)
        assert state_of(queue) == before

    virtually(main)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.breaker != "failed"])
def test_only_a_failed_upstream_opens_the_circuit_breaker(name: str) -> None:
    async def main() -> None:
        queue = queue_of()
        for number in range(FAILURES_TO_OPEN - 1):
            (await permit_of(queue, number)).upstream_failed("down")
        CASES[name].end(await permit_of(queue, "this"))
        assert queue.health.breaker.state is State.CLOSED

    virtually(main)


def test_a_failed_upstream_opens_the_circuit_breaker() -> None:
    async def main() -> None:
        queue = queue_of()
        for number in range(FAILURES_TO_OPEN):
            (await permit_of(queue, number)).upstream_failed("down")
        assert queue.health.breaker.state is State.OPEN

    virtually(main)


@each_case
def test_the_next_request_goes_when_the_ending_allows_it(case: Case) -> None:
    """Each ending frees the one place in flight. A pause holds the next request, and a lost credential refuses it.

    After a spent quota the next request is the half-open probe.
    """

    async def main() -> None:
        queue = ScriptedFetcher(Provider(in_turn()), most_in_flight=1).queue
        permit = await permit_of(queue, "this")
        waiting = asyncio.create_task(permit_of(queue, "next"))
        await asyncio.sleep(0)
        case.end(permit)
        await asyncio.sleep(0.05)
        waiting.cancel()
        (result,) = await asyncio.gather(waiting, return_exceptions=True)
        assert isinstance(result, case.next_gets)

    virtually(main)


@each_case
def test_a_permit_names_its_lane_and_its_state_without_the_question(case: Case) -> None:
    async def main() -> None:
        permit = await permit_of(queue_of(), "my secret prompt")
        assert repr(permit) == "<Permit teacher/key/m open>"
        case.end(permit)
        assert repr(permit) == "<Permit teacher/key/m over>"

    virtually(main)


def test_a_lane_and_its_queue_show_what_a_debugger_needs() -> None:
    async def main() -> None:
        queue = queue_of()
        permit = await permit_of(queue, "this")
        assert repr(queue.lanes[0]) == "<Lane teacher/key/m in_flight=1/5>"
        assert (
            repr(queue) == "<LaneQueue teacher/m waiting=0 breaker=closed lanes=[<Lane teacher/key/m in_flight=1/5>]>"
        )
        permit.credential_rejected(Refusal(status=401, headers=(("set-cookie", "secret"),), body=b"sk-secret"))
        assert repr(queue.lanes[0]) == "<Lane teacher/key/m in_flight=0/5 stopped: the credential is refused>"

    virtually(main)
