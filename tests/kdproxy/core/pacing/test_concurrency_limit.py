"""How many calls may be in flight where no header tells: by time, by refusals, and by what a server answers in time."""

import math
from itertools import pairwise

import pytest

from kdproxy.core.limits import Cost
from kdproxy.core.pacing.concurrency_limit import FIRST, ConcurrencyLimit
from kdproxy.core.pacing.pace import Grant, Pace
from kdproxy.core.pacing.slow_start import ENOUGH_PASSED

ONE = Cost()


def _send_all_that_may_go(pace: Pace, now: float, seconds: float = 0.0) -> list[Grant]:
    sent: list[Grant] = []
    until = now + seconds
    while now <= until and (wait := pace.wait(ONE, now)) < math.inf:
        if wait == 0:
            sent.append(pace.take(ONE, now))
        now += wait
    return sent


@pytest.mark.parametrize(("is_hosted", "seconds"), [(False, 1.3), (True, 2.7)])
def test_from_five_on_it_is_at_full_width_within_three_seconds(is_hosted: bool, seconds: float) -> None:
    pace = Pace(is_hosted=is_hosted)
    pace.start.end()
    assert len(_send_all_that_may_go(pace, 0.0)) == FIRST
    sent = [grant.granted_at for grant in _send_all_that_may_go(pace, 0.0, 3.0)]
    assert len(sent) + FIRST >= 1_000
    assert sent[999 - int(FIRST) - 1] <= seconds
    assert sent[0] == pytest.approx(1 / (4 if is_hosted else 128), abs=0.004)
    # Singly, and twice as fast in each quarter of a second.
    assert all(after > before for before, after in pairwise(sent[:10]))
    by_quarter = [sum(start <= at < start + 0.25 for at in sent) for start in (0.25, 0.5, 0.75)]
    assert by_quarter[1] == pytest.approx(2 * by_quarter[0], rel=0.3)


@pytest.mark.parametrize(("is_hosted", "round_trip"), [(False, 0.002), (False, 0.01), (True, 0.05), (True, 0.2)])
@pytest.mark.parametrize("at_once", [5, 8, 20, 100])
def test_permits_are_added_singly_so_a_wall_costs_what_a_round_trip_holds(
    at_once: int, is_hosted: bool, round_trip: float
) -> None:
    """Refusals come a round trip after the first one too many; what was sent meanwhile is refused too."""
    pace, now, sent = Pace(finds_rate=False, is_hosted=is_hosted), 0.0, 0
    pace.start.end()
    refused_at = math.inf
    while now < refused_at:
        wait = pace.wait(ONE, now)
        if wait == 0:
            pace.take(ONE, now)
            sent += 1
            if sent == at_once + 1:
                refused_at = now + round_trip
        now += wait
    # The rate is about three a second for each that is out (2.8: it doubles in a quarter second), or the first one.
    first_rate = 4.0 if is_hosted else 192.0
    assert sent - at_once <= 2 + (first_rate + 4 * at_once) * round_trip * 2 ** (4 * round_trip)


def test_a_hosted_api_gets_two_a_second_until_enough_have_passed() -> None:
    pace = Pace(is_hosted=True)
    sent = _send_all_that_may_go(pace, 0.0, 15.4)
    assert [grant.granted_at for grant in sent] == pytest.approx([number / 2 for number in range(31)])
    for grant in sent:
        pace.started(grant, 15.4)
    pace.started(pace.take(ONE, 15.5), 15.6)
    assert pace.start.passed == ENOUGH_PASSED
    assert len(_send_all_that_may_go(pace, 16.0, 3.0)) >= 900


def test_a_batching_server_opens_at_full_width_and_slots_bound_it() -> None:
    pace = Pace(is_hosted=True)
    pace.recognise(is_batching=True)
    assert len(_send_all_that_may_go(pace, 0.0)) == 1_024
    pace = Pace()
    pace.recognise(is_batching=False, slots=4)
    assert len(_send_all_that_may_go(pace, 0.0, 60.0)) == 8


# -- width --------------------------------------------------------------------------------------------------


def _pressed(width: ConcurrencyLimit, now: float, seconds: float) -> float:
    """Ask for more than there is, for so long."""
    until = now + seconds
    while now < until and (wait := width.wait(int(width.bound), now)) < math.inf:
        now += max(wait, 0.001)
    return width.bound


