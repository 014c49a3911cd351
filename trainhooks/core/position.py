"""Where in the data a session is, counted in samples, whatever the batch size, workers and ranks.

An epoch is one permutation of the data set. A step of `world` ranks with `batch` samples each takes the permutation's
[offset, offset + world x batch); rank r takes the r-th part of it. Nothing is ever repeated to fill a batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Tail(StrEnum):
    """What becomes of the samples at an epoch's end that do not fill a step."""

    KEEP = "keep"
    """They make a shorter step; left out are only those (fewer than ranks) that cannot be dealt to every rank."""
    DROP = "drop"
    """They are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """(epoch, offset): samples before `offset` in this epoch's permutation are consumed, by all ranks together."""

    epoch: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Deal:
    """How an epoch is dealt out: `length` samples, `batch` of them to each of `world` ranks in a step."""

    length: int
    batch: int
    world: int = 1
    tail: Tail = Tail.KEEP

    @property
    def per_step(self) -> int:
        """Samples that one whole step takes."""
        return self.batch * self.world

    def take(self, offset: int) -> int:
        """How many samples the step at `offset` takes, over all ranks; 0 where the epoch is over."""
        left = self.length - offset
        if left >= self.per_step:
            return self.per_step
        if self.tail is Tail.DROP or left < self.world:
            return 0
        return left - left % self.world

    def steps(self, offset: int) -> Iterator[int]:
        """Yield the offset of each step from `offset` to the epoch's end."""
        while self.take(offset) > 0:
            yield offset
            offset += self.take(offset)

    def count(self, offset: int = 0) -> int:
        """How many steps there are from `offset` to the epoch's end."""
        left = max(0, self.length - offset)
        whole, rest = divmod(left, self.per_step)
        return whole + (self.tail is Tail.KEEP and rest >= self.world)

    def share(self, offset: int, rank: int) -> range:
        """Which places of the permutation the step at `offset` gives to `rank`."""
        each = self.take(offset) // self.world
        return range(offset + rank * each, offset + (rank + 1) * each)

    def after(self, position: Position) -> Position:
        """Where one is after the step at `position`: at the next epoch's start once nothing is left of this one."""
        offset = position.offset + self.take(position.offset)
        if self.take(offset) == 0:
            return Position(epoch=position.epoch + 1)
        return Position(epoch=position.epoch, offset=offset)
