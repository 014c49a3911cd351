"""A user's sampler, drawn where nobody else's random numbers are, the same in each attempt.

A sampler may draw from any generator and may change itself from epoch to epoch. So each draw runs under private
generators, seeded by the epoch; generators that it holds are seeded anew for each epoch; `set_epoch` gets its number
it is. What it gave is digested as it goes, so a sampler that gives something else the second time is found out.
"""

import copy
import hashlib
import random
from collections.abc import Iterable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from trainhooks.core import seed as seeds
from trainhooks.errors import ConfigInvalid
from trainhooks.pytorch.data import held
from trainhooks.pytorch.data.private import PrivateGenerators
from trainhooks.pytorch.data.stream import is_stateful

START = ""
"""The digest of nothing drawn."""
_DIGEST_BYTES = 16
_SHORT = 64
"""A collection that is looked through for samplers and generators has no more members."""
_WITHOUT_MEMORY = (
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    list,
    range,
    tuple,
)
"""What these give in an epoch depends on nothing that an earlier epoch did: none needs to be drawn again."""
_RANK_WORDS = frozenset(
    {
        "rank",
        "global_rank",
        "num_replicas",
        "world_size",
        "process_index",
        "num_processes",
        "get_rank",
        "get_world_size",
    }
)
_RANK_VARIABLES = frozenset({"RANK", "WORLD_SIZE"})


@dataclass(frozen=True, slots=True)
class Drawn:
    """What one step takes: a batch for each rank that the sampler's batches are dealt out to."""

    batches: tuple[tuple[Any, ...], ...]
    """Indices as the sampler gave them."""
    first: int
    """Samples of this epoch before them."""
    digest: str
    """Of everything that was drawn up to here, this included."""


class Drawing:
    """One epoch of a sampler.

    Args:
        sampler: gives batches of indices; where `single`, indices.
        seed: of all epochs.
        group: how many batches one step takes; a rest that is too short for all ranks is left out.
        digest: of what was drawn in earlier epochs.
        state: what `state_of` gave at this epoch's beginning; put back where it is given.
    """

    def __init__(
        self,
        sampler: Any,
        *,
        seed: int,
        epoch: int,
        group: int = 1,
        single: bool = False,
        digest: str = START,
        state: Any = None,
    ) -> None:
        self.epoch = epoch
        self.start_digest = self.digest = digest
        self._group = group
        self._single = single
        self._samples = 0
        self._generators = PrivateGenerators(_generators(sampler), seeds.derive("draws", seed, epoch))
        with self._generators.swapped_in():
            for each in parts_of(sampler):
                if hasattr(each, "set_epoch"):
                    each.set_epoch(epoch)
            if state is not None:
                for name, part in _stateful(sampler).items():
                    part.load_state_dict(copy.deepcopy(state[name]))
            self.start_state = state_of(sampler)
        self._generators = PrivateGenerators(_generators(sampler), seeds.derive("draws", seed, epoch))
        with self._generators.swapped_in():
            self._indices = iter(sampler)

    def draw(self) -> Drawn | None:
        """Return what the next step takes; None: the epoch is over."""
        first = self._samples
        with self._generators.swapped_in():
            batches = [batch for _ in range(self._group) if (batch := self._next()) is not None]
        return Drawn(tuple(batches), first, self.digest) if len(batches) == self._group else None

    def skip(self, batches: int | None = None) -> int:
        """Draw so many batches (None: all) without loading a sample; returns how many there were."""
        count = 0
        with self._generators.swapped_in():
            while (batches is None or count < batches) and self._next() is not None:
                count += 1
        return count

    def _next(self) -> tuple[Any, ...] | None:
        try:
            drawn = next(self._indices)
        except StopIteration:
            return None
        if not self._single and not hasattr(drawn, "__iter__"):
            raise ConfigInvalid(
                f"The batch sampler gives {drawn!r} and must give lists of indices.",
                hint="Give it as sampler=, with batch_size=.",
            )
        batch = (drawn,) if self._single else tuple(drawn)  # a sampler may use its list again
        self._samples += len(batch)
        text = f"{self.digest}:{self.epoch}:{plain(batch)!r}"
        self.digest = hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()
        return batch


