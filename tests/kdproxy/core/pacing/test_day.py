"""The end of a day in the Pacific zone, around the changes of the clock above all."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdproxy.core.pacing.day import next_pacific_midnight


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("now", "midnight"),
    [
        ("2026-01-15T00:00:00", "2026-01-15T08:00:00"),
        ("2026-01-15T08:00:00", "2026-01-16T08:00:00"),
        ("2026-07-15T06:59:59", "2026-07-15T07:00:00"),
        ("2026-07-15T07:00:00", "2026-07-16T07:00:00"),
        ("2026-12-31T12:00:00", "2027-01-01T08:00:00"),
        # The second Sunday in March begins in winter time and lasts 23 hours.
        ("2026-03-07T12:00:00", "2026-03-08T08:00:00"),
        ("2026-03-08T07:30:00", "2026-03-08T08:00:00"),
        ("2026-03-08T08:00:00", "2026-03-09T07:00:00"),
        # The first Sunday in November begins in summer time and lasts 25.
        ("2026-10-31T12:00:00", "2026-11-01T07:00:00"),
        ("2026-11-01T07:00:00", "2026-11-02T08:00:00"),
        ("2026-11-02T07:30:00", "2026-11-02T08:00:00"),
        # Where the first of the month is that Sunday, and where it is the day after.
        ("2027-11-06T12:00:00", "2027-11-07T07:00:00"),
        ("2027-11-07T12:00:00", "2027-11-08T08:00:00"),
        ("2020-03-07T12:00:00", "2020-03-08T08:00:00"),
        ("2020-03-08T12:00:00", "2020-03-09T07:00:00"),
        ("2027-03-13T12:00:00", "2027-03-14T08:00:00"),
        ("2027-03-14T12:00:00", "2027-03-15T07:00:00"),
        ("2028-02-28T12:00:00", "2028-02-29T08:00:00"),
    ],
)
def test_midnight_follows_the_clocks_of_los_angeles(now: str, midnight: str) -> None:
    assert next_pacific_midnight(at(now)) == at(midnight)


@given(now=st.floats(at("2007-06-01T00:00:00"), at("2100-01-01T00:00:00")))
def test_midnight_is_ahead_and_never_more_than_a_day_of_25_hours(now: float) -> None:
    midnight = next_pacific_midnight(now)
    assert 0 < midnight - now <= 25 * 3_600
    assert midnight % 86_400 in (7 * 3_600, 8 * 3_600)
    # Nothing lies between: just before it, it is still the next one.
    assert next_pacific_midnight(midnight - 0.5) == midnight
