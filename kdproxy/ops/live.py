"""Reads journal lines and asks the index which are live, that is, what a request would get now."""

from collections.abc import Iterator
from dataclasses import dataclass

from kdproxy.core.models import Entry, NamedRecord, Prompt, Record, Seat
from kdproxy.core.ports import JournalLine, Library, Location
from kdproxy.errors import RecordInvalid
from kdproxy.storage import names
from kdproxy.storage.indexer import readable
from kdproxy.storage.sample_row import unpack

PAGE_LINES = 500
"""Lines that are looked up together."""
_PAGE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbered:
    """A line and its number in its segment, from 1."""

    line: JournalLine
    number: int

    @property
    def location(self) -> Location:
        """The location of the line."""
        return self.line.location


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A readable line."""

    line: Numbered
    named: NamedRecord

    @property
    def record(self) -> Record:
        """The record of the line."""
        return self.named.record


@dataclass(frozen=True, slots=True, kw_only=True)
class Damaged:
    """A damaged line."""

    line: Numbered
    reason: str

    def members(self, library: Library) -> dict[str, object]:
        """Return the finding that a user sees."""
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
    """Yield the lines up to the end of a snapshot, in pages."""
    page: list[Numbered] = []
    segment, number, size = 0, 0, 0
    for line in library.lines(start):
        location = line.location
        if (location.segment, location.offset + location.length) > (end.segment, end.offset):
            break  # written since the snapshot, perhaps incomplete
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
    """Read and check lines; a damaged line that ends in a whole one gives both."""
    return [found for line in page for found in _read(line)]


def are_live(library: Library, lines: list[Whole]) -> list[bool]:
    """Return for each line whether the index points to it: not superseded, not withdrawn. Spares and seats are live."""
    rows = [names.row_of(line.record) or "" for line in lines]
    homes = [names.sample_name(line.record.home) if isinstance(line.record, Seat) else "" for line in lines]
    values = library.look_up(rows)
    at_home = library.look_up(homes) if any(homes) else [None] * len(lines)
    return [_is_live(line, value, home) for line, value, home in zip(lines, values, at_home, strict=True)]


def _is_live(line: Whole, row: bytes | None, home: bytes | None) -> bool:
    match line.record:
        case Entry() | Prompt():
            found = (recording.location for generation in unpack(row) for recording in generation.recordings)
            return line.line.location in found
        case Seat() as seat:
            is_led_to = any(each.home is not None and each.home.seat == line.line.location for each in unpack(row))
            return is_led_to and any(each.name == seat.generation for each in unpack(home))
        case _:
            return False


def _read(line: Numbered) -> Iterator[Whole | Damaged]:
    if not line.line.raw.endswith(b"\n"):
        yield Damaged(line=line, reason="Its end is missing.")
        return
    for location, found in readable(line.line):
        part = line
        if location != line.location:
            start = location.offset - line.location.offset
            raw = line.line.raw[start : start + location.length]
            part = Numbered(line=JournalLine(location=location, raw=raw), number=line.number)
        if isinstance(found, RecordInvalid):
            yield Damaged(line=part, reason=found.message)
        else:
            yield Whole(line=part, named=found)


def seal_of(line: bytes) -> str:
    """Return the last 16 digits of a line's checksum: enough to identify the line."""
    return line.rstrip(b"\n")[-18:-2].decode("latin-1")
