"""Samplers as people write them."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler


class Buckets(Sampler[list[int]]):
    """Batches of like lengths; shuffles its own list in place, so that each epoch begins where the last one ended."""

    def __init__(self, length: int, size: int = 4) -> None:
        self.batches = [list(range(first, min(first + size, length))) for first in range(0, length, size)]

    def __iter__(self) -> Iterator[list[int]]:
        random.shuffle(self.batches)
        yield from self.batches

    def __len__(self) -> int:
        return len(self.batches)


class ByEpoch(Sampler[list[int]]):
    """Follows from the epoch that it is told; holds a generator of numpy's."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.epoch = 0
        self.rng = np.random.default_rng(4)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        order = (self.rng.permutation(self.length) + self.epoch) % self.length
        for first in range(0, self.length, 3):
            yield order[first : first + 3].tolist()


class TokenBudget(Sampler[list[int]]):
    """Batches of differing sizes; hands out one list again and again."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __iter__(self) -> Iterator[list[int]]:
        batch = list[int]()
        for index in torch.randperm(self.length).tolist():
            batch.append(index)
            if sum(batch) > 40:
                yield batch
                batch.clear()
        if batch:
            yield batch


class Endless(Sampler[int]):
    def __init__(self, length: int) -> None:
        self.length = length

    def __iter__(self) -> Iterator[int]:
        while True:
            yield int(np.random.randint(self.length))


class Counted(Sampler[int]):
    """Counts its epochs itself and keeps the count in a state of its own."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.epochs = 0
        self.iterated = 0

    def __iter__(self) -> Iterator[int]:
        self.epochs += 1
        self.iterated += 1
        return iter([(index * 7 + self.epochs) % self.length for index in range(self.length)])

    def __len__(self) -> int:
        return self.length

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epochs = state["epochs"]


class ForgetfulState(Counted):
    """Its state leaves out what its order depends on."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class Restless(Sampler[int]):
    """Gives something else in each process."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.own = random.SystemRandom()

    def __iter__(self) -> Iterator[int]:
        return iter(self.own.sample(range(self.length), self.length))


class OfRank(Sampler[int]):
    """Deals out to ranks by itself."""

    def __init__(self, length: int, rank: int, world: int) -> None:
        self.length, self.rank, self.world = length, rank, world

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(self.length).tolist()[self.rank :: self.world])


class Pairs(Sampler[list[tuple[int, int]]]):
    """Indices that are no numbers: (index, size), as for pictures of several sizes."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for first in range(0, self.length, 2):
            yield [(index, random.choice([224, 288])) for index in (first, first + 1)]


class ByPair:
    """A data set that such indices are for."""

    def __getitem__(self, index: tuple[int, int]) -> tuple[int, int, float]:
        return *index, torch.rand(1).item()
