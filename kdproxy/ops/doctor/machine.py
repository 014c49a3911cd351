"""The machine: its clock and its limit of open files."""

from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from kdproxy.core.models import HeaderPairs
from kdproxy.ops.doctor.check import Checks, note, ok, problem

MOST_SECONDS = 300.0
"""A clock that is wrong by more makes certificates and signed requests fail."""
LEAST_CLIENTS = 32
FEW_CLIENTS = 1_024
_HINT = "Set the clock (timedatectl set-ntp true; in WSL: wsl --shutdown), then start the proxy again."


class Reading(NamedTuple):
    """What an upstream said of the time."""

    host: str
    ahead_seconds: float
    """How far this machine's clock is ahead of the upstream's."""


def reading_of(host: str, headers: HeaderPairs, now: float) -> Reading | None:
    """Read an answer's Date; a stored answer has an Age as well (RFC 9111 section 5.1)."""
    found = {name.lower(): value for name, value in headers}
    try:
        date = parsedate_to_datetime(found["date"])
        age = int(found.get("age", "0"))
    except (KeyError, TypeError, ValueError):
        return None
    seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    return Reading(host, now - seconds - max(0, age))


def check_clock(now: float, newest_at: float | None, readings: Sequence[Reading]) -> Checks:
    """Compare the clock with the upstreams', and with the newest line of the logs.

    One upstream that agrees is enough: a server may be wrong, or answer from a cache.
    """
    nearest = min(readings, key=lambda each: abs(each.ahead_seconds), default=None)
    ahead_of_lines = None if newest_at is None else newest_at - now
    if nearest is not None and abs(nearest.ahead_seconds) > MOST_SECONDS:
        side = "ahead of" if nearest.ahead_seconds > 0 else "behind"
        yield problem(
            "clock",
            f"This machine's clock is {abs(nearest.ahead_seconds):,.0f} s {side} that of {nearest.host}: certificates "
            "may be refused, and times and prices of answers are wrong.",
            _HINT,
        )
    elif ahead_of_lines is not None and ahead_of_lines > MOST_SECONDS:
        assert newest_at is not None
        text = (
            f"The newest line of the data directory was written {ahead_of_lines:,.0f} s from now, at "
            f"{datetime.fromtimestamp(newest_at, UTC).isoformat(sep=' ', timespec='seconds')}"
        )
        if nearest is None:
            yield problem(
                "clock",
                f"{text}: the clock was set back, or was ahead then. No answer is lost: their order does not depend on "
                "the clock.",
                f"Compare `date -u` with another machine. {_HINT}",
            )
        else:
            yield note("clock", f"{text}: the clock was ahead then. It agrees with {nearest.host} now.")
    else:
        yield ok("clock", f"agrees with {nearest.host}" if nearest else "not before the newest line")


def check_open_files(limit: int, clients: int) -> Checks:
    """Check the limit to which `serve` raises the number of open files.

    Args:
        limit: the hard limit.
        clients: how many clients that leaves room for.
    """
    text = f"{limit:,} open files are allowed: {clients:,} clients at once, further ones wait"
    hint = "Raise the hard limit (ulimit -Hn, LimitNOFILE= of systemd, --ulimit nofile= of Docker)."
    if clients < LEAST_CLIENTS:
        yield problem("open files", f"{text}.", hint)
    elif clients < FEW_CLIENTS:
        yield note("open files", f"{text}.", hint)
    else:
        yield ok("open files", text)
