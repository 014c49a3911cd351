"""A DataLoader that knows where it is: what it has yielded has moved its position, and nothing else has."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from trainhooks.core import seed as seeds
from trainhooks.core.position import Deal, Position, Tail
from trainhooks.errors import PositionInvalid
from trainhooks.pytorch import rng
from trainhooks.pytorch.sampler import PositionSampler


class SeededDataset(Dataset[Any]):
    """Each sample under a seed of its own, hash(seed, epoch, index): augmentation is the same whoever loads it."""

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __getitem__(self, place: tuple[int, int]) -> Any:
        epoch, index = place
        before = rng.capture() if torch.utils.data.get_worker_info() is None else None
        rng.seed_all(seeds.derive("sample", self.seed, epoch, index))
        try:
            return self.dataset[index]
        finally:
            if before is not None:
                rng.restore(before)


class PositionedLoader:
    """One epoch per iteration, from the position on.

    Args:
        dataset: map-style: `len()` and `[index]`.
        batch_size: samples per rank in a step.
        seed: of the order and of every sample.
        shuffle: whether an epoch is a random permutation.
        tail: what becomes of samples that do not fill a step.
        rank, world: this process among those that share the data.
        options: for `torch.utils.data.DataLoader`.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        tail: Tail = Tail.KEEP,
        rank: int = 0,
        world: int = 1,
        **options: Any,
    ) -> None:
        self.seed = seed
        self.position = Position()
        """After the last batch that was yielded."""
        self._sampler = PositionSampler(
            Deal(length=len(dataset), batch=batch_size, world=world, tail=tail), seed=seed, shuffle=shuffle, rank=rank
        )
        self._loader = DataLoader(
            SeededDataset(dataset, seed),
            batch_sampler=self._sampler,
            generator=torch.Generator(),  # its own: making an iterator draws a number
            **options,
        )

    def __len__(self) -> int:
        return self._sampler.deal.count()

    def __iter__(self) -> Iterator[Any]:
        self._sampler.position = self.position
        for batch in self._loader:
            self.position = self._sampler.deal.after(self.position)
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return the position and what it counts in."""
        deal = self._sampler.deal
        return {
            "epoch": self.position.epoch,
            "offset": self.position.offset,
            "length": deal.length,
            "seed": self.seed,
            "shuffle": self._sampler.shuffle,
            "tail": deal.tail,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position.

        Raises:
            PositionInvalid: it counts in other data or another order.
        """
        mine = self.state_dict()
        differ = [name for name in ("length", "seed", "shuffle", "tail") if state[name] != mine[name]]
        if differ:
            listing = ", ".join(f"{name} was {state[name]!r} and is {mine[name]!r}" for name in differ)
            raise PositionInvalid(
                f"The saved position does not fit this data: {listing}.",
                hint="Resume with the data, seed and order of the run, or start a new one in another directory.",
            )
        self.position = Position(epoch=state["epoch"], offset=state["offset"])
