"""Waits as providers write them, traps included."""

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kdproxy.core.duration import LONGEST_TEXT, Unit, duration_of, number_of, wait_of

NOW = 1_790_000_000.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20", 20.0),
        ("7.66", 7.66),
        (" 5 ", 5.0),
        ("0", 0.0),
        ("12ms", 0.012),
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("1h2m3.5s", 3723.5),
        ("2m59.56s", 179.56),
        ("34s", 34.0),
        ("600.5s", 600.5),
        ("1d2h", 93_600.0),
        ("250µs", 0.00025),
        ("2026-09-21T14:14:20Z", 60.0),
        ("2026-09-21T16:14:20+02:00", 60.0),
        ("2026-09-21T14:14:20.500Z", 60.5),
        ("2026-09-21T14:12:20Z", 0.0),
        ("Mon, 21 Sep 2026 14:14:20 GMT", 60.0),
        ("Monday, 21-Sep-26 14:14:20 GMT", 60.0),
        ("1790000012", 12.0),
        ("1790000030000", 30.0),
        ("1600000000", 0.0),
        ("86400", 86_400.0),
    ],
)
def test_each_form_is_read(text: str, seconds: float) -> None:
    assert wait_of(text, now=NOW) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [None, "", " ", "-1", "-0.5", "nan", "inf", "1e9", "soon", "1s2", "5 s", "1,000", "٣", "0x10", "12ms!", "1" * 80],
)
def test_what_says_nothing_is_nothing_never_zero(text: str | None) -> None:
    assert wait_of(text, now=NOW) is None


def test_milliseconds_are_recognised_by_the_name_alone() -> None:
    assert wait_of("1500", now=NOW, unit=Unit.MILLISECONDS) == 1.5
    assert wait_of("1500", now=NOW) == 1500.0


@given(st.text(max_size=LONGEST_TEXT + 5))
@example("0\x1f")
def test_no_text_breaks_it(text: str) -> None:
    found = wait_of(text, now=NOW)
    assert found is None or 0 <= found < 1e19
    duration_of(text)
    number_of(text)


@given(st.integers(0, 10**7), st.integers(0, 999))
def test_go_durations_are_exact(seconds: int, milliseconds: int) -> None:
    hours, rest = divmod(seconds, 3_600)
    minutes, rest = divmod(rest, 60)
    text = f"{hours}h{minutes}m{rest}.{milliseconds:03d}s"
    assert wait_of(text, now=NOW) == pytest.approx(seconds + milliseconds / 1_000)


@given(st.datetimes(datetime(2026, 10, 1), datetime(2030, 1, 1)))
def test_dates_are_read_in_both_forms(at: datetime) -> None:
    at = at.replace(microsecond=0, tzinfo=UTC)
    expected = at.timestamp() - NOW
    assert wait_of(at.isoformat(), now=NOW) == pytest.approx(expected)
    assert wait_of(format_datetime(at, usegmt=True), now=NOW) == pytest.approx(expected)
