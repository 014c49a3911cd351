"""Reads the events of one run from an events log."""

from collections.abc import Collection

from kdproxy.core.models import LineName
from kdproxy.core.record import check, name_from
from kdproxy.core.run_event import read_run_event
from kdproxy.core.run_history import History
from kdproxy.errors import RecordInvalid
from kdproxy.storage.journal import Journal

_ATTEMPT = b'"attempt":"'


def read_history(log_files: Journal, attempts: Collection[LineName]) -> History:
    """Return the events of these attempts. A line that cannot be read is skipped."""
    wanted = {str(name).encode() for name in attempts}
    found = History()
    for line in log_files.lines():
        start = line.raw.find(_ATTEMPT, 0, 128)
        if start < 0:
            continue
        start += len(_ATTEMPT)
        if line.raw[start : line.raw.find(b'"', start)] in wanted:
            _take(found, line.raw)
    return found


def _take(found: History, raw: bytes) -> None:
    try:
        members = check(raw)
        event = read_run_event(members)
        name = name_from(f"{members['origin']}/{members['seq']}")
    except (RecordInvalid, KeyError, TypeError, ValueError):
        return
    if event is not None:
        found.take(name, event)
