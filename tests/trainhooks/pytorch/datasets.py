"""Data sets that loaders are tried with."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info


class Noisy(Dataset[Any]):
    """Each sample draws from every generator."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[int, float]:
        return index, noise()


class Counting(Dataset[int]):
    """Counts how often it is asked."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.asked = 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        self.asked += 1
        return index


class Stream(IterableDataset[Any]):
    """An iterable without a state: sharded by worker, noisy, and of uneven shards."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.asked = 0

    def __iter__(self) -> Iterator[tuple[int, float]]:
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        for number in range(first, self.length, step):
            self.asked += 1
            yield number, noise()


class StatefulStream(Stream):
    """The same, with a state of its own."""

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.at = 0

    def __iter__(self) -> Iterator[tuple[int, float]]:
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        numbers = range(first, self.length, step)
        while self.at < len(numbers):
            number = numbers[self.at]
            self.at += 1
            self.asked += 1
            yield number, noise()

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = state["at"]


def noise() -> float:
    """Draw from each generator, numpy's an odd number of times: it keeps half of each pair back."""
    return random.random() + float(np.random.standard_normal()) + torch.randn(1).item()


def plain(batch: Any) -> Any:
    """Return a batch as lists."""
    return [part.tolist() if isinstance(part, torch.Tensor) else part for part in batch]
