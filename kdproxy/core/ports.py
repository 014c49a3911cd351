"""The protocols through which the engine and the jobs ask for I/O. Adapters implement them; only app.py names those."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from kdproxy.core.call_event import Ended, Sent
from kdproxy.core.call_state import CallState
from kdproxy.core.models import (
    Address,
    Answer,
    Disposition,
    Form,
    HeaderPairs,
    LineName,
    NamedRecord,
    Outcome,
    Prompt,
    Record,
)


class Location(NamedTuple):
    """Where a line lies in the journal: bytes `offset` to `offset + length` of a segment, line break included."""

    segment: int
    offset: int
    length: int


_SEAL_TAIL_BYTES = 66  # the checksum's hex digits with the closing `"}`


class Watermark(NamedTuple):
    """Up to where the index has read the journal; `seal` is the end of the last line read, to know it again."""

    segment: int
    offset: int
    seal: str

    @classmethod
    def after(cls, location: Location, line: bytes) -> "Watermark":
        """Return the mark that says: read up to the end of this line."""
        seal = line.rstrip(b"\n")[-_SEAL_TAIL_BYTES:].decode("latin-1")
        return cls(location.segment, location.offset + location.length, seal)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Changes that a store applies as one: all of them or none."""

    puts: Mapping[str, bytes]
    deletes: frozenset[str] = frozenset()
    watermark: Watermark | None = None


