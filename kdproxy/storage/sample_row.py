"""The index row of one sample, as bytes: its live generations in order of arrival, and where their lines are.

A generation is named by its first line. The row has a location per form, or the generation is seated here: then its
lines are addressed elsewhere, at its home. A row without generations is a withdrawn sample.
"""

import logging
import struct
from collections.abc import Iterator
from typing import NamedTuple

from kdproxy.core.models import Form, LineName
from kdproxy.core.ports import Location

log = logging.getLogger("kdproxy.storage")

PROMPT = "prompt"
"""The one form of a recorded prompt."""

_FORMS: tuple[str, ...] = (Form.JSON, Form.SSE, Form.BINARY, PROMPT)
_CODES = {form: code for code, form in enumerate(_FORMS)}
_HEAD = struct.Struct(">BB12sQ")
_RECORDING = struct.Struct(">BIQI")
_PLACE = struct.Struct(">IQI")
_HOME = struct.Struct(">IQ")  # bytes of the key, ordinal
_OLD_KEY, _SEATED = 1, 2
_V1 = 0x80
_ONE = struct.Struct(">BB12sQBIQI")
"""Head and recording of one generation with one recording, as in nearly all rows."""
_SINGLE = _ONE.size


class Recording(NamedTuple):
    """One form of a generation."""

    form: str
    location: Location
    is_v1: bool = False
    """Whether the line is of record version 1: a later line of that version replaces it."""


class Home(NamedTuple):
    """The address of a seated generation's own lines, and the location of the line that seated it."""

    key: str
    ordinal: int
    seat: Location


class Generation(NamedTuple):
    """A live generation."""

    name: LineName
    recordings: tuple[Recording, ...] = ()
    has_old_key: bool = False
    """Whether its key is of key version 1."""
    home: Home | None = None

    def recording(self, form: str) -> Recording | None:
        """Return its recording in a form."""
        for recording in self.recordings:
            if recording.form == form:
                return recording
        return None


def pack(generations: list[Generation]) -> bytes:
    """Write a row."""
    if len(generations) == 1 and len(generations[0].recordings) == 1 and generations[0].home is None:
        name, ((form, location, is_v1),), has_old_key, _ = generations[0]
        return _ONE.pack(
            *(_OLD_KEY if has_old_key else 0, 1, bytes.fromhex(name.origin), name.seq),
            *(_CODES[form] | (_V1 if is_v1 else 0), *location),
        )
    parts: list[bytes] = []
    for name, recordings, has_old_key, home in generations:
        flags = (_OLD_KEY if has_old_key else 0) | (0 if home is None else _SEATED)
        parts.append(_HEAD.pack(flags, len(recordings), bytes.fromhex(name.origin), name.seq))
        for form, location, is_v1 in recordings:
            parts.append(_RECORDING.pack(_CODES[form] | (_V1 if is_v1 else 0), *location))
        if home is not None:
            key = home.key.encode()
            parts += [_HOME.pack(len(key), home.ordinal), key, _PLACE.pack(*home.seat)]
    return b"".join(parts)


def unpack(row: bytes | None) -> list[Generation]:
    """Read a row; None is an empty one, and so is one that is damaged: its answer is bought again, or repaired."""
    if row is None:
        return []
    try:
        return list(_read(row))
    except (struct.error, IndexError, UnicodeDecodeError):
        log.warning(
            "a row of the index is damaged and counts as empty; no answer is lost from the journal. "
            "`kdproxy verify --repair` writes it again",
            extra={"row": row.hex()[:64]},
        )
        return []


def only_location(row: bytes, form: str) -> Location | None:
    """Return the location of a form in a row of one generation with one recording, as nearly all rows are."""
    if len(row) == _SINGLE and not row[0] & _SEATED and row[_HEAD.size] & ~_V1 == _CODES[form]:
        return Location._make(_PLACE.unpack_from(row, _HEAD.size + 1))
    return None


def _read(row: bytes) -> Iterator[Generation]:
    at = 0
    while at < len(row):
        flags, count, origin, seq = _HEAD.unpack_from(row, at)
        at += _HEAD.size
        recordings = []
        for _ in range(count):
            code, *place = _RECORDING.unpack_from(row, at)
            recordings.append(Recording(_FORMS[code & ~_V1], Location(*place), bool(code & _V1)))
            at += _RECORDING.size
        home = None
        if flags & _SEATED:
            size, ordinal = _HOME.unpack_from(row, at)
            at += _HOME.size
            key = row[at : at + size].decode()
            at += size
            home = Home(key, ordinal, Location(*_PLACE.unpack_from(row, at)))
            at += _PLACE.size
        yield Generation(LineName(origin.hex(), seq), tuple(recordings), bool(flags & _OLD_KEY), home)
