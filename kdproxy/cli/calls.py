"""What `stats` and `verify` print about calls: how they ended, and which were in flight when the process was killed."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

MOST_LISTED = 10


def rows(calls: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the table rows of the events log's sums."""
    yield "calls sent", f"{calls['sent']:,}"
    yield "  kept", f"{calls['kept']:,}"
    for outcome, count in calls["ended"].items():
        yield f"  {outcome.replace('_', ' ')}", f"{count:,}"
    if calls["in_flight"]:
        yield "  in flight", f"{calls['in_flight']:,}"
    if calls["in_flight_at_kill"]:
        yield "  in flight at a kill", f"{calls['in_flight_at_kill']:,}"
    yield "may have been billed, not stored", f"{calls['maybe_billed']:,}"


def in_flight_at_kill(calls: dict[str, Any]) -> Iterator[str]:
    """Yield a sentence on the calls that were in flight when a process was killed, then the latest of them."""
    count = calls["in_flight_at_kill"]
    if not count:
        return
    were = "1 call was" if count == 1 else f"{count:,} calls were"
    yield f"{were} in flight when the process was killed and may have been billed."
    listed = calls["killed_calls"][-MOST_LISTED:]
    for call in reversed(listed):
        at = datetime.fromtimestamp(call["sent_at"], UTC).isoformat(sep=" ", timespec="seconds")
        what = call["model"] or call["path"] or "-"
        yield f"  {at}  {call['upstream']}  {what}  {call['key'] or '-'}  (call {call['call']})"
    if count > len(listed):
        yield f"  ... and {count - len(listed):,} earlier"
