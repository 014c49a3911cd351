"""Reads the state of all calls from an events log: from the index's mark on, or from the beginning.

A log is read from the beginning if the index has no mark, if the mark does not match (the file was replaced, segments
were added or removed), or if lines of another life follow the mark (two logs were joined). Each call is then counted
once, however often its lines occur and in whatever order.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import orjson

from kdproxy.core import line as lines
from kdproxy.core.call_event import Ended, NamedEvent, Sent, read_event
from kdproxy.core.call_set import CallSet
from kdproxy.core.call_state import CallState
from kdproxy.core.models import Entry, LineName, Record
from kdproxy.core.ports import JournalLine, Location, Watermark
from kdproxy.core.record import name_from
from kdproxy.core.run_event import Opened, RunRenamed
from kdproxy.core.run_list import RunList
from kdproxy.errors import RecordInvalid
from kdproxy.storage.journal import Journal

log = logging.getLogger("kdproxy.storage")

ROW = "events/1"
"""Name of the index's row with the state of the calls and the mark up to which it was read."""


@dataclass(slots=True)
class Calls:
    """The state of a log's calls, and how far the log was read for it."""

    state: CallState = field(default_factory=CallState)
    mark: Watermark | None = None
    origin: str | None = None
    """The last life whose lines were read."""
    sealed: dict[str, list[int]] = field(default_factory=dict)
    """Size and time of each sealed segment that it was read from, by name."""
    runs: RunList = field(default_factory=RunList)
    beyond: int = 0
    """Unreadable lines after the mark, which the next start will read and count again."""

    def advance(self, mark: Watermark, origin: str) -> None:
        """Move the mark to the end of a whole line."""
        self.mark, self.origin, self.beyond = mark, origin, 0

    def skip(self) -> None:
        """Count a line that cannot be read. The mark stays: it can only follow a whole line."""
        self.state.unreadable += 1
        self.beyond += 1

    def copy(self) -> "Calls":
        """Return a copy that another thread may read."""
        return Calls(self.state.copy(), self.mark, self.origin, self.sealed, self.runs.copy(), self.beyond)

    def dump(self) -> bytes:
        """Write the index's row, with the sums as of the mark."""
        mark = None if self.mark is None else list(self.mark)
        state = self.state.copy()
        state.unreadable -= self.beyond
        runs = orjson.Fragment(self.runs.dump())
        read = {"mark": mark, "origin": self.origin, "sealed": self.sealed, "runs": runs}
        return orjson.dumps({**read, **state.dump()})

    @classmethod
    def load(cls, row: bytes | None) -> "Calls | None":
        """Read the index's row; None if it is missing or cannot be used."""
        if not row:
            return None
        try:
            members = orjson.loads(row)
            mark = members["mark"]
            watermark = None if mark is None else Watermark(*mark)
            runs = RunList.load(members.get("runs", []))
            return cls(CallState.load(members), watermark, members["origin"], dict(members["sealed"]), runs)
        except (AttributeError, KeyError, TypeError, ValueError):
            log.warning("the index's sums of calls cannot be used: the events log is read again", extra={})
            return None


_USED = b'{"v":2,"kind":"used",'


class _OtherLife(Exception):
    """Lines of another life follow the mark."""


def recover(log_files: Journal, row: bytes | None, answered: CallSet, all_answered: Callable[[], CallSet]) -> Calls:
    """Return the calls of a log. Every life that wrote it has ended.

    Args:
        row: the index's row of calls.
        answered: calls named by the answer lines that the index lacked.
        all_answered: reads the whole journal for them.
    """
    size = log_files.size_bytes
    calls = Calls.load(row)
    if not size:
        if calls is not None and calls.mark is not None:
            log.warning(
                "the events log is missing: records of failed and in-flight calls are lost; no answer is lost",
                extra={"calls": calls.state.sent},
            )
        return Calls()
    sealed = log_files.sealed_facts()
    known = 0 if calls is None else calls.state.unreadable
    if calls is not None and _is_as_read(calls, sealed, log_files) and _continues(log_files, calls.mark):
        calls.sealed = sealed
        try:
            _read_on(log_files, calls, answered)
        except _OtherLife:
            pass
        else:
            calls.state.end_lives()
            _report_unreadable(calls.state.unreadable - known)
            return calls
    found = read_all(log_files, all_answered())
    found.sealed = sealed
    _report_unreadable(found.state.unreadable)
    return found


def _report_unreadable(lines: int) -> None:
    if lines:
        log.warning(
            "the events log has damaged or torn lines, which are skipped: no answer is lost, but a call whose end they "
            "recorded counts as in flight at a kill",
            extra={"lines": lines},
        )


