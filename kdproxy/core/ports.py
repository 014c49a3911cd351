"""Protocols through which the engine and the jobs do I/O. Adapters implement them; app.py and storage wire them."""

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
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
from kdproxy.core.run_event import RunEvent
from kdproxy.core.run_history import History
from kdproxy.core.run_list import RunList


class Location(NamedTuple):
    """Place of a line in the journal: bytes `offset` to `offset + length` of a segment, line break included."""

    segment: int
    offset: int
    length: int


_SEAL_TAIL_BYTES = 66  # the checksum's hex digits with the closing `"}`


class Watermark(NamedTuple):
    """How far the index has read the journal; `seal` is the end of the last line read, to recognise the journal."""

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
    """Changes that a store applies atomically."""

    puts: Mapping[str, bytes]
    deletes: frozenset[str] = frozenset()
    watermark: Watermark | None = None


class Store(Protocol):
    """The index: names to small values. One thread writes; the event loop's thread reads, inline."""

    def get(self, name: str) -> bytes | None:
        """Return a value, or None. Called from the event loop: must be fast."""

    def get_all(self, names: Sequence[str]) -> dict[str, bytes]:
        """Return the values of the names that have one: a third of the time of single `get` calls if few have."""

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
    """What a bought answer does to its sample. It is applied when the answer is written, not when it was requested."""

    FILL = "fill"
    """It adds the missing form; if that form is stored by then, the new answer becomes a spare generation."""
    REFRESH = "refresh"
    """It supersedes the current answer to the question, in every form."""
    RECORD = "record"
    """It is kept only if the question has no answer in its form."""


class Archive(Protocol):
    """The engine's view of the paid answers: the journal with its index."""

    def find(
        self,
        address: Address,
        form: Form,
        fits: Callable[[Answer], bool] | None = None,
        *,
        or_json: Callable[[Answer], bool] | None = None,
    ) -> Answer | None:
        """Return the first stored answer that fits, or None. A damaged line is a miss, and is reported.

        Args:
            or_json: whether an answer in JSON will do, if there is none in the form.
        """

    def stored_ordinals(self, namespace: str, key_start: str) -> frozenset[int]:
        """Return which samples of a question are stored, by the first digits of its key."""

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
        """Make a record durable and findable, then return.

        Args:
            intent: what the answer does to its sample.
            v1_key: the question's version 1 key: a refresh also supersedes the answer under that key.

        Returns:
            True if it is durable. False if the disk refused: the record is held in memory and retried, and
            `is_writable` becomes False.
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
        """Lines that the disk has refused and that are held in memory only."""

    async def wait_writable(self) -> None:
        """Return when writing works (again)."""


class CallLog(Protocol):
    """The events log: which calls were sent, and how they ended. Event loop only."""

    async def ready(self) -> None:
        """Open the file that `sent` writes to, off the event loop. Call it before the first `sent`."""

    def sent(self, sent: Sent) -> LineName:
        """Record a call before its first byte; return its name. Raises CallNotRecorded: the call must not be sent."""

    def ended(self, ended: Ended) -> None:
        """Record how a call ended, unless an answer line does so."""

    def is_open(self, call: LineName) -> bool:
        """Whether a call has no end yet."""

    async def settle(self) -> None:
        """Return once all events are durable, or the disk has refused them."""

    async def wait_writable(self) -> None:
        """Return when writing works (again)."""


class RunLog(Protocol):
    """The events log: which samples the attempts of each run were given."""

    def note(self, event: RunEvent) -> LineName:
        """Record an event; return its name. It outlives a kill of the process from now on."""

    def runs(self) -> RunList:
        """Return all runs and their attempts."""

    def history(self, attempts: Collection[LineName]) -> History:
        """Return the events of these attempts. Blocks: 2 s for a million of them."""

    async def settle(self) -> None:
        """Return once all events are durable, or the disk has refused them."""

    @property
    def trouble(self) -> str | None:
        """Why events are in memory only, in one sentence; None if they are on disk."""


class UpstreamRequest(NamedTuple):
    """A call to make. The headers are the client's, with credentials and without hop-by-hop headers."""

    method: str
    url: str
    """With the query, exactly as it is sent."""
    headers: HeaderPairs
    body: bytes | AsyncIterator[bytes] | None
    least_seconds: float = 0.0
    """The client's own timeout: a minimum for each of our deadlines."""
    before_first_byte: Callable[[], None] | None = None
    """Called once there is a connection, before anything is written; if it raises, nothing is written."""


