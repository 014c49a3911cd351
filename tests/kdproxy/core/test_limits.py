"""The meter of a quota, and what it is made of: trail, reset, scale."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdproxy.core import limits
from kdproxy.core.limits import DAY, QUOTAS, Cost, Dimension, LimitHeaders, Quota, Reading
from kdproxy.core.pacing.meter import Meter
from kdproxy.core.pacing.reset import Refill
from kdproxy.core.pacing.sliding_window import SlidingWindow

RPM = Quota(Dimension.REQUESTS)
TPM = Quota(Dimension.TOKENS)


def observed(limit: float, remaining: float, reset: float, *, now: float = 100.0) -> Meter:
    meter = Meter(RPM)
    mark = meter.take(1.0, now - 0.1)
    meter.learn(
        Reading(quota=RPM, limit=limit, remaining=remaining, reset_seconds=reset), mark=mark, sent_at=now - 0.1, now=now
    )
    return meter


def test_quotas_have_names_that_the_configuration_knows() -> None:
    assert QUOTAS["requests_per_minute"] == RPM
    assert QUOTAS["tokens_per_day"] == Quota(Dimension.TOKENS, DAY)
    assert Quota(Dimension.REQUESTS, 10.0).name == "requests_per_10_seconds"


def test_costs_by_dimension() -> None:
    cost = Cost(input_tokens=30, output_tokens=12)
    assert [cost.of(dimension) for dimension in Dimension] == [1, 42, 30, 12]


def test_the_first_row_that_finds_something_speaks_for_its_quota() -> None:
    rows = (LimitHeaders(quota=RPM, limit="a", remaining="b"), LimitHeaders(quota=RPM, limit="c", remaining="d"))
    assert limits.read({"c": "5", "d": "4"}, rows, now=0.0)[0].limit == 5
    assert limits.read({"a": "7", "c": "5"}, rows, now=0.0)[0].limit == 7
    assert limits.read({"a": "x"}, rows, now=0.0) == ()


def test_the_exhausted_dimension_explains_a_refusal_not_the_longest_reset() -> None:
    readings = (
        Reading(quota=RPM, limit=10, remaining=3, reset_seconds=600),
        Reading(quota=TPM, limit=10, remaining=0, reset_seconds=7),
    )
    found = limits.exhausted(readings)
    assert found is not None
    assert found.quota == TPM
    assert limits.exhausted(readings[:1]) is None


def test_what_is_in_flight_is_taken_off_the_remaining() -> None:
    """The answer to the first of five says 95 left: the other four are not in that yet."""
    meter = Meter(RPM)
    marks = [meter.take(1.0, 10.0) for _ in range(5)]
    meter.learn(Reading(quota=RPM, limit=100, remaining=95, reset_seconds=50), mark=marks[0], sent_at=10.0, now=10.2)
    assert meter.level(10.2) == 91


def test_a_fixed_window_is_full_again_at_its_reset_and_not_before() -> None:
    meter = observed(10, 0, 30.0)
    assert meter.reset.refill is Refill.FIXED
    assert meter.wait(1.0, 100.0) == pytest.approx(31.0, abs=0.1)  # whole seconds may have been rounded down
    assert meter.level(129.0) == 0
    assert meter.level(131.1) == 10


def test_a_bucket_comes_back_bit_by_bit() -> None:
    meter = observed(600, 300, 30.0)
    assert meter.reset.refill is Refill.BUCKET
    assert meter.level(101.0) == pytest.approx(311, abs=2)


def test_no_wait_is_longer_than_what_the_provider_says_until_all_is_back() -> None:
    """Whatever is made of a reset, by then everything is there."""
    meter = observed(10, 0, 2.5)
    assert meter.wait(1.0, 100.0) <= 2.7
    assert meter.level(103.0) == 10


def test_a_window_shorter_than_its_name_is_found_out() -> None:
    meter = Meter(RPM)
    now = 0.0
    sent = 0
    while now < 60:
        wait = meter.wait(1.0, now)
        if wait > 0.0005:
            now += wait
            continue
        # Ten a second, called "per minute".
        mark = meter.take(1.0, now)
        sent += 1
        left = 10 - (sent - 10 * int(sent / 10)) if sent % 10 else 0
        meter.learn(
            Reading(quota=RPM, limit=10, remaining=left, reset_seconds=1.0 - now % 1.0),
            mark=mark,
            sent_at=now,
            now=now + 0.001,
        )
        now += 0.001
    assert meter.reset.window_seconds < 3
    assert sent > 200


def test_a_request_larger_than_the_limit_goes_when_all_of_it_is_free() -> None:
    meter = Meter(TPM, allowed=1_000.0)
    assert meter.wait(5_000.0, 0.0) == 0
    meter.take(5_000.0, 0.0)
    assert meter.wait(5_000.0, 1.0) >= 59


def test_a_refusal_leaves_others_more_room_and_time_gives_it_back() -> None:
    meter = observed(1_000, 999, 60.0)
    before = meter.margin
    meter.rate_limited(until=105.0, now=100.0)
    meter.rate_limited(until=105.0, now=100.0)
    assert meter.margin == 4 * before
    for minute in range(1, 8):
        now = 100.0 + 61 * minute
        mark = meter.take(1.0, now)
        meter.learn(
            Reading(quota=RPM, limit=1_000, remaining=990, reset_seconds=60.0), mark=mark, sent_at=now, now=now + 0.1
        )
    assert meter.margin == before


def test_a_limit_of_our_own_holds_under_a_wider_one() -> None:
    meter = Meter(RPM, allowed=5.0)
    for _ in range(5):
        mark = meter.take(1.0, 10.0)
        meter.learn(Reading(quota=RPM, limit=500, remaining=400, reset_seconds=1.0), mark=mark, sent_at=10.0, now=10.1)
    assert meter.bound == 5
    assert meter.wait(1.0, 10.2) > 0


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0, 100)), max_size=60), st.floats(0, 500))
def test_a_trail_never_understates_what_its_window_holds(steps: list[tuple[float, float]], room: float) -> None:
    trail = SlidingWindow(60.0)
    now, log = 0.0, []
    for pause, amount in steps:
        now += pause
        trail.add(amount, now)
        log.append((now, amount))
    exact = sum(amount for at, amount in log if at + 60 > now)
    late = sum(amount for at, amount in log if at + 60.3 > now)
    assert exact - 1e-6 <= trail.total(now) <= late + 1e-6
    wait = trail.wait_for(room, now)
    assert wait >= 0
    assert trail.total(now + wait + 1e-6) <= room + 1e-6


def test_a_trail_takes_back_from_the_newest_on() -> None:
    trail = SlidingWindow(60.0)
    trail.add(5.0, 0.0)
    trail.add(5.0, 10.0)
    trail.take_back(7.0)
    assert trail.total(10.0) == 3
    assert trail.since(5.0) == 0


@pytest.mark.parametrize("factor", [0.25, 1.0, 3.0])
def test_what_is_counted_per_estimate_is_learned(factor: float) -> None:
    meter = Meter(TPM)
    left, now = 1_000_000.0, 0.0
    for _ in range(550):
        mark = meter.take(1_000.0, now)
        left -= 1_000 * factor
        meter.learn(
            Reading(quota=TPM, limit=1_000_000, remaining=left, reset_seconds=60.0 - now),
            mark=mark,
            sent_at=now,
            now=now + 0.01,
        )
        now += 0.1
        left = max(left, 1_000.0)
    assert meter.scale.value == pytest.approx(factor, rel=0.2)
