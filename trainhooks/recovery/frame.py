"""Rows of metrics.jsonl as a table, column by column: a million rows are never a million dicts at once.

`core.row` decides which rows count. It gets line numbers in place of lines, while the values are in one array per
member.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, count
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from trainhooks.core import row as rows
from trainhooks.core.metric_name import part_prefix
from trainhooks.storage import metrics

_LEFT_OUT = frozenset({"v", "seq", "kind", "replay", "lineage"})
"""Members that are not measurements."""
_SPELLED = ("NaN", "Infinity", "-Infinity")


class _Nothing:
    """Stands for a member that a line does not have, unlike null."""


_NOTHING = _Nothing()


class _Part(int):
    """The number of a row in the table of a member's parts."""

    __slots__ = ()


def read(path: Path, gaps: list[str]) -> pd.DataFrame:
    """Return the rows that count, in the order of steps. Appends to `gaps` what is damaged or missing."""
    written = _count(path)  # before they are read: a training may be adding some
    lines = _Lines()
    for block in metrics.read_blocks(path):
        lines.take(rows.decode_block(block))
    first, further = lines.settled.first(), lines.settled.further
    if (lost := max(lines.written, written) - lines.count) > 0:
        gaps.append(f"{lost} of the lines of metrics.jsonl are damaged or missing.")
    try:
        return _typed(lines.columns.table(first, further, _same))
    except UnicodeEncodeError:
        return _typed(lines.columns.table(first, further, _writable))


class _Lines:
    """Puts rows into columns, and their numbers where it is decided which of them count."""

    def __init__(self) -> None:
        self.columns = _Columns(is_nested=True)
        self.settled = rows.NumberedRows()
        self.count = 0
        """All lines, including events."""
        self.written = 0
        """Lines written, according to the sequence numbers."""
        self._rows = 0

    def take(self, lines: list[dict[str, Any]]) -> None:
        """Append lines; an event has the number of the next row."""
        if not lines:
            return
        self.count += len(lines)
        self.written = max(self.written, 1 + max(map(itemgetter("seq"), lines)))
        begin = 0
        for at in [at for at, line in enumerate(lines) if "kind" in line]:
            self._take_rows(lines[begin:at])
            self.settled.add(self._rows, lines[at])
            begin = at + 1
        self._take_rows(lines[begin:])

    def _take_rows(self, block: list[dict[str, Any]]) -> None:
        if block:
            self.settled.add_rows(self._rows, block)
            self.columns.take(block)
            self._rows += len(block)


class _Columns:
    """Values of many rows by member."""

    def __init__(self, *, is_nested: bool) -> None:
        self._is_nested = is_nested
        """Whether a member that is an object becomes columns of its own."""
        self._blocks: dict[str, list[np.ndarray]] = {}
        self._filled: dict[str, int] = {}
        """How many rows the blocks of a member are."""
        self._count = 0
        self._parts: dict[str, _Columns] = {}

    def take(self, block: list[dict[str, Any]]) -> None:
        """Append rows."""
        for name, values in _by_member(block):
            if self._is_nested and name in _LEFT_OUT:
                continue
            kinds = set(map(type, values))
            if self._is_nested and dict in kinds:
                values, kinds = self._with_parts(name, values), {_Part}
            self._fill(name)
            self._blocks[name].append(_array(values, kinds))
            self._filled[name] += len(block)
        self._count += len(block)
        for name in self._blocks:
            self._fill(name)

    def _fill(self, name: str) -> None:
        """Mark a member as missing in the last rows."""
        blocks = self._blocks.setdefault(name, [])
        missing = self._count - self._filled.setdefault(name, 0)
        if missing > 0:
            blocks.append(_array([_NOTHING] * missing, {_Nothing}))
            self._filled[name] = self._count

    def _with_parts(self, name: str, values: Sequence[Any]) -> list[Any]:
        parts = self._parts.setdefault(name, _Columns(is_nested=False))
        numbers = count(parts._count)
        parts.take([value for value in values if type(value) is dict])
        return [_Part(next(numbers)) if type(value) is dict else value for value in values]

    def table(self, first: list[int], further: Mapping[int, list[int]], spell: Callable[[Any], Any]) -> pd.DataFrame:
        """Return the rows that are chosen by number.

        Args:
            first: the first line of each row.
            further: by first line, more lines of the same row: the last one with a member sets its value.
            spell: converts anything but a number to what a table can hold.
        """
        chosen = np.array(first, dtype=np.int64)
        more = [(at, number) for at, each in enumerate(first) if each in further for number in further[each]]
        made: dict[str, Any] = {}
        parts: dict[str, Any] = {}
        for name, blocks in self._blocks.items():
            values = _joined(blocks)
            taken = values[chosen]
            for at, number in more:
                if values[number] is not _NOTHING:
                    taken[at] = values[number]
            if name in self._parts:
                at_rows = [(int(each),) if type(each) is _Part else () for each in taken]
                parts |= self._parts[name]._placed(at_rows, spell, part_prefix(str(spell(name))))
            else:
                made[spell(name)] = _column(taken, spell)
        return pd.DataFrame({**parts, **made}, index=pd.RangeIndex(len(first)))

    def _placed(self, rows_at: Sequence[tuple[int, ...]], spell: Callable[[Any], Any], prefix: str) -> dict[str, Any]:
        """Return the columns of the parts. `rows_at` has the part of each row, if any."""
        has = np.fromiter((bool(each) for each in rows_at), dtype=bool, count=len(rows_at))
        numbers = np.fromiter((each[0] for each in rows_at if each), dtype=np.int64)
        placed = {}
        for name, blocks in self._blocks.items():
            values = _joined(blocks)[numbers]
            if not has.all():
                whole = np.full(len(has), _NOTHING, dtype=object)
                whole[has] = values.astype(object)
                values = whole
            placed[prefix + str(spell(name))] = _column(values, spell)
        return placed


