"""The journal's lines with what the index says of each: is it what a request would get today?"""

from collections.abc import Iterator
from dataclasses import dataclass

from kdproxy.core import record as record_format
from kdproxy.core.models import Entry, Prompt, Record
from kdproxy.core.ports import JournalLine, Library, Location
from kdproxy.errors import RecordInvalid
from kdproxy.storage import names

PAGE_LINES = 500
"""Looked up at once."""
_PAGE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbered:
    """A line and which one of its segment it is, from 1."""

    line: JournalLine
    number: int

    @property
    def location(self) -> Location:
        """Where it lies."""
        return self.line.location


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A line that could be read."""

    line: Numbered
    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Damaged:
    """A line that could not."""

    line: Numbered
    reason: str

    def members(self, library: Library) -> dict[str, object]:
        """Return what a user is told of it."""
        location = self.line.location
        return {
            "kind": "damaged",
            "segment": library.segment_name(location.segment),
            "line": self.line.number,
            "offset": location.offset,
            "bytes": location.length,
            "reason": self.reason,
        }


def pages(library: Library, *, end: Location, start: Location | None = None) -> Iterator[list[Numbered]]:
    """Yield the lines up to a place that a snapshot gave, some at a time."""
    page: list[Numbered] = []
    segment, number, size = 0, 0, 0
    for line in library.lines(start):
        location = line.location
        if (location.segment, location.offset + location.length) > (end.segment, end.offset):
            break  # written since, perhaps not to its end
        number = number + 1 if location.segment == segment else 1
        segment = location.segment
        page.append(Numbered(line=line, number=number))
        size += location.length
        if len(page) >= PAGE_LINES or size >= _PAGE_BYTES:
            yield page
            page, size = [], 0
    if page:
        yield page


def read(page: list[Numbered]) -> list[Whole | Damaged]:
    """Read and check some lines."""
    return [_read(line) for line in page]


def are_live(library: Library, lines: list[Whole]) -> list[bool]:
    """Ask of some lines whether the index leads to them: not superseded, not withdrawn. A tombstone never is live."""
    values = library.look_up([names.name_of(line.record) for line in lines])
    return [
        value == names.pack(line.line.location) and isinstance(line.record, Entry | Prompt)
        for line, value in zip(lines, values, strict=True)
    ]


def _read(line: Numbered) -> Whole | Damaged:
    if not line.line.raw.endswith(b"\n"):
        return Damaged(line=line, reason="It has no end.")
    try:
        return Whole(line=line, record=record_format.decode(line.line.raw))
    except RecordInvalid as error:
        return Damaged(line=line, reason=error.message)


def seal_of(line: bytes) -> str:
    """Return the last 16 digits of a line's checksum: enough to know the line again."""
    return line.rstrip(b"\n")[-18:-2].decode("latin-1")
