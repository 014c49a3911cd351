"""Which samples each batch of an epoch holds, from any position on, without a step of the way before it."""

from collections.abc import Iterator

from torch.utils.data import Sampler

from trainhooks.core import seed as seeds
from trainhooks.core.permutation import Permutation
from trainhooks.core.position import Deal, Position


class PositionSampler(Sampler[list[tuple[int, int]]]):
    """A batch sampler over one epoch of a map-style data set.

    Its batches are lists of (epoch, sample index), so that a worker can seed each sample by what it is.
    """

    def __init__(self, deal: Deal, *, seed: int, shuffle: bool, rank: int = 0) -> None:
        self.deal = deal
        self.seed = seed
        self.shuffle = shuffle
        self.rank = rank
        self.position = Position()
        """Where the next `iter` begins; the iteration itself does not move it."""

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, start = self.position.epoch, self.position.offset
        order = Permutation(self.deal.length, key=seeds.derive("epoch", self.seed, epoch)) if self.shuffle else None
        for offset in self.deal.steps(start):
            share = self.deal.share(offset, self.rank)
            yield [(epoch, int(index)) for index in (share if order is None else order[share])]

    def __len__(self) -> int:
        return self.deal.count(self.position.offset)