def _by_member(block: list[dict[str, Any]]) -> Iterator[tuple[str, Sequence[Any]]]:
    """Yield each member's values in all rows."""
    names = tuple(block[0]) if block else ()
    if len(names) > 1 and set(map(len, block)) == {len(names)}:
        try:
            columns = list(zip(*map(itemgetter(*names), block), strict=True))
        except KeyError:
            pass
        else:
            yield from zip(names, columns, strict=True)
            return
    for name in dict.fromkeys(chain.from_iterable(block)):
        try:
            yield name, list(map(itemgetter(name), block))
        except KeyError:
            yield name, [row.get(name, _NOTHING) for row in block]


def _array(values: Sequence[Any], kinds: set[type]) -> np.ndarray:
    """Return values compactly if all have one number type that an array supports."""
    if kinds == {float}:
        return np.array(values, dtype=np.float64)
    if kinds == {int} and min(values) >= -(2**63) and max(values) < 2**63:
        return np.array(values, dtype=np.int64)
    made = np.empty(len(values), dtype=object)
    made[:] = values
    return made


def _joined(blocks: list[np.ndarray]) -> np.ndarray:
    if len(blocks) > 1:
        if len({block.dtype for block in blocks}) > 1:
            blocks[:] = [block.astype(object) for block in blocks]
        blocks[:] = [np.concatenate(blocks)]
    return blocks[0]


def _column(values: np.ndarray, spell: Callable[[Any], Any]) -> Any:
    """Return a column as pandas makes it from such values; NaN where a value is missing."""
    if values.dtype != object:
        return values
    return pd.Series([np.nan if value is _NOTHING else spell(value) for value in values])


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """Add the active seconds, and convert columns whose numbers are written as text (NaN, Infinity)."""
    if {"at", "attempt"} <= set(table):
        seconds = table.groupby("attempt")["at"].diff().clip(lower=0).fillna(0.0)
        table["active_seconds"] = seconds.cumsum()
    for name in [name for name in table.columns if not pd.api.types.is_numeric_dtype(table[name].dtype)]:
        numbers = pd.to_numeric(table[name], errors="coerce")
        spelled = table[name].isin(_SPELLED)
        if (numbers.notna() | spelled | table[name].isna()).all():
            table[name] = numbers
    return table


def _same(value: Any) -> Any:
    return value


def _writable(value: Any) -> Any:
    """Text cut within a character may hold half a surrogate pair, which cannot be written to a file."""
    match value:
        case str():
            return value.encode(errors="replace").decode()
        case dict():
            return {_writable(name): _writable(each) for name, each in value.items()}
        case list():
            return [_writable(each) for each in value]
        case _:
            return value


def _count(path: Path) -> int:
    """Return how many whole lines a file has."""
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
