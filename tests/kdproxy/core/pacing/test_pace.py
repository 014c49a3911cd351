"""The pace of a lane: pauses, probes, width, breaker, budget."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdproxy.core.limits import DAY, Cost, Dimension, Quota, Reading
from kdproxy.core.pacing.backoff import LONGEST_BACKOFF_SECONDS
from kdproxy.core.pacing.breaker import (
    BUDGET,
    FAILURES_TO_OPEN,
    LONGEST_PROBE_SECONDS,
    RETRY_COST,
    TRIAL_SECONDS,
    CircuitBreaker,
    RetryBudget,
    State,
)
from kdproxy.core.pacing.concurrency_limit import FIRST
from kdproxy.core.pacing.pace import Grant, Pace

RPM = Quota(Dimension.REQUESTS)
ONE = Cost()


def _send_all_that_may_go(pace: Pace, now: float, seconds: float = 0.0) -> list[Grant]:
    sent: list[Grant] = []
    until = now + seconds
    while now <= until and (wait := pace.wait(ONE, now)) < math.inf:
        if wait == 0:
            sent.append(pace.take(ONE, now))
        now += wait
    return sent


def test_one_too_many_at_once_waits_for_the_end_of_another_and_not_for_time() -> None:
    pace = Pace(finds_rate=False)
    sent = _send_all_that_may_go(pace, 0.0, 1.0)
    for grant in sent[10:]:
        assert pace.rate_limited(grant, 1.1, wait_seconds=None, jitter=0.5) == 0
    assert (pace.bound_in_flight, pace.in_flight) == (10, 10)
    assert pace.wait(ONE, 1.1) == math.inf
    pace.completed(sent[0], 1.2)
    assert pace.wait(ONE, 1.2) == 0


def test_one_too_many_at_once_beside_nobody_waits_for_time() -> None:
    """Somebody else has the places: no end of ours will make room."""
    pace = Pace(finds_rate=False)
    assert pace.rate_limited(pace.take(ONE, 0.0), 0.1, wait_seconds=None, jitter=0.0) == pytest.approx(1.0)


def test_a_wait_that_is_asked_for_too_many_at_once_is_a_floor_all_the_same() -> None:
    pace = Pace(finds_rate=False)
    pace.take(ONE, 0.0)
    assert pace.rate_limited(pace.take(ONE, 0.0), 0.1, wait_seconds=7.0, jitter=0.5) >= 7.0


def test_a_slot_of_the_pace_that_the_upstream_failed_on_goes_to_another() -> None:
    """On one that was answered, and on one that was not: a tenth of 5xx must not cost a tenth of the pace."""
    pace = Pace()
    first = pace.take(ONE, 0.0)
    pace.learn(first, [Reading(quota=RPM, limit=60, remaining=59, reset_seconds=60)], 0.1)
    pace.completed(first, 0.1)
    while pace.wait(ONE, 1.0) == 0:
        last = pace.take(ONE, 1.0)
    assert pace.wait(ONE, 1.0) > 0.1
    pace.upstream_failed(last, 1.0)
    assert pace.wait(ONE, 1.0) == 0


def test_one_429_pauses_all_for_at_least_what_was_asked() -> None:
    pace = Pace()
    first, second = pace.take(ONE, 0.0), pace.take(ONE, 0.0)
    pause = pace.rate_limited(first, 1.0, wait_seconds=5.0, jitter=0.5)
    assert 5.0 <= pause <= 6.0
    assert pace.wait(ONE, 1.0) == pytest.approx(pause)
    # Those that were sent before belong to the same episode; a longer wait still counts.
    pace.rate_limited(second, 1.1, wait_seconds=9.0, jitter=0.0)
    assert pace.paused_until == pytest.approx(10.1)
    assert (pace.refusals, pace.episodes) == (2, 1)


def test_without_a_wait_one_goes_ahead_and_the_rest_follow_when_it_is_through() -> None:
    pace = Pace()
    pace.rate_limited(pace.take(ONE, 0.0), 0.1, wait_seconds=None, jitter=0.0)
    assert pace.wait(ONE, 0.1) == pytest.approx(1.0)
    probe = pace.take(ONE, 2.0)
    assert pace.wait(ONE, 2.0) > 0
    pace.started(probe, 2.3)
    assert pace.wait(ONE, 2.3) == 0


def test_a_probe_that_is_not_refused_soon_has_got_through() -> None:
    """Refusals come at once, answers may take minutes."""
    pace = Pace()
    pace.rate_limited(pace.take(ONE, 0.0), 0.1, wait_seconds=None, jitter=0.5)
    pace.take(ONE, 2.0)
    assert pace.wait(ONE, 3.0) == pytest.approx(1.0)
    assert pace.wait(ONE, 4.0) == 0


def test_a_probe_that_fails_otherwise_says_nothing() -> None:
    pace = Pace()
    pace.rate_limited(pace.take(ONE, 0.0), 0.1, wait_seconds=None, jitter=0.5)
    pace.aborted(pace.take(ONE, 2.0))
    assert pace.wait(ONE, 2.1) == 0
    pace.take(ONE, 2.1)
    assert pace.wait(ONE, 2.1) > 0


def test_refused_probes_back_off_up_to_a_bound() -> None:
    pace, now, pauses = Pace(), 0.0, []
    for _ in range(12):
        grant = pace.take(ONE, now)
        pauses.append(pace.rate_limited(grant, now, wait_seconds=None, jitter=0.5))
        now = pace.paused_until
    assert pauses == sorted(pauses)
    assert LONGEST_BACKOFF_SECONDS <= pauses[-1] <= 1.25 * LONGEST_BACKOFF_SECONDS
    assert pace.episodes == 1


def test_a_dropped_permit_leaves_no_trace() -> None:
    pace = Pace(allowed={RPM: 1.0})
    pace.not_sent(pace.take(ONE, 0.0))
    assert pace.in_flight == 0
    assert pace.meters[RPM].level(0.0) == 1


def test_endings_count_once() -> None:
    pace = Pace()
    grant = pace.take(ONE, 0.0)
    pace.started(grant, 0.1)
    pace.completed(grant, 0.2)
    pace.aborted(grant)
    pace.completed(grant, 0.3)
    assert pace.in_flight == 0


def test_a_days_quota_is_not_spread_over_the_day() -> None:
    pace = Pace()
    grant = pace.take(ONE, 0.0)
    quota = Quota(Dimension.REQUESTS, DAY)
    pace.learn(grant, [Reading(quota=quota, limit=14_400, remaining=10, reset_seconds=80_000)], 0.1)
    assert not pace.has_limits
    assert pace.wait(ONE, 0.1) == 0


def test_azure_is_sent_evenly() -> None:
    pace = Pace(is_strict=True, allowed={RPM: 60.0})
    pace.take(ONE, 0.0)
    assert pace.wait(ONE, 0.0) == pytest.approx(1.0)


def test_server_errors_do_not_narrow_the_lane() -> None:
    pace = Pace()
    for _ in range(100):
        pace.upstream_failed(pace.take(ONE, 0.0), 0.0)
    assert pace.concurrency.bound == FIRST


def test_what_was_in_flight_is_gone_when_it_has_landed_whatever_the_scale_is_by_then() -> None:
    """What is left of it would be taken off each new window, and a lane could wait for ever."""
    pace = Pace()
    cost = Cost(input_tokens=400.0)
    grants = [pace.take(cost, 0.0)]
    tokens = Quota(Dimension.TOKENS)
    pace.learn(grants[0], [Reading(quota=tokens, limit=10_000, remaining=9_900, reset_seconds=59.0)], 1.0)
    grants += [pace.take(cost, 1.0 + number) for number in range(8)]
    for number, grant in enumerate(grants[1:], 1):
        # A quarter of the estimate is counted: the scale goes down while calls are under way.
        left = 9_900 - 100 * number
        pace.learn(
            grant, [Reading(quota=tokens, limit=10_000, remaining=left, reset_seconds=59.0 - number)], number + 1.0
        )
    meter = pace.meters[tokens]
    assert meter.scale.value < 0.9
    for grant in grants:
        pace.completed(grant, 12.0)
    assert meter.in_flight == 0


# -- breaker and budget -------------------------------------------------------------------------------------


def _open(breaker: CircuitBreaker, now: float = 0.0) -> None:
    for question in range(FAILURES_TO_OPEN):
        breaker.take(now, question=question)
        breaker.upstream_failed(now, question=question, jitter=0.5)
        breaker.ended(question)


def test_breaker_opens_after_different_questions_in_a_row_only() -> None:
    breaker = CircuitBreaker()
    for _ in range(50):
        for question in range(FAILURES_TO_OPEN - 1):
            assert not breaker.upstream_failed(0.0, question=question, jitter=0.5)
        breaker.answered()
    assert breaker.state is State.CLOSED
    _open(breaker)
    assert breaker.state is State.OPEN


def test_one_question_never_opens_it() -> None:
    breaker = CircuitBreaker()
    assert not any(breaker.upstream_failed(0.0, question="bad", jitter=0.5) for _ in range(1_000))
    assert breaker.state is State.CLOSED


def test_probes_are_rarer_the_longer_it_lasts() -> None:
    breaker = CircuitBreaker()
    _open(breaker)
    assert breaker.wait(0.0) == 0.0
    now, probes = 0.0, []
    while now < 600:
        now += breaker.wait(now)
        probes.append(now)
        breaker.probe_failed(now, jitter=0.5)
    assert len([at for at in probes if 60 <= at < 120]) <= 6
    gaps = [after - before for before, after in pairwise(probes)]
    assert gaps == pytest.approx(sorted(gaps))
    assert gaps[-1] <= LONGEST_PROBE_SECONDS


def test_a_question_that_may_show_how_it_is_is_alone() -> None:
    breaker = CircuitBreaker()
    _open(breaker)
    breaker.take(0.0, question="fresh")
    assert breaker.has_trial
    assert breaker.wait(0.0) == TRIAL_SECONDS
    breaker.upstream_failed(1.0, question="fresh", jitter=0.5)
    breaker.ended("fresh")
    assert not breaker.has_trial
    assert breaker.wait(1.0) > 0
    assert breaker.has_failed("fresh")


def test_what_was_sent_before_it_opened_does_not_make_it_wait_longer() -> None:
    breaker = CircuitBreaker()
    _open(breaker)
    for question in range(100, 200):
        breaker.upstream_failed(0.0, question=question, jitter=0.5)
    assert breaker.wait(0.0) == 0.0


def test_what_is_under_way_for_minutes_keeps_nobody_out() -> None:
    breaker = CircuitBreaker()
    for question in range(100, 140):
        breaker.take(0.0, question=question)
    _open(breaker)
    breaker.probe_succeeded()
    for question in ("one", "two"):
        assert breaker.wait(1.0) == 0.0
        breaker.take(1.0, question=question)
    assert breaker.wait(1.0) == math.inf


def test_it_opens_again_sooner_while_nothing_has_succeeded() -> None:
    breaker = CircuitBreaker()
    _open(breaker)
    breaker.probe_succeeded()
    assert not breaker.upstream_failed(1.0, question=0, jitter=0.5)
    assert breaker.upstream_failed(1.0, question=1, jitter=0.5)
    assert breaker.wait(1.0) >= 0.5


def test_after_an_outage_calls_come_back_by_doubling() -> None:
    breaker = CircuitBreaker()
    _open(breaker)
    breaker.take(0.0, question="fresh")
    assert breaker.answered()
    breaker.ended("fresh")
    rounds = []
    for _ in range(6):
        count = 0
        while breaker.wait(100.0) == 0 and count < 500:
            breaker.take(100.0, question=count)
            count += 1
        rounds.append(count)
        for question in range(count):
            breaker.answered()
            breaker.ended(question)
    for question in range(200):
        breaker.take(100.0, question=question)
    assert breaker.wait(100.0) == 0
    assert rounds == [2, 4, 8, 16, 32, 64]


def test_budget_bounds_retries_as_the_aws_sdks_do() -> None:
    budget = RetryBudget()
    spent = 0
    while budget.spend():
        spent += 1
    assert spent == BUDGET // RETRY_COST == 35
    budget.started(is_retry=True)
    assert budget.spend()
    for _ in range(RETRY_COST):
        budget.started(is_retry=False)
    assert budget.spend()
    assert not budget.spend()


@given(st.lists(st.sampled_from(["take", "done", "failed", "refused", "drop", "wait"]), max_size=200), st.randoms())
def test_no_history_breaks_the_books(steps: list[str], randomness: object) -> None:
    pace, now, flying = Pace(most_in_flight=30), 0.0, []
    for step in steps:
        now += randomness.random()  # type: ignore[attr-defined]
        if step == "take" and pace.wait(ONE, now) == 0:
            flying.append(pace.take(ONE, now))
        elif step == "wait":
            assert pace.wait(ONE, now) >= 0
        elif flying and step != "take":
            grant = flying.pop(0)
            match step:
                case "done":
                    pace.started(grant, now)
                    pace.completed(grant, now)
                case "failed":
                    pace.aborted(grant)
                case "refused":
                    floor = randomness.choice([None, 0.0, 2.0])  # type: ignore[attr-defined]
                    pace.rate_limited(grant, now, wait_seconds=floor, jitter=randomness.random())  # type: ignore[attr-defined]
                    assert floor is None or pace.paused_until >= now + floor
                case "drop":
                    pace.not_sent(grant)
        assert pace.in_flight == len(flying)
        assert pace.in_flight <= 30
