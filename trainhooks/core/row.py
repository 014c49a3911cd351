"""One line of metrics.jsonl <-> its members, and which of them count. docs/formats/metrics.md is the specification.

A line without `kind` is a row: what one step measured. Lines with `kind` are events; `attempt` says where an attempt
went on, and so which rows of earlier attempts are superseded.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import orjson

ROW_VERSION = 1
ATTEMPT = "attempt"
"""The event that begins an attempt: member `from_step`, its finished steps, or null where its first row says it."""
RESERVED = frozenset({"v", "seq", "attempt", "step", "at", "kind", "lineage", "replay"})
"""Members that the writer sets: no metric can have these names."""

_Row = TypeVar("_Row")
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
    """Yield exactly one row per step, in the order of steps, without superseded rows.

    An attempt that resumes at step S supersedes the rows of earlier attempts from S on. Several rows that one attempt
    wrote of one step are one row; a later value of the same member wins.

    In a loop that counts its steps from 1 on, row S is that of a finished step and stays. Such a loop has no row 0, and
    records S + 1 first when it resumes at S.
    """
    yield from _settled(((dict(line), line) for line in lines), lambda earlier, later: {**earlier, **later})


def settle_numbered(lines: Iterable[tuple[int, Mapping[str, Any]]]) -> tuple[list[int], dict[int, list[int]]]:
    """Return what `settle` does as numbers of lines: of the first line of each row, and by it the further ones of the
    same step.

    Args:
        lines: each with its number; of an event it does not count.
    """
    further: dict[int, list[int]] = {}

    def merge(earlier: int, later: int) -> int:
        further.setdefault(earlier, []).append(later)
        return earlier

    return list(_settled(lines, merge)), further


def _settled(lines: Iterable[tuple[_Row, Mapping[str, Any]]], merge: Callable[[_Row, _Row], _Row]) -> Iterator[_Row]:
    """Yield what stands for each row that counts. Numbers of a million steps are kept as they are: objects that the
    garbage collector looks at would double the time."""
    rows: dict[int, _Row] = {}
    attempts: dict[int, int] = {}
    """Which attempt wrote the row of a step."""
    newest, lowest = 0, 1
    last: tuple[int, _Row] | None = None
    """Row S, of which the attempt's first row is to tell whether it is finished."""
    is_open = False  # where the newest attempt resumes is not known yet
    for row, line in lines:
        attempt = line["attempt"]
        if attempt < newest:
            continue  # a process that was followed while it stood still
        if attempt > newest:
            newest, is_open = attempt, True
        if "kind" in line:
            from_step = line.get("from_step") if line["kind"] == ATTEMPT else None
            if from_step is not None:
                if lowest >= 1 and from_step in rows:
                    last = from_step, rows[from_step]
                rows, is_open = _before(rows, from_step), False
            continue
        step = line.get("step")
        if not isinstance(step, int):
            continue
        if step < lowest:
            lowest = step
        if last is not None:
            if step == last[0] + 1:
                rows[last[0]] = last[1]
            last = None
        if is_open:
            rows, is_open = _before(rows, step), False
        rows[step] = merge(rows[step], row) if step in rows and attempts[step] == attempt else row
        attempts[step] = attempt
    for step in sorted(rows):
        yield rows[step]


def _before(rows: dict[int, _Row], step: int) -> dict[int, _Row]:
    return {at: row for at, row in rows.items() if at < step}