def plain(index: Any) -> Any:
    """Return an index, or several, without tensors and arrays."""
    if hasattr(index, "tolist"):
        return index.tolist()
    if isinstance(index, list | tuple):
        return [plain(each) for each in index]
    if getattr(type(index), "__repr__", None) is vars(object)["__repr__"]:  # says nothing but where it lies
        return type(index).__qualname__, plain(sorted(getattr(index, "__dict__", {}).items()))
    return index


def has_memory(sampler: Any) -> bool:
    """Whether what a sampler gives may depend on the epochs before."""
    return any(type(each) not in _WITHOUT_MEMORY for each in parts_of(sampler))


def knows_ranks(sampler: Any) -> bool:
    """Whether a sampler gives each rank batches of its own, as far as its attributes and its code show."""
    for each in parts_of(sampler):
        if _RANK_WORDS & {name.strip("_") for name in getattr(each, "__dict__", {})}:
            return True
        functions = [
            function
            for kind in type(each).__mro__
            if kind not in (object, Sampler)
            for function in vars(kind).values()
            if isinstance(function, FunctionType)
        ]
        for code in (function.__code__ for function in functions):
            if _RANK_WORDS & set(code.co_names) or any(
                isinstance(value, str) and value in _RANK_VARIABLES for value in code.co_consts
            ):
                return True
    return False


def parts_of(sampler: Any) -> list[Any]:
    """Return a sampler and those that it is made of, each once."""
    found, waiting = list[Any](), [sampler]
    while waiting:
        each = waiting.pop(0)
        if any(each is other for other in found):
            continue
        found.append(each)
        for value in getattr(each, "__dict__", {}).values():
            waiting += [part for _, part in _held(value) if isinstance(part, Sampler) or _is_sampler_like(part)]
    return found


def _is_sampler_like(value: Any) -> bool:
    return "sampler" in type(value).__name__.lower() and hasattr(value, "__iter__")


def state_of(sampler: Any) -> dict[str, Any] | None:
    """Return the own state of a sampler, or of those that it is made of; None: none of them keeps one."""
    return {name: copy.deepcopy(part.state_dict()) for name, part in _stateful(sampler).items()} or None


def _stateful(sampler: Any) -> dict[str, Any]:
    """Return the outermost parts that have a state of their own."""
    if is_stateful(sampler):
        return {"": sampler}
    return {str(number): each for number, each in enumerate(parts_of(sampler)) if is_stateful(each)}


def seed_held(sampler: Any) -> int | None:
    """Return the seed of the first torch generator that a sampler holds; None: it holds none.

    torchdata's RandomSampler always has one, with a seed that nobody chose.
    """
    for each in parts_of(sampler):
        for _, value in sorted(getattr(each, "__dict__", {}).items()):
            if isinstance(value, torch.Generator) and not type(each).__module__.startswith("torchdata."):
                return value.initial_seed()
    return None


def _generators(sampler: Any) -> dict[str, Any]:
    kinds = (torch.Generator, random.Random, np.random.Generator, np.random.RandomState)
    found = dict[str, Any]()
    for number, each in enumerate(parts_of(sampler)):
        for name, value in sorted(getattr(each, "__dict__", {}).items()):
            for place, generator in _held(value):
                if isinstance(generator, random.SystemRandom):
                    continue  # has neither a seed nor a state
                if isinstance(generator, kinds) and not any(generator is other for other in found.values()):
                    found[f"{number}.{name}.{place}"] = generator
    for name, generator in held.generators_in({"held": sampler}).items():  # deeper, in closures, in its script
        if not isinstance(generator, random.SystemRandom) and not any(generator is other for other in found.values()):
            found[name] = generator
    return found


def _held(value: Any) -> Iterable[tuple[Any, Any]]:
    """Return a value, or those that it is a short collection of, with where they are in it."""
    if isinstance(value, list | tuple | dict) and len(value) <= _SHORT:
        return value.items() if isinstance(value, dict) else enumerate(value)
    return [("", value)]
