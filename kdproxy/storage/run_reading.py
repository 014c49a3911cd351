"""Reads the events of one run from an events log: blocks of `used` lines at once, all others line by line.

A `used` line takes 2 us in a block and 9 alone. A run has one for each sample that was delivered, in each attempt.
"""

import hashlib
import re
from collections.abc import Collection
from itertools import compress

import orjson

from kdproxy.core import line as lines
from kdproxy.core.models import LineName
from kdproxy.core.record import check, name_from
from kdproxy.core.run_event import read_run_event
from kdproxy.core.run_history import History, UsedColumns
from kdproxy.errors import RecordInvalid
from kdproxy.storage.journal import Journal

_ATTEMPT = b'"attempt":"'
_USED_BEGIN = b'{"v":2,"kind":"used","origin":"'
_ORIGIN_BYTES = 24
_USED = re.compile(
    r'"seq":(\d+),"attempt":"([^"]+)","key":"(.{32})","ordinal":(\d+)((?:,"scope":"[^"]*")?(?:,"explicit":true)?),'
    r'"sha256":"(.{64})"\}\n'
)
"""The rest of a line, exactly as core/run_event.py writes it; a line with other members is read alone."""
_SEAL_BYTES = len(b',"sha256":""}') + 64
_FEW_ATTEMPTS = 16


def read_history(log_files: Journal, attempts: Collection[LineName]) -> History:
    """Return the events of these attempts. A line that cannot be read is skipped."""
    wanted = {str(name) for name in attempts}
    marks = [f'{_ATTEMPT.decode()}{name}"'.encode() for name in wanted]
    found = History()
    for block in log_files.blocks():
        if len(marks) <= _FEW_ATTEMPTS and not any(mark in block for mark in marks):
            continue
        columns = _columns(block, wanted)
        if columns is None or not found.take_used(columns):
            for raw in block.splitlines(keepends=True):
                _take(found, raw, wanted)
    return found


def _columns(block: bytes, wanted: set[str]) -> UsedColumns | None:
    """Return the `used` lines of a block; None: one by one, since it has other lines about runs, or a damaged one."""
    first = block.find(_USED_BEGIN)
    if first < 0:
        return None if _ATTEMPT in block else UsedColumns()
    begin = block[first : first + len(_USED_BEGIN) + _ORIGIN_BYTES] + b'",'
    parts = block.split(b"\n")
    if block.startswith(begin) and block.count(b"\n" + begin) == len(parts) - 2:
        used = parts[:-1]
    else:
        used = [line for line in parts if line.startswith(begin)]
        if len(used) < block.count(_ATTEMPT):
            return None
    rows = _USED.findall(block.decode("latin-1"))
    if len(rows) != len(used):
        return None
    if not {row[1] for row in rows} <= wanted:
        is_wanted = [row[1] in wanted for row in rows]
        rows, used = list(compress(rows, is_wanted)), list(compress(used, is_wanted))
    if not rows:
        return UsedColumns()
    seqs, attempts, keys, ordinals, more, sums = zip(*rows, strict=True)
    sha256, end = hashlib.sha256, -_SEAL_BYTES
    if b"".join([sha256(line[:end]).digest() for line in used]) != _from_hex(sums):
        return None
    names = {text: name_from(text) for text in set(attempts)}
    origin = begin[-_ORIGIN_BYTES - 2 : -2].decode("latin-1")
    return UsedColumns(origin, _numbers(seqs), names, attempts, keys, _numbers(ordinals), *_scopes(more))


def _from_hex(sums: tuple[str, ...]) -> bytes | None:
    try:
        return bytes.fromhex("".join(sums))
    except ValueError:
        return None


def _scopes(more: tuple[str, ...]) -> tuple[list[str], list[bool]]:
    """Return the scopes of events, and whether their ordinals are explicit, from the members after the ordinal."""
    if not any(more):
        return [""] * len(more), [False] * len(more)
    read = {text: orjson.loads(f'{{"v":2{text}}}') for text in set(more)}
    scopes = {text: members.get("scope", "") for text, members in read.items()}
    explicit = {text: bool(members.get("explicit")) for text, members in read.items()}
    return [scopes[text] for text in more], [explicit[text] for text in more]


def _numbers(texts: tuple[str, ...]) -> list[int]:
    found: list[int] = orjson.loads(f"[{','.join(texts)}]")  # a third of the time of int() for each
    return found


def _take(found: History, raw: bytes, wanted: set[str]) -> None:
    start = raw.rfind(_ATTEMPT)
    if start < 0:
        return
    start += len(_ATTEMPT)
    if raw[start : raw.find(b'"', start)].decode("latin-1") not in wanted:
        return
    try:
        try:
            members = check(raw)
        except RecordInvalid:
            rest = lines.remainder(raw)  # a line that was written after a torn one
            if rest is None:
                return
            members = check(raw[rest:])
        event = read_run_event(members)
        name = name_from(f"{members['origin']}/{members['seq']}")
    except (RecordInvalid, KeyError, TypeError, ValueError):
        return
    if event is not None:
        found.take(name, event)