class Store(Protocol):
    """The index: names to small values. One thread writes; reads come from the loop's thread, inline."""

    def get(self, name: str) -> bytes | None:
        """Return a value, or None. Called from the event loop: must be fast."""

    def get_all(self, names: Sequence[str]) -> dict[str, bytes]:
        """Return the values of those names that have one: a third of the time of as many `get` where few have."""

    def scan(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        """Yield the names with a prefix, in name order, with their values."""

    def watermark(self) -> Watermark | None:
        """Return the last applied watermark."""

    def apply(self, batch: Batch) -> None:
        """Apply a batch atomically. Writer thread only. Raises StorageFailed."""

    def clear(self) -> None:
        """Drop everything. Writer thread only."""

    def close(self) -> None:
        """Release files; the store is not used afterwards."""


class Intent(StrEnum):
    """What an answer that was bought does to its sample. Decided when it is written, not when it was asked for."""

    FILL = "fill"
    """It adds the form that was missing; where that is there by now, it is a spare."""
    REFRESH = "refresh"
    """It ends whatever answers the question now, in every form."""
    RECORD = "record"
    """It is kept only where nothing answers the question in its form."""


class Archive(Protocol):
    """What has been paid for: the journal with its index. What the engine asks."""

    def find(self, address: Address, form: Form, fits: Callable[[Answer], bool] | None = None) -> Answer | None:
        """Return a stored answer, or None: the first one that fits. A damaged line is a miss, and is reported."""

    @property
    def has_v1_keys(self) -> bool:
        """Whether there is any answer whose key is of version 1."""

    @property
    def has_prompts(self) -> bool:
        """Whether there is any recorded prompt."""

    def find_prompt(self, namespace: str, match_key: str, ordinal: int = 0) -> Prompt | None:
        """Return a recorded prompt, or None."""

    def knows_response(self, namespace: str, response_id: str) -> bool:
        """Whether a stored answer has this provider response id."""

    async def keep(self, record: Record, *, intent: Intent = Intent.FILL, v1_key: str | None = None) -> bool:
        """Make a record durable and findable; return once it is.

        Args:
            intent: what an answer does to its sample.
            v1_key: the question's key of version 1: a refresh ends what answers there too.

        Returns:
            Whether it is; if not, the disk refused: the record is held in memory and tried again, and `is_writable`
            turns false.
        """

    @property
    def is_writable(self) -> bool:
        """Whether the last write reached the disk."""

    @property
    def trouble(self) -> str | None:
        """Why the last write did not reach the disk, in one sentence; None if it did."""

    @property
    def trouble_hint(self) -> str:
        """What to do about it."""

    @property
    def unwritten(self) -> int:
        """Lines that the disk has refused and that memory alone holds."""

    async def wait_writable(self) -> None:
        """Return when writing works (again)."""


class CallLog(Protocol):
    """Which calls went out, and how they ended: the events log. Event loop only."""

    async def ready(self) -> None:
        """Open what `sent` writes to, off the loop; before the first of them."""

    def sent(self, sent: Sent) -> LineName:
        """Write that a call goes out, before its first byte; return its name. Raises CallNotRecorded: it must not."""

    def ended(self, ended: Ended) -> None:
        """Write how a call ended; nothing, where an answer line says so."""

    def is_open(self, call: LineName) -> bool:
        """Whether a call has no end yet."""

    async def settle(self) -> None:
        """Return once all that was written is durable, or the disk refuses it."""

    async def wait_writable(self) -> None:
        """Return when writing works (again)."""


class UpstreamRequest(NamedTuple):
    """A call to make: headers as the client sent them, credentials included, hop-by-hop ones taken out."""

    method: str
    url: str
    """With the query, exactly as it goes out."""
    headers: HeaderPairs
    body: bytes | AsyncIterator[bytes] | None
    least_seconds: float = 0.0
    """How long its client says that it waits: a deadline of ours that is shorter is stretched to it."""
    before_first_byte: Callable[[], None] | None = None
    """Called once there is a connection, before anything is written to it; where it raises, nothing is."""


class UpstreamResponse(Protocol):
    """The head of an upstream's answer; its body is still coming."""

    status: int
    headers: HeaderPairs
    """End-to-end headers, without Content-Length and Content-Encoding: the body is identity-coded."""
    content_length: int | None
    is_end_marked: bool
    """Whether a cut body can be told from a whole one; not, where the body ends with its connection."""

    async def chunk(self) -> bytes:
        """Return what has come of the body, waiting for it if need be; nothing at its end.

        Raises:
            UpstreamFailed: it is cut, or a deadline has passed.
        """

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives: `chunk` for who needs an iterator, which costs a miss more than it does."""

    async def read(self, limit_bytes: int) -> bytes:
        """Return the whole body. Raises UpstreamFailed if it is cut or longer than the limit."""

    def close(self) -> None:
        """Drop the connection if the body was not read to its end."""


class UpstreamClient(Protocol):
    """Makes calls."""

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send a request and return when the answer's head is there. Raises UpstreamFailed."""


class Clock(Protocol):
    """Time and waiting, so that tests own both."""

    def now(self) -> float:
        """UTC Unix seconds."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, never backwards."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class Observer(Protocol):
    """Is told of the requests that it wants, each once, at its end. Must not block or raise."""

    def wants(self, disposition: Disposition) -> bool:
        """Whether such requests are told: hits come by the thousand a second."""

    def observe(self, outcome: Outcome) -> None:
        """Take one outcome."""


class JournalLine(NamedTuple):
    """One line as it lies in the journal."""

    location: Location
    raw: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A line that cannot be used, and why."""

    segment_name: str
    location: Location
    reason: str


RecordLine = tuple[NamedRecord, bytes]
"""A record with its name, and its line as it stands in the journal, line break included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The archive at one moment: where its journal ends, and the sums that the index keeps."""

    end: Location
    """The place after the last line; its length is 0."""
    answers: Mapping[str, int]
    """Live recordings by upstream."""
    prompts: int
    old_keys: int
    """Live answers whose key is of version 1."""
    segments: int
    journal_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """Changes that make the index match the journal."""

    rows: Mapping[str, tuple[bytes | None, bytes | None]]
    """Name to the value that was found and the one that belongs there; None is no row."""
    answers: Mapping[str, int]
    """What to add to the sums, by upstream."""
    prompts: int
    old_keys: int = 0


class Library(Protocol):
    """What the jobs (warm, export, verify, stats, forget) ask of the archive. Blocking: never from an event loop."""

    def snapshot(self) -> Snapshot:
        """Look at the archive; every line before the snapshot's end is indexed."""

    def lines(self, start: Location | None = None) -> Iterator[JournalLine]:
        """Yield the lines of the journal in order, damaged ones included."""

    def read(self, location: Location) -> bytes:
        """Return the line at a location. Raises StorageFailed."""

    def look_up(self, names: Sequence[str]) -> list[bytes | None]:
        """Return the index's values of some names."""

    def index(self) -> Iterator[tuple[str, bytes]]:
        """Yield the index's rows that lead to lines."""

    @property
    def has_v1_keys(self) -> bool:
        """Whether there is any answer whose key is of version 1."""

    def note(self, name: str, value: bytes) -> None:
        """Put a row of its own into the index; gone with the index. A disk that refuses is no reason to fail."""

    def seal(self, record: Record) -> RecordLine:
        """Give a record a name of this process and return it with its line, for `revise`."""

    def revise(self, decide: Callable[[], Sequence[RecordLine]]) -> None:
        """Keep the records, with their lines as they shall stand, that `decide` returns.

        Nothing else is written between its look-ups and the write. Raises StorageFailed: nothing was kept.
        """

    def repair(self, repair: Repair) -> None:
        """Repair the index, except for rows that changed in the meantime."""

    def segment_name(self, segment: int) -> str:
        """File name of a segment."""

    def call_state(self) -> CallState:
        """Return what the events log comes to."""

    def event_lines(self) -> Iterator[JournalLine]:
        """Yield the lines of the events log, unreadable ones included."""

    def event_segment_name(self, segment: int) -> str:
        """File name of a segment of the events log."""
