"""Which samples each batch of an epoch holds, from any position on, without a step of the way before it."""

from collections.abc import Iterator

from torch.utils.data import Sampler

from trainhooks.core import seed as seeds
from trainhooks.core.permutation import Permutation
from trainhooks.core.position import Deal, Position
from trainhooks.pytorch.data.fetch import MapTask

_BLOCK = 4_096
"""Places that are computed at once: one by one they cost 40 us each, so 0.2 us."""


class Order:
    """The samples of one epoch, place by place."""

    def __init__(self, length: int, *, seed: int, epoch: int, shuffle: bool) -> None:
        self._permutation = Permutation(length, key=seeds.derive("epoch", seed, epoch)) if shuffle else None
        self._length = length
        self._block = range(0)
        self._values: list[int] = []

    def __getitem__(self, places: range) -> tuple[int, ...]:
        """Return the samples at `places`."""
        if self._permutation is None:
            return tuple(places)
        if not (self._block.start <= places.start and places.stop <= self._block.stop):
            self._block = range(places.start, min(self._length, max(places.stop, places.start + _BLOCK)))
            self._values = self._permutation[self._block].tolist()
        start = self._block.start
        return tuple(self._values[places.start - start : places.stop - start])


class PositionSampler(Sampler[MapTask]):
    """The tasks of one epoch of a map-style data set, for one rank."""

    def __init__(self, deal: Deal, *, seed: int, shuffle: bool, rank: int = 0) -> None:
        self.deal = deal
        self.seed = seed
        self.shuffle = shuffle
        self.rank = rank
        self.position = Position()
        """Where the next `iter` begins; the iteration itself does not move it."""

    def order(self, epoch: int) -> Order:
        """Return an epoch's order."""
        return Order(self.deal.length, seed=self.seed, epoch=epoch, shuffle=self.shuffle)

    def __iter__(self) -> Iterator[MapTask]:
        epoch, start = self.position.epoch, self.position.offset
        order = self.order(epoch)
        for offset in self.deal.steps(start):
            yield MapTask(epoch, order[self.deal.share(offset, self.rank)])

    def __len__(self) -> int:
        return self.deal.count(self.position.offset)
