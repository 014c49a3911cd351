"""One line of metrics.jsonl <-> its members, and which of them count. docs/formats/metrics.md is the specification.

A line without `kind` is a row: what one step measured. Lines with `kind` are events; `attempt` says where an attempt
went on, and so which rows of earlier attempts are superseded.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from operator import itemgetter, lt
from typing import Any, Generic, TypeVar

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


def decode_block(block: bytes) -> list[dict[str, Any]]:
    """Return the members of whole lines, as `decode` does; without those of which it returns None.

    Undamaged lines are decoded as one array, in half the time.
    """
    count = block.count(b"\n")
    if block.startswith(b"{") and block.count(b"\n{") == count - 1:
        with suppress(orjson.JSONDecodeError, KeyError, TypeError):
            found: list[dict[str, Any]] = orjson.loads(b"[%b]" % block[:-1].replace(b"\n", b","))
            are_known = set(map(type, found)) == {dict} and set(map(itemgetter("v"), found)) == {ROW_VERSION}
            if len(found) == count and are_known and are_integers(found, "seq") and are_integers(found, "attempt"):
                return found
    return [members for line in block.split(b"\n")[:-1] if (members := decode(line)) is not None]


def are_integers(lines: Iterable[Mapping[str, Any]], name: str) -> bool:
    """Whether a member is an integer in all lines.

    Raises:
        KeyError: one does not have it.
    """
    return set(map(type, map(itemgetter(name), lines))) == {int}


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


class NumberedRows:
    """What `settle` does, with numbers of lines in place of lines."""

    def __init__(self) -> None:
        self.further: dict[int, list[int]] = {}
        """By the first line of a row, the further ones of the same step."""
        self._settling: _Settling[int] = _Settling(self._merge)

    def _merge(self, earlier: int, later: int) -> int:
        self.further.setdefault(earlier, []).append(later)
        return earlier

    def add(self, number: int, line: Mapping[str, Any]) -> None:
        """Take a line; of an event the number does not count."""
        self._settling.add(number, line)

    def add_rows(self, number: int, lines: Sequence[Mapping[str, Any]]) -> None:
        """Take rows that follow each other, the first of which has this number."""
        if not self._settling.add_ascending(range(number, number + len(lines)), lines):
            for at, line in enumerate(lines, number):
                self._settling.add(at, line)

    def first(self) -> list[int]:
        """Return the number of the first line of each row that counts, in the order of steps."""
        return list(self._settling.rows())


def _settled(lines: Iterable[tuple[_Row, Mapping[str, Any]]], merge: Callable[[_Row, _Row], _Row]) -> Iterator[_Row]:
    settling = _Settling(merge)
    for row, line in lines:
        settling.add(row, line)
    yield from settling.rows()


class _Settling(Generic[_Row]):
    """Finds what stands for each row that counts. Numbers of a million steps are kept as they are: objects that the
    garbage collector looks at would double the time."""

    def __init__(self, merge: Callable[[_Row, _Row], _Row]) -> None:
        self._merge = merge
        self._rows: dict[int, _Row] = {}
        self._attempts: dict[int, int] = {}
        """Which attempt wrote the row of a step."""
        self._newest, self._lowest = 0, 1
        self._last: tuple[int, _Row] | None = None
        """Row S; the first row of the attempt shows whether it is finished."""
        self._is_open = False
        """Whether it is not known yet where the newest attempt resumes."""

    def add(self, row: _Row, line: Mapping[str, Any]) -> None:
        """Take a line and what stands for it."""
        attempt = line["attempt"]
        if attempt < self._newest:
            return  # a process that was followed while it stood still
        if attempt > self._newest:
            self._newest, self._is_open = attempt, True
        if "kind" in line:
            from_step = line.get("from_step") if line["kind"] == ATTEMPT else None
            if from_step is not None:
                if self._lowest >= 1 and from_step in self._rows:
                    self._last = from_step, self._rows[from_step]
                self._rows, self._is_open = _before(self._rows, from_step), False
            return
        step = line.get("step")
        if not isinstance(step, int):
            return
        if step < self._lowest:
            self._lowest = step
        if self._last is not None:
            if step == self._last[0] + 1:
                self._rows[self._last[0]] = self._last[1]
            self._last = None
        if self._is_open:
            self._rows, self._is_open = _before(self._rows, step), False
        is_further = step in self._rows and self._attempts[step] == attempt
        self._rows[step] = self._merge(self._rows[step], row) if is_further else row
        self._attempts[step] = attempt

    def add_ascending(self, rows: Sequence[_Row], lines: Sequence[Mapping[str, Any]]) -> bool:
        """Take rows of the newest attempt that are new, in ascending steps; False: they are not, and none is taken."""
        if self._is_open or self._last is not None:
            return False
        try:
            if set(map(itemgetter("attempt"), lines)) != {self._newest} or not are_integers(lines, "step"):
                return False
        except KeyError:
            return False
        steps = list(map(itemgetter("step"), lines))
        is_new = steps[0] >= self._lowest and all(map(lt, steps, steps[1:])) and self._rows.keys().isdisjoint(steps)
        if is_new:
            self._rows.update(zip(steps, rows, strict=True))
            self._attempts.update(dict.fromkeys(steps, self._newest))
        return is_new

    def rows(self) -> Iterator[_Row]:
        """Yield what stands for each row, in the order of steps."""
        for step in sorted(self._rows):
            yield self._rows[step]


def _before(rows: dict[int, _Row], step: int) -> dict[int, _Row]:
    return {at: row for at, row in rows.items() if at < step}