def test_width_that_nobody_uses_does_not_grow() -> None:
    width = ConcurrencyLimit(1_000.0)
    for second in range(200):
        assert width.wait(3, float(second)) == 0.0
    assert width.bound == FIRST
    # Asked for now and then it grows by its slowest step, if at all.
    for second in range(200, 220):
        width.wait(int(width.bound), float(second))
    assert width.bound == FIRST


def test_width_shrinks_by_a_fifth_and_widens_by_time_up_to_where_it_was_refused() -> None:
    width = ConcurrencyLimit(1_000.0)
    width.open(100)
    width.narrow(99, 0.0)
    assert width.bound == pytest.approx(80)
    assert _pressed(width, 0.0, 10.0) == pytest.approx(92, abs=1)
    # Half a minute later a wall that was no bound on calls at once says nothing any more.
    assert _pressed(width, 31.0, 5.0) == 1_000


def test_width_at_a_bound_on_calls_at_once_is_tried_by_one_more_after_hundreds_of_answers() -> None:
    width = ConcurrencyLimit(1_000.0)
    width.open(50)
    width.crowded(30)
    assert _pressed(width, 0.0, 600.0) == 30
    for _ in range(200):
        width.completed(30)
    assert int(width.bound) == 30
    for _ in range(400):
        width.completed(30)
    assert int(width.bound) == 31


def test_width_is_at_most_what_is_configured() -> None:
    width = ConcurrencyLimit(40.0)
    assert _pressed(width, 0.0, 60.0) == 40
    assert width.wait(40, 60.0) == math.inf


# -- what shrinks it ----------------------------------------------------------------------------------------


def test_failures_of_several_questions_narrow_it_and_those_of_one_never_do() -> None:
    pace = Pace()
    sent = _send_all_that_may_go(pace, 0.0, 1.5)
    bound = pace.concurrency.bound
    for grant in sent[-40:-20]:
        pace.upstream_failed(grant, 2.0, overloaded_by="one")
    assert pace.concurrency.bound == bound
    for number, grant in enumerate(sent[-20:-17]):
        pace.upstream_failed(grant, 2.0, overloaded_by=number)
    assert pace.concurrency.bound < 0.85 * bound


def test_failures_of_calls_sent_with_few_in_flight_do_not_narrow_it() -> None:
    """A server that starts anew refuses connections: that says nothing of how many it takes."""
    pace = Pace()
    pace.recognise(is_batching=True)
    for number in range(20):
        pace.upstream_failed(pace.take(ONE, 0.0), 0.1, overloaded_by=number)
    assert pace.concurrency.bound == 1_024


# -- what the server can answer in time ---------------------------------------------------------------------


def _slots(pace: Pace, *, slots: int, seconds: float, deadline: float, callers: int, ends: int) -> int:
    """A server with so many slots and a line before them; return the most in flight after the first answers."""
    now, line, most = 0.0, [], 0
    for _ in range(callers):
        now += pace.wait(ONE, now)
        line.append(pace.take(ONE, now, deadline_seconds=deadline))
    free = [now] * slots
    for _ in range(ends):
        free.sort()
        at = free[0] = max(free[0], now) + seconds
        now = at
        grant = line.pop(0)
        pace.started(grant, at)
        pace.completed(grant, at)
        while pace.wait(ONE, now) == 0 and len(line) < callers:
            line.append(pace.take(ONE, now, deadline_seconds=deadline))
            most = max(most, pace.in_flight)
    return most


def test_a_small_server_has_no_more_in_flight_than_it_answers_in_half_the_deadline() -> None:
    pace = Pace()
    _slots(pace, slots=1, seconds=2.0, deadline=60.0, callers=256, ends=8)
    assert pace.throughput.bound == pytest.approx(15, rel=0.2)
    assert pace.excess == pace.in_flight - int(pace.throughput.bound) > 200


def test_a_server_that_is_quick_by_the_deadline_is_not_bounded() -> None:
    pace = Pace()
    for _ in range(20):
        grant = pace.take(ONE, 0.0, deadline_seconds=600.0)
        pace.completed(grant, 10.0)
    assert pace.throughput.bound == math.inf
    assert pace.excess == 0


def test_a_few_long_answers_one_after_the_other_do_not_bound_what_follows() -> None:
    """A script's first question tells how long an answer takes, and not how many a second the server gives."""
    pace, now = Pace(), 0.0
    for _ in range(10):
        grant = pace.take(ONE, now, deadline_seconds=600.0)
        now += 200.0
        pace.completed(grant, now)
    assert pace.throughput.bound == math.inf
