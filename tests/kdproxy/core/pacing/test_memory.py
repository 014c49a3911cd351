"""What lanes have learned, written and read again; and what a lane makes of it."""

import math

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdproxy.core.limits import Cost
from kdproxy.core.pacing.memory import (
    MOST_LANES,
    STALE_SECONDS,
    Learned,
    NewerVersion,
    Remembered,
    decode,
    encode,
)
from kdproxy.core.pacing.pace import Pace

NOW = 1_800_000_000.0
ONE = Cost()


def remembered(at: float = NOW, **learned: object) -> Remembered:
    return Remembered(upstream="u", credential="c", model="m", learned=Learned(**(learned or {"rate": 2.0})), at=at)  # type: ignore[arg-type]


@given(
    st.lists(
        st.builds(
            Remembered,
            upstream=st.text(max_size=5),
            credential=st.text("0123456789abcdef", max_size=16),
            model=st.text(max_size=9),
            learned=st.builds(
                Learned,
                rate=st.none() | st.floats(0.01, 1_000),
                wall=st.none() | st.floats(1, 1_000),
                has_started=st.just(True),
            ),
            at=st.floats(NOW - STALE_SECONDS + 1, NOW).map(lambda at: round(at, 3)),
        ),
        max_size=20,
    )
)
def test_what_is_written_is_read(lanes: list[Remembered]) -> None:
    assert decode(encode(lanes), now=NOW + 0.001) == tuple(sorted(lanes, key=lambda lane: lane.at))


def test_what_is_stale_empty_or_of_tomorrow_is_left_out() -> None:
    lanes = [remembered(NOW - STALE_SECONDS), remembered(NOW + 100), remembered(has_started=False), remembered()]
    found = decode(encode(lanes), now=NOW)
    assert found is not None
    assert found == (remembered(),)


def test_the_lanes_that_were_used_last_are_kept() -> None:
    found = decode(encode([remembered(NOW - number) for number in range(3_000)]), now=NOW)
    assert found is not None
    assert len(found) == MOST_LANES
    assert min(lane.at for lane in found) == NOW - MOST_LANES + 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense",
        b"[]",
        b"{}",
        b'{"version": 1}',
        b'{"version": 1, "lanes": 5}',
        b'{"version": 1, "lanes": [1]}',
        b'{"version": 1, "lanes": [{}]}',
        encode([remembered()])[:-20],
    ],
)
def test_what_cannot_be_read_is_nothing(data: bytes) -> None:
    assert decode(data, now=NOW) is None


def test_what_is_newer_is_reported() -> None:
    members = orjson.loads(encode([remembered()]))
    with pytest.raises(NewerVersion):
        decode(orjson.dumps({**members, "version": 2}), now=NOW)


def test_values_that_make_no_sense_are_nothing() -> None:
    members = orjson.loads(encode([remembered()]))
    for value in (0, -1, 1e9, "5", True, None):
        members["lanes"][0].update(rate=value, has_started=True)
        found = decode(orjson.dumps(members), now=NOW)
        assert found is not None
        assert found[0].learned.rate is None


def test_a_lane_continues_at_the_pace_that_was_found() -> None:
    pace = Pace(is_hosted=True)
    pace.restore(Learned(rate=0.5, has_started=True))
    pace.take(ONE, 0.0)
    assert pace.wait(ONE, 0.0) == pytest.approx(2.0)
    assert pace.learned == Learned(rate=0.5, has_started=True)


def test_a_lane_continues_at_the_bound_that_was_met() -> None:
    pace = Pace(finds_rate=False)
    pace.restore(Learned(wall=40))
    for _ in range(40):
        assert pace.wait(ONE, 0.0) == 0
        pace.take(ONE, 0.0)
    assert pace.wait(ONE, 0.0) == math.inf
    assert pace.learned.wall == 40


def test_a_lane_whose_gentle_start_is_over_does_not_start_again() -> None:
    pace = Pace(is_hosted=True)
    pace.restore(Learned(has_started=True))
    pace.take(ONE, 0.0)
    assert pace.wait(ONE, 0.0) == 0
    assert Pace(is_hosted=True).learned.is_empty
    assert Pace().learned.is_empty
