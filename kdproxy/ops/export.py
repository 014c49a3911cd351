"""`export`: the journal's lines, byte for byte and in order. The caller makes other formats from them."""

from dataclasses import dataclass

from kdproxy.ops.context import JobContext
from kdproxy.ops.event import Events, Finding, Line, Progress, Result
from kdproxy.ops.live import Whole, are_live, pages, read

MOST_SHOWN = 20
"""Damaged lines that are reported one by one; all are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportArguments:
    """The arguments of `export`."""

    everything: bool = False
    """Include superseded and withdrawn lines and tombstones."""


def export(context: JobContext, arguments: ExportArguments) -> Events:
    """Yield the live lines (those that a request would get now), or all undamaged ones."""
    library = context.library
    snapshot = library.snapshot()
    exported = damaged = done = 0
    for page in pages(library, end=snapshot.end):
        whole: list[Whole] = []
        for row in read(page):
            done += row.line.location.length
            if isinstance(row, Whole):
                whole.append(row)
                continue
            damaged += 1
            if damaged <= MOST_SHOWN:
                yield Finding(row.members(library))
        for row, is_live in zip(whole, are_live(library, whole), strict=True):
            if is_live or arguments.everything:
                exported += 1
                yield Line(row.line.line.raw.rstrip(b"\n"))
        yield Progress(done_bytes=done, total_bytes=snapshot.journal_bytes)
    yield Result({"lines": exported, "damaged": damaged})
