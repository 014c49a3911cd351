"""One line of metrics.jsonl <-> its members, and which of them count. docs/formats/metrics.md is the specification.

A line without `kind` is a row: what one step measured. Lines with `kind` are events; `attempt` says where an attempt
went on, and so which rows of earlier attempts are superseded.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

ROW_VERSION = 1
ATTEMPT = "attempt"
"""The event that begins an attempt: member `from_step`, its finished steps, or null where its first row says it."""
RESERVED = frozenset({"v", "seq", "attempt", "step", "at", "kind", "lineage", "replay"})
"""Members that the writer sets: no metric can have these names."""

_SPELLED = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def encode(members: Mapping[str, Any]) -> bytes:
    """Return the line, line break included. NaN and infinities, which JSON lacks, are written as their names."""
    plain = _plain(members)
    try:
        return orjson.dumps(plain) + b"\n"
    except TypeError:  # integers beyond 64 bits, lone surrogates
        return json.dumps(plain, separators=(",", ":")).encode() + b"\n"


def _plain(value: Any) -> Any:
    kind = type(value)
    if kind is float:
        return value if value - value == 0.0 else _name(value)
    if kind is int or kind is str or kind is bool or value is None:
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value)


def _name(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def decode(line: bytes) -> dict[str, Any] | None:
    """Return a line's members, or None for one that is damaged or of a newer version."""
    try:
        members = orjson.loads(line)
    except orjson.JSONDecodeError:
        try:
            members = json.loads(line)
        except ValueError:
            return None
    if not isinstance(members, dict) or members.get("v") != ROW_VERSION:
        return None
    if not isinstance(members.get("seq"), int) or not isinstance(members.get("attempt"), int):
        return None
    return members


def revive(value: Any) -> Any:
    """Turn the names of NaN and the infinities back into floats, at every depth."""
    match value:
        case str():
            return _SPELLED.get(value, value)
        case dict():
            return {name: revive(member) for name, member in value.items()}
        case list():
            return [revive(item) for item in value]
        case _:
            return value


def settle(lines: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield exactly one row a step, in the order of steps: what the training that goes on is made of.

    An attempt that goes on at step S supersedes the rows of earlier attempts from S on. Several rows that one attempt
    wrote of one step are one row; a later value of the same member wins.

    In a loop that counts its steps from 1 on, row S is that of a finished step and stays. Such a loop has no row 0, and
    records S + 1 first where it goes on at S.
    """
    rows: dict[int, dict[str, Any]] = {}
    newest, lowest = 0, 1
    last: tuple[int, dict[str, Any]] | None = None
    """Row S, of which the attempt's first row is to tell whether it is finished."""
    is_open = False  # the newest attempt has not said yet where it goes on
    for line in lines:
        attempt = line["attempt"]
        if attempt < newest:
            continue  # a process that was followed while it stood still
        if attempt > newest:
            newest, is_open = attempt, True
        if line.get("kind") == ATTEMPT:
            from_step = line.get("from_step")
            if from_step is not None:
                if lowest >= 1 and from_step in rows:
                    last = from_step, rows[from_step]
                rows, is_open = _before(rows, from_step), False
        if "kind" in line or not isinstance(line.get("step"), int):
            continue
        step = line["step"]
        lowest = min(lowest, step)
        if last is not None:
            if step == last[0] + 1:
                rows[last[0]] = last[1]
            last = None
        if is_open:
            rows, is_open = _before(rows, step), False
        earlier = rows.get(step)
        rows[step] = {**earlier, **line} if earlier is not None and earlier["attempt"] == attempt else dict(line)
    for step in sorted(rows):
        yield rows[step]


def _before(rows: dict[int, dict[str, Any]], step: int) -> dict[int, dict[str, Any]]:
    return {at: row for at, row in rows.items() if at < step}
