"""Planted bugs: what the crash tests must find. Each is one that a change of the product could bring."""

import time
from collections.abc import Callable, Sequence

from kdproxy.core.ports import Location
from kdproxy.engine.runs import Hold
from kdproxy.storage import journal
from kdproxy.storage.writer import Write, Writer


def no_sync() -> None:
    """The journal is not synced: a power cut loses what was reported as stored."""
    journal.sync = lambda descriptor: None  # type: ignore[attr-defined]


def reply_before_write() -> None:
    """An answer is reported as stored before it is written."""
    commit = Writer._commit

    def eager(writer: Writer, writes: list[Write]) -> list[Write]:
        for write in writes:
            write.report(True)
        time.sleep(0.01)  # the loop passes it on
        return commit(writer, writes)

    Writer._commit = eager  # type: ignore[method-assign,assignment]


def used_after_delivery() -> None:
    """A sample is recorded as used only when its client has hung up."""
    use, close = Hold.use, Hold.close
    Hold.use = lambda hold: None  # type: ignore[method-assign,assignment]

    def late(hold: Hold) -> None:
        if hold._is_delivered:
            use(hold)
        close(hold)

    Hold.close = late  # type: ignore[method-assign,assignment]


def index_before_journal() -> None:
    """The index has a row, and its sums, before the journal has the line."""
    append = journal.Journal.append

    def late(opened: journal.Journal, lines: Sequence[bytes]) -> list[Location]:
        held = opened.__dict__.pop("held", None)
        if held:
            append(opened, held)
        active, start = opened.end
        opened.__dict__["held"] = list(lines)
        places = []
        for line in lines:
            places.append(Location(active, start, len(line)))
            start += len(line)
        return places

    journal.Journal.append = late  # type: ignore[method-assign,assignment]


def refused_is_dropped() -> None:
    """Lines that the disk refuses are not written again."""
    commit = Writer._commit

    def forgetful(writer: Writer, writes: list[Write]) -> list[Write]:
        commit(writer, writes)
        return []

    Writer._commit = forgetful  # type: ignore[method-assign,assignment]


BUGS: dict[str, Callable[[], None]] = {
    bug.__name__: bug
    for bug in (no_sync, reply_before_write, used_after_delivery, index_before_journal, refused_is_dropped)
}