class UpstreamResponse(Protocol):
    """The head of an upstream's answer; its body is still coming."""

    status: int
    headers: HeaderPairs
    """End-to-end headers, without Content-Length and Content-Encoding: the body is identity-coded."""
    content_length: int | None
    is_end_marked: bool
    """Whether a cut body can be recognised; it cannot if the body ends with its connection."""

    async def chunk(self) -> bytes:
        """Return the next bytes of the body, and wait for them if necessary; nothing at its end.

        Raises:
            UpstreamFailed: the body was cut, or a deadline has passed.
        """

    async def wait(self, ends_at: float) -> bool:
        """Return whether `chunk` would return or raise at once; wait for that until the loop's time `ends_at`.

        Nothing is read, so nothing is lost; deadlines run on. Raises UpstreamFailed, as `chunk` would.
        """

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives. `chunk` is cheaper where no iterator is needed."""

    async def read(self, limit_bytes: int) -> bytes:
        """Return the whole body. Raises UpstreamFailed if it was cut or is longer than the limit."""

    def close(self) -> None:
        """Drop the connection if the body was not read to its end."""


class UpstreamClient(Protocol):
    """Makes calls."""

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send a request and return once the answer's head has arrived. Raises UpstreamFailed."""


class Clock(Protocol):
    """Time and waiting, which tests replace."""

    def now(self) -> float:
        """UTC Unix seconds."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, never backwards."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class Observer(Protocol):
    """Receives the outcome of each request that it wants, once, at the request's end. Must not block or raise."""

    def wants(self, disposition: Disposition) -> bool:
        """Whether it wants requests of this disposition: there are thousands of hits per second."""

    def observe(self, outcome: Outcome) -> None:
        """Take one outcome."""


class JournalLine(NamedTuple):
    """One line of the journal, with its place."""

    location: Location
    raw: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A line that cannot be used, and the reason."""

    segment_name: str
    location: Location
    reason: str


RecordLine = tuple[NamedRecord, bytes]
"""A record with its name, and its line in the journal, line break included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The archive at one moment: the end of its journal, and the index's totals."""

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
    """What to add to the totals, by upstream."""
    prompts: int
    old_keys: int = 0


class Library(Protocol):
    """The archive for jobs (warm, export, verify, stats, forget). Blocking: never call it on an event loop."""

    def snapshot(self) -> Snapshot:
        """Return a snapshot; every line before its end is indexed."""

    def lines(self, start: Location | None = None) -> Iterator[JournalLine]:
        """Yield the lines of the journal in order, damaged ones included."""

    def read(self, location: Location) -> bytes:
        """Return the line at a location. Raises StorageFailed."""

    def look_up(self, names: Sequence[str]) -> list[bytes | None]:
        """Return the index's values for some names."""

    def index(self) -> Iterator[tuple[str, bytes]]:
        """Yield the index's rows that point to lines."""

    @property
    def has_v1_keys(self) -> bool:
        """Whether there is any answer whose key is of version 1."""

    def note(self, name: str, value: bytes) -> None:
        """Put a private row into the index; it is lost with the index. An unwritable disk is not an error."""

    def seal(self, record: Record) -> RecordLine:
        """Name a record as a line of this process and return it with its line, for `revise`."""

    def revise(self, decide: Callable[[], Sequence[RecordLine]]) -> None:
        """Write the records that `decide` returns, with their lines.

        Nothing else is written between its look-ups and the write. Raises StorageFailed: nothing was kept.
        """

    def repair(self, repair: Repair) -> None:
        """Repair the index, except for rows that changed in the meantime."""

    def segment_name(self, segment: int) -> str:
        """File name of a segment."""

    def call_state(self) -> CallState:
        """Return the totals of the events log."""

    def run_list(self) -> RunList:
        """Return all runs and their attempts."""

    def run_history(self, attempts: Collection[LineName]) -> History:
        """Return the events of these attempts of runs."""

    def samples_of(self, namespace: str, key_start: str) -> frozenset[int]:
        """Return which samples of a question are stored, by the first digits of its key."""

    def event_lines(self) -> Iterator[JournalLine]:
        """Yield the lines of the events log, unreadable ones included."""

    def event_segment_name(self, segment: int) -> str:
        """File name of a segment of the events log."""
