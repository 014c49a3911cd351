"""What `kdproxy serve` prints on exit about stopped lanes: which, why, until when, and what to do."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

ASK_AGAIN = "Then start kdproxy and run the script again: stored answers are replayed at no cost."


def exit_hints(lanes: Iterable[dict[str, Any]], *, now: float) -> Iterator[str]:
    """Yield lines for people.

    Args:
        lanes: as `stats` reports them.
        now: UTC Unix seconds.
    """
    stopped = [lane for lane in lanes if lane["stopped"] is not None]
    for lane in stopped:
        yield _which(lane)
        yield f"  {_until(lane['stopped'], now)}"
    if stopped:
        yield ASK_AGAIN


def _which(lane: dict[str, Any]) -> str:
    stop = lane["stopped"]
    what = "parked" if stop["policy"] == "park" else "closed"
    waiting = f", {lane['queued']:,} requests waited" if lane["queued"] else ""
    return (
        f"{lane['upstream']}, model {lane['model'] or '-'}, key {lane['credential'][:6]}: "
        f"{what} for {_duration(stop['for_seconds'])} ({stop['reason']}){waiting}."
    )


def _until(stop: dict[str, Any], now: float) -> str:
    if stop["back_seconds"] is None:
        return "The quota does not come back by itself: check the account's credit, its limits, and the key."
    at = datetime.fromtimestamp(now + stop["back_seconds"], UTC)
    return f"The quota comes back at about {at:%Y-%m-%d %H:%M} UTC, or when the account is topped up."


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
