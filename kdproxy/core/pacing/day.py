"""When a provider's day ends. Pure: by the rule of law and not by the machine's time zone files.

US daylight saving time (Energy Policy Act of 2005, in force since 2007): from the second Sunday in March, 02:00, to the
first Sunday in November, 02:00.
"""

from datetime import UTC, date, datetime, timedelta

_STANDARD_HOUR = 8
"""Midnight in the Pacific zone, in UTC."""
_SUNDAY = 6


def next_pacific_midnight(now: float) -> float:
    """Return the next midnight in Los Angeles, in UTC Unix seconds; `now` is in the same."""
    today = datetime.fromtimestamp(now, UTC).date()
    return next(at for at in map(_pacific_midnight, (today, today + timedelta(days=1))) if at > now)


def next_utc_midnight(now: float) -> float:
    """Return the next midnight of UTC, in UTC Unix seconds; `now` is in the same."""
    return now - now % 86_400 + 86_400


def _pacific_midnight(day: date) -> float:
    # The clocks change at 02:00: at midnight of a day of change the old time still holds.
    is_summer = _sunday(day.year, 3, 2) < day <= _sunday(day.year, 11, 1)
    hour = _STANDARD_HOUR - is_summer
    return datetime(day.year, day.month, day.day, hour, tzinfo=UTC).timestamp()


def _sunday(year: int, month: int, which: int) -> date:
    first = date(year, month, 1)
    return first + timedelta(days=(_SUNDAY - first.weekday()) % 7 + 7 * (which - 1))