def read_all(log_files: Journal, answered: CallSet) -> Calls:
    """Read a whole log whose lives have ended."""
    calls = Calls()
    state = calls.state
    sent, ended = CallSet(), CallSet()
    for event in _events(log_files, calls):
        match event.event:
            case Sent() as found:
                if not sent.add(event.name) or event.name in ended:
                    continue
                state.take_sent(event.name, found)
                if event.name in answered:
                    state.take_answer(event.name)
            case Ended() as found:
                is_new = ended.add(found.call) and found.call not in answered
                if is_new:
                    state.sent += found.call not in sent  # its `sent` line comes later or is lost
                    state.take_ended(found)
            case Opened() | RunRenamed() as found:
                calls.runs.take(found, event.name)
    state.end_lives()
    return calls


def calls_of(raw_lines: Iterable[bytes]) -> CallSet:
    """Return the calls that a journal's answer lines name."""
    found = CallSet()
    for raw in raw_lines:
        if b',"call":"' in raw:
            try:
                call = _call_name(lines.members_of(raw).get("call"))
            except RecordInvalid:
                continue
            if call is not None:
                found.add(call)
    return found


def call_of(record: Record) -> LineName | None:
    """Return the call that an answer line names, if it names one."""
    return _call_name(record.call) if isinstance(record, Entry) else None


def _call_name(call: object) -> LineName | None:
    try:
        return name_from(call) if isinstance(call, str) else None
    except ValueError:
        return None


def _read_on(log_files: Journal, calls: Calls, answered: CallSet) -> None:
    state = calls.state
    for name in [name for name in state.open if name in answered]:
        state.take_answer(name)
    origin = calls.origin
    for event in _events(log_files, calls):
        if event.name.origin != origin:
            raise _OtherLife
        match event.event:
            case Sent() as found:
                state.take_sent(event.name, found)
                if event.name in answered:
                    state.take_answer(event.name)
            case Ended() as found if found.call in state.open:
                state.take_ended(found)
            case Opened() | RunRenamed() as found:
                calls.runs.take(found, event.name)


def _is_as_read(calls: Calls, sealed: dict[str, list[int]], log_files: Journal) -> bool:
    """Whether the sealed segments are those that were read; the then active file may have been sealed since."""
    changed = {name for name in calls.sealed.keys() | sealed.keys() if calls.sealed.get(name) != sealed.get(name)}
    number = 0 if calls.mark is None else calls.mark.segment
    while (name := log_files.sealed_name(number)) in sealed and name not in calls.sealed:
        changed.discard(name)
        number += 1
    if changed:
        log.warning(
            "segments of the events log were edited, added or removed: it is read again",
            extra={"segments": ", ".join(sorted(changed))},
        )
    return not changed


def _continues(log_files: Journal, mark: Watermark | None) -> bool:
    if mark is None or mark.segment not in log_files.segments() or mark.offset > log_files.segment_size(mark.segment):
        return False
    length = len(mark.seal) + 1
    tail = log_files.read(Location(mark.segment, max(0, mark.offset - length), length))
    return tail == mark.seal.encode() + b"\n"


def _events(log_files: Journal, calls: Calls) -> Iterator[NamedEvent]:
    """Yield the events after the mark, and move it. A line that cannot be read is counted and skipped: a tail that a
    power cut tore or filled with NULs, or other damage."""
    start = {} if calls.mark is None else {"segment": calls.mark.segment, "offset": calls.mark.offset}
    origin = calls.origin
    passed: JournalLine | None = None
    """The last line, if the mark is not behind it yet."""
    for line in log_files.lines(**start):
        raw = line.raw
        if raw.startswith(_USED) and raw.startswith(_origin(origin), len(_USED)) and lines.is_whole(raw):
            passed = line  # it changes no call and no run: reading it would take 20 us
            continue
        if passed is not None and origin is not None:
            calls.advance(Watermark.after(passed.location, passed.raw), origin)
            passed = None
        try:
            found = read_event(raw)
        except RecordInvalid:
            calls.skip()
            rest = lines.remainder(raw)
            if rest is None:
                continue
            raw = raw[rest:]
            try:
                found = read_event(raw)
            except RecordInvalid:
                continue
        origin = found.name.origin
        calls.advance(Watermark.after(line.location, raw), origin)
        yield found
    if passed is not None and origin is not None:
        calls.advance(Watermark.after(passed.location, passed.raw), origin)


@lru_cache(maxsize=1)
def _origin(origin: str | None) -> bytes:
    return b"\n" if origin is None else f'"origin":"{origin}",'.encode()
