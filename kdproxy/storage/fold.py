"""Applies journal lines to index rows. The only code that knows what a line means; see docs/formats/journal.md.

The order of version 2 lines does not matter for what is live: a generation that a line names as ended is ended, whether
its own lines come before or after, and a repeated line counts once. Version 1 lines keep their old meaning: the last
line of a form counts, and a tombstone ends the lines before it.
"""

from collections.abc import Callable, Iterable

from kdproxy.core.models import Entry, LineName, NamedRecord, Other, Prompt, Record, Seat, Start, Tombstone
from kdproxy.core.ports import Location
from kdproxy.storage import names
from kdproxy.storage.sample_row import PROMPT, Generation, Home, Recording, pack, unpack

ReadRecord = Callable[[Location], Record | None]
"""Reads the record of the line at a location; None if it cannot be read."""


def needed(named: NamedRecord) -> list[str]:
    """Return the names of the rows that `Fold.take` reads for a line: fetching them together is faster."""
    record, name, version = named
    wanted = [row] if (row := names.row_of(record)) is not None else []
    match record:
        case Entry():
            ended: Iterable[LineName] = (record.generation or name, *record.replaces)
        case Prompt():
            ended = (name,)
        case Seat():
            ended = (record.generation,)
        case Tombstone():
            ended = record.withdraws
            if version < 2:
                wanted.append(names.other_name(name))
        case Start() | Other():
            return [names.other_name(name)]
    return [*wanted, *map(names.ended_name, ended)]


class Fold:
    """Collects changes to rows, line by line; writes nothing."""

    def __init__(self, look_up: Callable[[str], bytes | None], counters: names.Counters, read: ReadRecord) -> None:
        self._look_up = look_up
        self._read = read
        self._taken: dict[Location, Record] = {}
        self.changes: dict[str, bytes] = {}
        self.counters = counters

    def row(self, name: str) -> bytes | None:
        """Return a row as the lines taken so far make it."""
        value = self.changes.get(name)
        return self._look_up(name) if value is None else value

    def generations(self, row: str) -> list[Generation]:
        """Return the live generations of a sample."""
        return unpack(self.row(row))

    def is_readable(self, location: Location) -> bool:
        """Whether the line at a location can be read."""
        return location in self._taken or self._read(location) is not None

    def take(self, named: NamedRecord, location: Location, *, is_new: bool = False) -> None:
        """Apply the line at a location; for a new line (`is_new`) the look-up of its own name is skipped."""
        record, name, version = named
        self._taken[location] = record
        match record:
            case Entry():
                row = names.sample_name(record.address)
                self._end(row, record.replaces, location)
                recording = Recording(record.answer.form, location, version < 2)
                self._place(row, named, record.generation or name, recording, is_new=is_new)
                if record.response_id is not None:
                    self.changes[names.response_name(record.address.namespace, record.response_id)] = names.KNOWN
            case Prompt():
                row = names.prompt_name(record.namespace, record.match_key, record.ordinal)
                self._place(row, named, name, Recording(PROMPT, location, version < 2), is_new=is_new)
            case Tombstone():
                self._withdraw(record, named, location)
            case Seat():
                self._seat(record, location)
            case Start() | Other():
                if self.row(names.other_name(name)) is None:
                    self.changes[names.other_name(name)] = names.pack(location)

    def _place(self, row: str, named: NamedRecord, generation: LineName, recording: Recording, *, is_new: bool) -> None:
        """Add a recording to its generation, unless the generation was ended."""
        record = named.record
        value = self.row(row)
        found = [] if value is None else unpack(value)
        if recording.is_v1 and found:
            found = self._without_v1(found, recording.form, but=generation)
        for at, other in enumerate(found):
            if other.name == generation and other.home is None:
                found[at] = self._with(other, recording)
                break
        else:
            is_first = is_new and generation == named.name
            if is_first or self.row(names.ended_name(generation)) is None:
                has_old_key = isinstance(record, Entry) and record.key_version == 1
                found.append(Generation(generation, (recording,), has_old_key))
                self.counters.old_keys += has_old_key
                self.counters.add(record)
        self.changes[row] = pack(found)

    def _with(self, generation: Generation, recording: Recording) -> Generation:
        """Add a recording; an earlier one of that form takes precedence unless it is damaged."""
        there = generation.recording(recording.form)
        if there is not None and (there.location == recording.location or self.is_readable(there.location)):
            return generation
        if there is None:
            self.counters.add(self._taken[recording.location])
        kept = tuple(each for each in generation.recordings if each is not there)
        return generation._replace(recordings=(*kept, recording))

    def _without_v1(self, found: list[Generation], form: str, *, but: LineName) -> list[Generation]:
        """Drop the recordings that a version 1 line replaces."""
        left = []
        for generation in found:
            kept = tuple(
                each for each in generation.recordings if not each.is_v1 or each.form != form or generation.name == but
            )
            if len(kept) < len(generation.recordings):
                for each in generation.recordings:
                    if each not in kept:
                        self._uncount(each)
                if not kept:
                    self.counters.old_keys -= generation.has_old_key
                    continue
                generation = generation._replace(recordings=kept)
            left.append(generation)
        return left

    def _withdraw(self, tombstone: Tombstone, named: NamedRecord, location: Location) -> None:
        row = names.row_of(tombstone)
        assert row is not None
        ended = tombstone.withdraws
        if named.version < 2:
            # Applied a second time, after later lines, it would end more than it did the first time.
            if self.row(names.other_name(named.name)) is not None:
                return
            self.changes[names.other_name(named.name)] = names.pack(location)
            ended = tuple(
                generation.name
                for generation in self.generations(row)
                if any(recording.is_v1 for recording in generation.recordings)
            )
        self._end(row, ended, location)

    def _end(self, row: str, ended: tuple[LineName, ...], location: Location) -> None:
        """End generations for good, whether or not their lines have been read."""
        if not ended:
            return
        for name in ended:
            if self.row(names.ended_name(name)) is None:
                self.changes[names.ended_name(name)] = names.pack(location)
        left = []
        for generation in self.generations(row):
            if generation.name in ended:
                self.counters.old_keys -= generation.has_old_key
                for recording in generation.recordings:
                    self._uncount(recording)
            else:
                left.append(generation)
        self.changes[row] = pack(left)

    def _seat(self, seat: Seat, location: Location) -> None:
        row = names.sample_name(seat.address)
        found = self.generations(row)
        is_there = any(generation.name == seat.generation for generation in found)
        if not is_there and self.row(names.ended_name(seat.generation)) is None:
            found.append(Generation(seat.generation, home=Home(seat.home.key, seat.home.ordinal, location)))
        self.changes[row] = pack(found)

    def _uncount(self, recording: Recording) -> None:
        location = recording.location
        record = self._taken.get(location) or self._read(location)
        # If the line is damaged, its upstream is unknown and the sum stays too high until `verify --repair`.
        if record is not None:
            self.counters.add(record, -1)
