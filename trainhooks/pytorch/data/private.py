"""Generators that a user's sampler draws from, swapped in for each draw: nobody else's random numbers are touched."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from trainhooks.core import seed as seeds
from trainhooks.pytorch.data.seeding import kept_apart, seed_all


class PrivateGenerators:
    """Those of the process (python's, numpy's legacy one, torch's on the CPU) and those that a sampler holds."""

    def __init__(self, held: dict[str, Any], seed: int) -> None:
        self._held = list(held.values())
        states = [state_of(each) for each in self._held]
        with kept_apart():
            seed_all(seed)
            for name, each in held.items():
                seed_generator(each, seeds.derive("generator", seed, name))
            self._take()
            for each, state in zip(self._held, states, strict=True):
                put_state(each, state)

    def _take(self) -> None:
        self._states = random.getstate(), np.random.get_state(), torch.get_rng_state()
        self._held_states = [state_of(each) for each in self._held]

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Draw from these within the block; behind it all generators are as they were."""
        theirs = [state_of(each) for each in self._held]
        with kept_apart():
            python, numpy, cpu = self._states
            random.setstate(python)
            np.random.set_state(numpy)
            torch.set_rng_state(cpu)
            for each, state in zip(self._held, self._held_states, strict=True):
                put_state(each, state)
            try:
                yield
            finally:
                self._take()
                for each, state in zip(self._held, theirs, strict=True):
                    put_state(each, state)


def seed_generator(generator: Any, seed: int) -> None:
    """Seed a generator of any library."""
    match generator:
        case torch.Generator():
            generator.manual_seed(seed)
        case np.random.Generator():
            kind: Any = type(generator.bit_generator)
            generator.bit_generator.state = kind(seed).state
        case np.random.RandomState():
            generator.seed(seed & 0xFFFFFFFF)
        case _:
            generator.seed(seed)


def state_of(generator: Any) -> Any:
    """Return where a generator is."""
    match generator:
        case torch.Generator() | np.random.RandomState():
            return generator.get_state()
        case np.random.Generator():
            return generator.bit_generator.state
        case _:
            return generator.getstate()


def put_state(generator: Any, state: Any) -> None:
    """Put a generator where `state_of` found it."""
    match generator:
        case torch.Generator() | np.random.RandomState():
            generator.set_state(state)
        case np.random.Generator():
            generator.bit_generator.state = state
        case _:
            generator.setstate(state)
