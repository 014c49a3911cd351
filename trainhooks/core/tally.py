"""The best and the last value of every metric, and in how many steps it was measured, kept as rows come."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trainhooks.core import metric_name
from trainhooks.core.direction import Mode, direction_of
from trainhooks.core.experiment import MetricSummary
from trainhooks.core.number import as_float


@dataclass(slots=True)
class _Seen:
    direction: Mode
    best: float | None = None
    last: float | None = None
    rows: int = 0
    step: int = -1

    def add(self, step: int, value: float, *, is_counted: bool) -> None:
        self.meet(value)
        self.last = value
        if is_counted and step > self.step:
            self.rows += 1
            self.step = step

    def meet(self, value: float) -> None:
        """Take a value for the best one if it is."""
        better = min if self.direction is Mode.MIN else max
        self.best = value if self.best is None else better(self.best, value)


class Tally:
    """Fed in the order in which rows were recorded. Not thread-safe.

    Args:
        counts_from: rows of earlier steps are steps done again: their values count, the rows do not.
    """

    def __init__(self, counts_from: int = 0) -> None:
        self._counts_from = counts_from
        self._seen: dict[str, _Seen] = {}
        self._names: dict[str, tuple[str, int]] = {}

    @classmethod
    def of(cls, summaries: Iterable[MetricSummary]) -> "Tally":
        """Return a tally that continues from summaries."""
        tally = cls()
        for each in summaries:
            step = -1 if each.step is None else each.step
            tally._seen[each.name] = _Seen(
                direction_of(each.name), best=each.best, last=each.last, rows=each.rows, step=step
            )
        return tally

    @property
    def reached(self) -> int:
        """Steps up to the highest that was counted."""
        return 1 + max((each.step for each in self._seen.values()), default=-1)

    def add(self, step: int, members: Mapping[str, Any]) -> None:
        """Take in what a step measured."""
        row: dict[str, tuple[int, float]] = {}
        for spelling, value in _numbers(members):
            if spelling not in self._names:
                self._names[spelling] = (metric_name.standard_name(spelling), metric_name.rank(spelling))
            name, rank = self._names[spelling]
            if name not in metric_name.NOT_MEASURED and (name not in row or rank < row[name][0]):
                row[name] = (rank, value)
        for name, (_, value) in row.items():
            seen = self._seen.get(name)
            if seen is None:
                seen = self._seen[name] = _Seen(direction_of(name))
            seen.add(step, value, is_counted=step >= self._counts_from)

    def extend(self, later: Iterable[MetricSummary]) -> None:
        """Take in what was counted elsewhere, of later steps."""
        for each in later:
            seen = self._seen.setdefault(each.name, _Seen(direction_of(each.name)))
            if each.best is not None:
                seen.meet(each.best)
            seen.last = seen.last if each.last is None else each.last
            seen.rows += each.rows
            seen.step = max(seen.step, -1 if each.step is None else each.step)

    def summaries(self) -> tuple[MetricSummary, ...]:
        """Return what was found, by name."""
        return tuple(
            MetricSummary(
                name=name,
                best=seen.best,
                last=seen.last,
                rows=seen.rows,
                step=None if seen.step < 0 else seen.step,
            )
            for name, seen in sorted(self._seen.items())
        )


def _numbers(members: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in members.items():
        if isinstance(value, float):
            if not math.isnan(value):
                yield prefix + name, value
        elif isinstance(value, int) and not isinstance(value, bool):
            yield prefix + name, as_float(value)
        elif isinstance(value, Mapping) and name not in metric_name.NOT_MEASURED:
            yield from _numbers(value, prefix + metric_name.part_prefix(name))
