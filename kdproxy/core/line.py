"""A line of a log: a JSON object whose last member is the SHA-256, in hex, of the line's bytes before it.

A line is readable by people and by any JSON parser; a single flipped bit is detected. This module knows no records.
"""

import hashlib
import json
from typing import Any, NoReturn

import orjson

from kdproxy.errors import RecordInvalid

_SEAL = b',"sha256":"'
_SEAL_BYTES = len(_SEAL) + 64 + len(b'"}')
_HELD_LOCK_BYTES = 2_047
_LONG_LINE_BYTES = 32_768
_START = b'{"v":'
_MOST_STARTS = 100
"""Maximum number of places in a damaged line at which a whole line is searched: each costs a checksum of the rest."""


def seal(text: bytes) -> bytes:
    """Close a JSON object with its checksum and a line break."""
    body = text[:-1]
    return b"".join((body, _SEAL, digest(body), b'"}\n'))


def unsealed(line: bytes) -> bytes:
    """Return a whole line without its checksum and last brace, so that members can be added."""
    return line.rstrip(b"\r\n")[:-_SEAL_BYTES]


def digest(body: bytes) -> bytes:
    """SHA-256 in hex, fed in pieces below 2,048 bytes.

    From 2,048 bytes on hashlib releases the interpreter's lock. To get it back beside a busy writer thread takes ten
    times as long as the hashing (20 us against 2 us for a line of 3 KB). Only long lines are worth it.
    """
    if len(body) <= _HELD_LOCK_BYTES or len(body) > _LONG_LINE_BYTES:
        return hashlib.sha256(body).hexdigest().encode()
    state = hashlib.sha256()
    for start in range(0, len(body), _HELD_LOCK_BYTES):
        state.update(body[start : start + _HELD_LOCK_BYTES])
    return state.hexdigest().encode()


def is_whole(line: bytes) -> bool:
    """Whether a line's checksum matches."""
    line = line.rstrip(b"\r\n")
    body, tail = line[:-_SEAL_BYTES], line[-_SEAL_BYTES:]
    return tail.startswith(_SEAL) and digest(body) == tail[len(_SEAL) : -2]


def remainder(line: bytes) -> int | None:
    """Return the offset of a whole line at the end of a damaged one; None if there is no such line.

    A file appended to one that ended in the middle of a line leaves such a pair.
    """
    start = 0
    for _ in range(_MOST_STARTS):
        start = line.find(_START, start + 1)
        if start < 0:
            return None
        if is_whole(line[start:]):
            return start
    return None


def is_torn(line: bytes) -> bool:
    """Whether a line that cannot be read is one that a power cut left: its end is missing, or NULs are in its place.

    Otherwise it is damaged. A line break may be what is damaged: then a whole line precedes the next one.
    """
    start = remainder(line)
    if start is not None:
        return not is_whole(line[: start - 1])
    has_end = line.endswith(b'"}\n') or line[-_SEAL_BYTES - 1 :].startswith(_SEAL)
    return b"\0\0" in line or not has_end


def members_of(line: bytes) -> dict[str, Any]:
    """Check a line's checksum and return its members.

    Raises:
        RecordInvalid: with the reason.
    """
    line = line.rstrip(b"\r\n")
    body, tail = line[:-_SEAL_BYTES], line[-_SEAL_BYTES:]
    if not tail.startswith(_SEAL):
        raise invalid("it does not end in a checksum")
    if digest(body) != tail[len(_SEAL) : -2]:
        raise invalid("its checksum does not match")
    try:
        members = _load(line)
    except ValueError as error:
        raise invalid("it is not JSON") from error
    if not isinstance(members, dict):
        raise invalid("it is not a JSON object")
    return members


def invalid(reason: str) -> RecordInvalid:
    """Return the error for a line that cannot be used."""
    return RecordInvalid(
        f"A journal line cannot be used: {reason}.",
        hint="A damaged line is never served; other lines are not affected. `kdproxy verify` lists every damaged line; "
        "`kdproxy verify --repair` removes them from the index.",
    )


def _load(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        # orjson refuses a number beyond double, which a request may hold. Anything else that it refuses is not JSON, or
        # is text that can be neither indexed nor served: lone surrogates.
        members = json.loads(line, parse_constant=_refuse_constant)
        json.dumps(members, ensure_ascii=False).encode()
        return members


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
