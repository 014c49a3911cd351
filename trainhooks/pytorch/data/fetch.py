"""From samples to batches, in a loader's workers or in the main process: seeded, collated, their origin beside them.

A `DataLoader` is given one of these as its data set and a sampler of tasks: one task, one batch. So the seeds cover the
collate function too, and what travels with a batch is that batch's alone.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset, Subset

from trainhooks import lineage
from trainhooks.core import seed as seeds
from trainhooks.core.cursor import Produced
from trainhooks.core.origin import Keys, keys_of_row
from trainhooks.pytorch.data.held import HeldGenerators
from trainhooks.pytorch.data.producing import producer
from trainhooks.pytorch.data.seeding import kept_apart, seed_all

Collate = Callable[[Any], Any]


@dataclass(slots=True, kw_only=True)
class Fetched:
    """A batch on its way to the loop."""

    batch: Any
    keys: tuple[Keys, ...] | None
    """Of each sample; None where none of them has any."""
    first: int = 0
    """Number of the first sample in its worker's stream."""
    count: int = 0
    """How many samples the worker's stream has given, this batch included."""
    state: Any = None
    """The stream's own state after this batch."""
    produced: Produced | None = None
    """Which samples of a teacher had been used; None: no run is known."""

    def pin_memory(self) -> "Fetched":
        """Called by `DataLoader(pin_memory=True)`."""
        from torch.utils.data._utils.pin_memory import pin_memory

        self.batch = pin_memory(self.batch)  # type: ignore[no-untyped-call]
        return self


@dataclass(frozen=True, slots=True)
class MapTask:
    """The samples of one batch of a map-style data set."""

    epoch: int
    indices: tuple[Any, ...]
    first: int | None = None
    """How many samples of the epoch are before them, where the order is the user's and an index may come twice; None:
    the index identifies a sample."""
    part: int = 0
    """The rank, where each has an order of its own."""

    def seed_of(self, what: str, seed: int, number: int = 0) -> int:
        """Return the seed of the sample of that number in the batch, or of its collation."""
        if self.first is None:
            return seeds.derive(what, seed, self.epoch, self.indices[number])
        return seeds.derive(what, seed, self.epoch, "place", self.part, self.first + number)


class MapFetcher(Dataset[Fetched]):
    """Batches of a map-style data set. A sample's seed is hash(seed, epoch, index), whoever loads it;
    in an order of the user's, hash(seed, epoch, place).

    Args:
        collate: of a list of samples; where `single`, of one sample (a loader without batches).
    """

    def __init__(self, source: Any, *, seed: int, collate: Collate, single: bool) -> None:
        self.source = source
        self.seed = seed
        self.collate = collate
        self.single = single
        self._held = HeldGenerators({"data set": source, "collate function": collate})
        self._looked: tuple[int, int] | None = None
        self._is_first = False
        self._producer = producer()
        self._get_many = source.__getitems__ if _reads_many(source) else None

    def __getitem__(self, task: MapTask) -> Fetched:
        self._is_first = self._looked != (os.getpid(), task.epoch)
        if self._is_first:
            self._looked = os.getpid(), task.epoch
            self._held.look()
        if self._producer is not None:
            self._producer.begin()
        with kept_apart(), self._held.kept_apart():
            samples, keys = self._samples(task)
            self._seed_for(task.seed_of("collate", self.seed))
            batch = self.collate(samples[0] if self.single else samples)
        produced = None if self._producer is None else self._producer.end(needs_end=False)
        return Fetched(batch=batch, keys=keys if any(keys) else None, produced=produced)

    def _seed_for(self, seed: int) -> None:
        seed_all(seed)
        self._held.seed(seed)

    def _samples(self, task: MapTask) -> tuple[Sequence[Any], tuple[Keys, ...]]:
        if self._get_many is not None:
            # Reading many at once is why a data set has this method; its samples then share the first one's seed.
            self._seed_for(task.seed_of("sample", self.seed))
            samples = self._get_many(list(task.indices))  # what it asks for is no one sample's
            return samples, tuple(keys_of_row(sample) for sample in samples)
        samples, keys = [], []
        for number, index in enumerate(task.indices):
            if number == 1 and self._is_first:
                self._held.look_again()  # a data set may make its generator with its first sample
            self._seed_for(task.seed_of("sample", self.seed, number))
            with lineage.noting() as asked:
                sample = self.source[index]
            samples.append(sample)
            keys.append(keys_of_row(sample) or tuple(asked))
        return samples, tuple(keys)


def _reads_many(source: Any) -> bool:
    """Whether a data set reads several samples at once. torch's Subset has the method and mostly just loops."""
    while isinstance(source, Subset):
        source = source.dataset
    return callable(getattr(source, "__getitems__", None))
