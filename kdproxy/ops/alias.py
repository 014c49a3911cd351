"""Gives answers with a key of version 1 a seat under their current key. Runs beside a serving proxy.

A request looks up its current key and then, while such answers exist, its key of version 1. That finds questions asked
in the same way. Version 1 distinguished some requests that the current key does not (by a session id, a marker for the
prompt cache); their answers are found through seats only. If several answers then belong to one question, the first is
its sample 0 and the others are its next samples.
"""

import hashlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count

import orjson

from kdproxy.core import key
from kdproxy.core import record as record_format
from kdproxy.core.models import Address, Entry, NamedRecord, Seat, Upstream
from kdproxy.core.ports import Library, Location, RecordLine
from kdproxy.errors import KdproxyError, RecordInvalid
from kdproxy.providers.rekey import v2_key_of
from kdproxy.storage import names
from kdproxy.storage.sample_row import Generation, unpack

log = logging.getLogger("kdproxy.ops")

NOTE = "aliased"
"""The index row that records how far a pass has read the journal, and for which settings."""
PAGE_SEATS = 50
"""Seats that are written together and share a sync."""
REST_SECONDS = 0.002
"""Pause after each old line. A line takes about 0.1 ms, and a request never waits longer than that."""
PASS_SECONDS = 60.0
"""Pause between passes: `warm` may have added old lines."""
_PAGE_LINES = 200
_KEY_VERSION = int(key.KEY_VERSION)
_OLD_LINE = b'{"v":1,"kind":"answer"'


class AliasThread:
    """Works in its own thread from `start` to `stop`, in small steps."""

    def __init__(self, library: Library, upstreams: Iterable[Upstream], now: Callable[[], float]) -> None:
        self._library = library
        self._upstreams = {upstream.name: upstream for upstream in upstreams}
        self._now = now
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kdproxy-aliases", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and wait for it, at most for one write."""
        self._is_stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._is_stopped.is_set():
            try:
                self._pass()
            except KdproxyError as error:  # most likely a full disk; unseated answers are found by their old key
                log.warning(
                    "answers of an earlier release could not be given current keys", extra={"error": str(error)}
                )
            self._is_stopped.wait(PASS_SECONDS)

    def _pass(self) -> None:
        if not self._library.has_v1_keys:
            return
        settings = fingerprint(self._upstreams.values())
        [noted] = self._library.look_up([NOTE])
        start = None if noted is None else start_of(noted, settings)
        aliases = Aliases(self._library, self._upstreams, self._now)
        for at in aliases.steps(start):
            if at is not None:
                self._library.note(NOTE, orjson.dumps([at.segment, at.offset, settings]))
            if self._is_stopped.wait(REST_SECONDS):
                return


def fingerprint(upstreams: Iterable[Upstream]) -> str:
    """Return a digest of the settings that current keys depend on."""
    said = sorted((upstream.name, upstream.key_headers, str(upstream.ignore)) for upstream in upstreams)
    return hashlib.sha256(orjson.dumps(said)).hexdigest()[:16]


def start_of(noted: bytes, settings: str) -> Location | None:
    """Return where a pass continues; None: at the start, because nothing or other settings were recorded."""
    try:
        segment, offset, known = orjson.loads(noted)
    except (ValueError, TypeError):
        return None
    return Location(segment, offset, 0) if known == settings else None


class Aliases:
    """One pass over the journal."""

    def __init__(self, library: Library, upstreams: Mapping[str, Upstream], now: Callable[[], float]) -> None:
        self._library = library
        self._upstreams = upstreams
        self._now = now
        self._waiting: list[tuple[NamedRecord, str]] = []
        self.seated = 0
        self.further = 0
        """Seated answers that became further samples of a question that already had an answer."""

    def steps(self, start: Location | None) -> Iterator[Location | None]:
        """Do one small step per item; yield the place up to which all is done, or None. Raises StorageFailed."""
        end = self._library.snapshot().end
        at = start
        for number, line in enumerate(self._library.lines(start)):
            segment, offset, length = line.location
            if (segment, offset + length) > (end.segment, end.offset):
                break
            at = Location(segment, offset + length, 0)
            is_old = line.raw.startswith(_OLD_LINE)
            if is_old:
                self._take(line.raw)
            if len(self._waiting) >= PAGE_SEATS:
                self._write()
                yield at
            elif is_old or number % _PAGE_LINES == 0:
                yield None
        self._write()
        yield at
        if self.seated:
            log.info(
                "answers of an earlier release can now be found by current keys",
                extra={"answers": self.seated, "further_samples": self.further},
            )

    def _take(self, line: bytes) -> None:
        try:
            named = record_format.read(line)
        except RecordInvalid:
            return
        if isinstance(named.record, Entry):
            current = v2_key_of(named.record, self._upstreams.get(named.record.upstream))
            if current is not None and current != named.record.address.key:
                self._waiting.append((named, current))

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        seats: list[Seat] = []

        def decide() -> list[RecordLine]:
            taken: dict[str, set[str]] = {}
            for named, current in waiting:
                seat = self._seat(named, current, taken)
                if seat is not None:
                    seats.append(seat)
            return [self._library.seal(seat) for seat in seats]

        if waiting:
            self._library.revise(decide)
        self.seated += len(seats)
        self.further += sum(seat.address.ordinal > 0 for seat in seats)

    def _seat(self, named: NamedRecord, current: str, taken: dict[str, set[str]]) -> Seat | None:
        """Choose the first sample of the key that has no answer in the entry's form; None: it needs no seat."""
        entry, name = named.record, named.name
        assert isinstance(entry, Entry)
        home, form = entry.address, str(entry.answer.form)
        if not any(each.name == name for each in self._live(names.sample_name(home))):
            return None  # superseded or withdrawn
        for ordinal in count(home.ordinal):
            address = Address(home.namespace, current, ordinal)
            row = names.sample_name(address)
            live = self._live(row)
            if any(each.name == name for each in live):
                return None  # seated by an earlier pass
            forms = taken.setdefault(row, set())
            if form in forms or any(self._has(each, form, address) for each in live):
                continue
            forms.add(form)
            return Seat(address=address, key_version=_KEY_VERSION, generation=name, home=home, created_at=self._now())
        raise AssertionError("ordinals are unbounded")

    def _live(self, row: str) -> list[Generation]:
        [value] = self._library.look_up([row])
        return unpack(value)

    def _has(self, generation: Generation, form: str, address: Address) -> bool:
        if generation.home is None:
            return generation.recording(form) is not None
        home = names.sample_name(Address(address.namespace, generation.home.key, generation.home.ordinal))
        return any(each.name == generation.name and each.recording(form) is not None for each in self._live(home))
