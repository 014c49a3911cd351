"""Back-off after refusals: a first named wait is honoured, then a floor doubles; one request's stays its own."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdproxy.core.limits import Cost, Dimension, Quota, Reading
from kdproxy.core.pacing.backoff import (
    LIFETIME_SECONDS,
    LONGEST_BACKOFF_SECONDS,
    Backoffs,
    RequestBackoff,
    floor_seconds,
    named_seconds,
)
from kdproxy.core.pacing.pace import Pace

ONE = Cost()
MOST_JITTER = 0.999


def _asked_alone(wait_seconds: float | None, seconds: float, *, jitter: float = 0.0) -> list[float]:
    """Return when one request that is always refused is sent, in so many seconds."""
    pace, request, now, sent = Pace(), RequestBackoff(), 0.0, []
    while now <= seconds:
        sent.append(now)
        grant = pace.take(ONE, now)
        pace.rate_limited(grant, now, wait_seconds=wait_seconds, jitter=jitter, request=request)
        now = max(now + pace.wait(ONE, now), request.ready_at)
    return sent


@pytest.mark.parametrize("wait_seconds", [0.0, 0.001, 0.05, 0.1])
def test_whatever_wait_is_named_one_request_makes_a_handful_of_calls(wait_seconds: float) -> None:
    sent = _asked_alone(wait_seconds, 600.0)
    assert sent[:6] == pytest.approx([0.0, 0.1, 1.1, 3.1, 7.1, 15.1])
    assert len(sent) <= 16
    assert len([at for at in sent if at <= 7.0]) == 4


def test_without_a_named_wait_it_is_as_rare() -> None:
    assert len(_asked_alone(None, 600.0)) <= 17


def test_a_longer_named_wait_is_a_floor_each_time() -> None:
    gaps = [after - before for before, after in pairwise(_asked_alone(20.0, 600.0))]
    assert gaps[:5] == pytest.approx([20.0] * 5)
    assert gaps[-1] == pytest.approx(60.0)


@given(st.integers(0, 10_000), st.floats(0, MOST_JITTER))
def test_the_floor_doubles_from_the_second_refusal_to_a_minute(refusals: int, jitter: float) -> None:
    floor = floor_seconds(refusals, jitter=jitter)
    if refusals < 2:
        assert floor == 0.0
    else:
        even = min(LONGEST_BACKOFF_SECONDS, 2.0 ** min(refusals - 2, 10))
        assert even <= floor < 1.25 * even


@given(st.floats(0, 3_600), st.floats(0, MOST_JITTER))
def test_a_named_wait_is_honoured_from_a_tenth_of_a_second_on(wait_seconds: float, jitter: float) -> None:
    assert max(0.1, wait_seconds) <= named_seconds(wait_seconds, jitter=jitter) <= max(0.1, wait_seconds) + 1.0


def test_an_acceptance_starts_the_row_anew() -> None:
    pace, now = Pace(), 0.0
    for _ in range(4):
        pace.rate_limited(pace.take(ONE, now), now, wait_seconds=0.0, jitter=0.0)
        now = pace.paused_until
    assert now == pytest.approx(0.1 + 1 + 2 + 4)
    grant = pace.take(ONE, now)
    pace.started(grant, now)
    pace.completed(grant, now)
    assert pace.rate_limited(pace.take(ONE, now), now, wait_seconds=0.0, jitter=0.0) == pytest.approx(0.1)


def test_what_was_sent_before_the_wall_was_seen_is_one_refusal() -> None:
    pace = Pace()
    grants = [pace.take(ONE, 0.0) for _ in range(5)]
    for grant in grants:
        assert pace.rate_limited(grant, 0.2, wait_seconds=0.0, jitter=0.0) == pytest.approx(0.1)


def test_refused_again_while_a_later_call_has_passed_is_the_requests_own() -> None:
    pace, bad = Pace(), RequestBackoff()
    pace.rate_limited(pace.take(ONE, 0.0), 0.1, wait_seconds=0.0, jitter=0.0, request=bad)
    good = pace.take(ONE, 0.3)
    pace.started(good, 0.4)
    pace.completed(good, 0.4)
    for number, (at, wait) in enumerate([(1.0, 1.0), (2.0, 2.0), (4.0, 4.0), (8.0, 8.0)]):
        grant = pace.take(ONE, at)
        assert pace.rate_limited(grant, at, wait_seconds=0.0, jitter=0.0, request=bad) == 0.0
        assert bad.ready_at == pytest.approx(at + wait)
        assert pace.wait(ONE, at) == 0.0
        assert (bad.is_aside, pace.set_aside, pace.episodes) == (True, number + 1, 1)


def test_a_call_that_was_sent_earlier_and_passes_later_proves_nothing() -> None:
    pace, bad = Pace(), RequestBackoff()
    slow = pace.take(ONE, 0.0)
    pace.rate_limited(pace.take(ONE, 0.0), 0.1, wait_seconds=0.0, jitter=0.0, request=bad)
    pace.started(slow, 0.15)
    assert pace.rate_limited(pace.take(ONE, 0.3), 0.4, wait_seconds=0.0, jitter=0.0, request=bad) > 0.0
    assert not bad.is_aside


def test_headers_that_say_that_the_limit_is_used_up_mention_the_lane() -> None:
    pace, request = Pace(), RequestBackoff()
    pace.rate_limited(pace.take(ONE, 0.0), 0.1, wait_seconds=0.0, jitter=0.0, request=request)
    pace.started(pace.take(ONE, 0.3), 0.4)
    grant = pace.take(ONE, 1.0)
    pace.learn(grant, [Reading(quota=Quota(Dimension.REQUESTS), limit=60, remaining=0, reset_seconds=9)], 1.0)
    pace.rate_limited(grant, 1.0, wait_seconds=9.0, jitter=0.0, request=request, is_exhausted=True)
    assert not request.is_aside
    assert pace.wait(ONE, 1.0) >= 9.0


def test_where_calls_at_once_are_bounded_one_bad_request_does_not_narrow_the_lane_to_nothing() -> None:
    pace, bad = Pace(finds_rate=False), RequestBackoff()
    pace.recognise(is_batching=True)
    others = [pace.take(ONE, 0.0) for _ in range(10)]
    pace.rate_limited(pace.take(ONE, 0.0), 0.1, wait_seconds=None, jitter=0.0, request=bad)
    assert pace.bound_in_flight == 10
    pace.completed(others.pop(), 0.2)
    assert pace.wait(ONE, 0.2) == 0.0
    pace.started(pace.take(ONE, 0.2), 0.3)
    for at in (1.0, 2.0, 4.0, 8.0):
        pace.aborted(others.pop())
        pace.rate_limited(pace.take(ONE, at), at, wait_seconds=None, jitter=0.0, request=bad)
    assert pace.bound_in_flight == 10
    assert pace.set_aside == 4


def test_each_lane_is_tried_before_the_request_waits() -> None:
    request = RequestBackoff()
    for _ in range(3):
        request.rate_limited(0.0, passed_sent_at=float("-inf"), wait_seconds=0.0, jitter=0.0, lanes=3)
    assert request.ready_at == 0.0
    request.rate_limited(0.0, passed_sent_at=float("-inf"), wait_seconds=0.0, jitter=0.0, lanes=3)
    assert request.ready_at == 1.0


def test_a_question_keeps_its_back_off_when_it_is_asked_again_and_for_ten_minutes() -> None:
    backoffs = Backoffs()
    assert backoffs.of("a", 0.0).refusals == 0
    refused = RequestBackoff(refusals=4, refused_at=1.0)
    backoffs.remember("a", refused)
    assert backoffs.of("a", LIFETIME_SECONDS) is refused
    assert backoffs.of("a", LIFETIME_SECONDS + 2).refusals == 0
    backoffs.forget("a")
    assert backoffs.of("a", 2.0).refusals == 0
    for number in range(3_000):
        backoffs.remember(number, refused)
    assert backoffs.of(0, 2.0).refusals == 0
    assert backoffs.of(2_999, 2.0) is refused
