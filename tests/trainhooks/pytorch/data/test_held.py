"""Generators that a data set, its transforms, a collate function or a sampler keep: resumed, or said."""

import functools
import json
import logging
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Sampler, Subset, default_collate

from trainhooks import setup_progress_tracking
from trainhooks.pytorch.data import data_facts, held
from trainhooks.pytorch.data.evaluation import EvaluationLoader
from trainhooks.pytorch.data.source import make_loader

LENGTH = 12
OF_SCRIPT = np.random.default_rng(5)


class Rows(Dataset[Any]):
    """Rows with noise from `draw`."""

    def __init__(self, draw: Callable[[], float] = lambda: 0.0) -> None:
        self.draw = draw

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> tuple[int, float]:
        return index, float(self.draw())


class WithAttribute(Rows):
    def __init__(self) -> None:
        self.rng = random.Random(3)
        self.draw = self.rng.random


class WithTransform(Rows):
    """A generator two objects deep, as in a composition of transforms."""

    def __init__(self) -> None:
        self.transforms = [Flip(np.random.default_rng(3))]
        super().__init__()

    def __getitem__(self, index: int) -> tuple[int, float]:
        return index, self.transforms[0]()


class Flip:
    __slots__ = ("rng",)

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def __call__(self) -> float:
        return float(self.rng.normal())


class OfClass(Rows):
    rng = np.random.RandomState(3)

    def __getitem__(self, index: int) -> tuple[int, float]:
        return index, float(self.rng.normal())


class OfScript(Rows):
    def __getitem__(self, index: int) -> tuple[int, float]:
        return index, noisy()


def noisy() -> float:
    return float(OF_SCRIPT.normal())


class MadeInWorker(Rows):
    """Makes its generator at its first sample, from the system's entropy."""

    rng: Any = None

    def __getitem__(self, index: int) -> tuple[int, float]:
        if self.rng is None:
            self.rng = np.random.default_rng(0)
            return index, 0.0
        return index, float(self.rng.normal())


class Stream(IterableDataset[Any]):
    def __init__(self) -> None:
        self.rng = random.Random(3)

    def __iter__(self) -> Iterator[Any]:
        for index in range(LENGTH):
            yield index, self.rng.random()


def of_torch() -> Rows:
    generator = torch.Generator().manual_seed(3)
    return Rows(lambda: torch.rand(1, generator=generator).item())


def add_noise(generator: torch.Generator, samples: list[Any]) -> Any:
    ids, noise = default_collate(samples)
    return ids, noise + torch.rand(1, generator=generator)


def collating() -> dict[str, Any]:
    return {"collate_fn": functools.partial(add_noise, torch.Generator().manual_seed(3))}


class Deep:
    """What a sampler asks."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(3)

    def order(self) -> list[int]:
        return [int(each) for each in self.rng.permutation(LENGTH)]


class Asking(Sampler[int]):
    """Draws from the generator of an object that it holds."""

    def __init__(self) -> None:
        self.policy = Deep()

    def __len__(self) -> int:
        return LENGTH

    def __iter__(self) -> Iterator[int]:
        return iter(self.policy.order())


SOURCES: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {
    "attribute": lambda: (WithAttribute(), {}),
    "transform": lambda: (WithTransform(), {}),
    "closure": lambda: (of_torch(), {}),
    "class": lambda: (OfClass(), {}),
    "script": lambda: (OfScript(), {}),
    "subset-of-several": lambda: (Subset(ConcatDataset([WithAttribute(), WithTransform()]), range(6, 18)), {}),
    "collate": lambda: (Rows(), collating()),
    "stream": lambda: (Stream(), {}),
    "sampler": lambda: (Rows(), {"sampler": Asking()}),
}


def batches(loader: Any, count: int) -> list[Any]:
    """Take batches over epochs, drawing between them from what the loop may share with the data."""
    taken: list[Any] = []
    while len(taken) < count:
        for ids, noise in loader:
            taken.append((ids.tolist(), noise.tolist()))
            if len(taken) == count:
                break
    return taken


@pytest.mark.parametrize(("name", "workers"), [*((name, 0) for name in SOURCES), ("stream", 2), ("script", 2)])
def test_a_resumed_loader_draws_from_held_generators_what_it_would_have(name: str, workers: int) -> None:
    def loader() -> Any:
        source, options = SOURCES[name]()
        data_facts.facts_of(source)  # reads records, as a session does
        return make_loader(source, seed=1, batch_size=3, num_workers=workers, **options)

    whole = batches(loader(), 7)
    first = loader()
    got = batches(first, 5)  # in the second epoch
    state = json.loads(json.dumps(first.state_dict()))
    second = loader()
    second.load_state_dict(state)
    assert got + batches(second, 2) == whole
    assert len({str(noise) for _, noise in whole}) == (7 if name != "sampler" else 1)


@pytest.mark.parametrize("name", ["transform", "closure"])
def test_workers_draw_what_the_main_process_draws(name: str) -> None:
    def taken(workers: int) -> Any:
        source, options = SOURCES[name]()
        return batches(make_loader(source, seed=1, batch_size=3, num_workers=workers, **options), 6)

    assert taken(0) == taken(2)


def test_a_generator_that_the_loop_shares_with_its_data_is_left_where_it_was() -> None:
    data = WithAttribute()
    alone = random.Random(3)
    assert data_facts.facts_of(data)["record.0"]
    for _ in make_loader(data, seed=1, batch_size=3):
        assert data.rng.random() == alone.random()


def test_an_evaluation_repeats_its_pass() -> None:
    def noise_of(number: int) -> Any:
        loader = EvaluationLoader(WithTransform(), seed=1, batch_size=4)
        loader.passes = number
        return [noise.tolist() for _, noise in loader]

    assert noise_of(1) == noise_of(1) != noise_of(2)


def test_a_generator_made_with_the_first_sample_is_seeded_from_the_next_one_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def loader() -> Any:
        return make_loader(MadeInWorker(), seed=1, batch_size=3, shuffle=False)

    whole = batches(loader(), 4)
    first = loader()
    batches(first, 2)
    second = loader()
    second.load_state_dict(first.state_dict())
    (ids, noise), *rest = batches(second, 2)
    assert (ids, noise[1:], rest) == (whole[2][0], whole[2][1][1:], whole[3:])
    assert "data set.rng is made while the first sample is loaded" in caplog.text


def test_the_process_own_generators_are_not_held() -> None:
    sources = {"a": Rows(random.random), "b": Rows(np.random.rand), "c": [torch.default_generator]}
    assert held.generators_in(sources) == {}


class OwnState(IterableDataset[Any]):
    """Goes to its place by itself, and forgets its generator or keeps it."""

    def __init__(self, keeps: bool) -> None:
        self.rng = np.random.default_rng(3)
        self.keeps = keeps
        self.at = 0

    def __iter__(self) -> Iterator[Any]:
        while self.at < LENGTH:
            self.at += 1
            yield self.at, float(self.rng.normal())
        self.at = 0

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at, "rng": self.rng.bit_generator.state if self.keeps else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = state["at"]
        if self.keeps:
            self.rng.bit_generator.state = state["rng"]


class FromSystem(Rows):
    def __init__(self) -> None:
        self.rng = random.SystemRandom()


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        (OwnState(keeps=False), {}, "data set.rng is a random number generator that the source's own state_dict()"),
        (OwnState(keeps=False), {"replays": True}, None),
        (OwnState(keeps=True), {}, None),
        (FromSystem(), {}, "data set.rng draws from the operating system, which nothing can repeat"),
        (WithAttribute(), {}, None),
    ],
)
def test_what_cannot_be_resumed_is_reported_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, source: Any, options: dict[str, Any], said: str | None
) -> None:
    progress = setup_progress_tracking({}, tmp_path, 4, database=False)
    with caplog.at_level(logging.WARNING, "trainhooks"):
        progress.loader(source, batch_size=2, **options)
        progress.loader(source, batch_size=2, **options)
    progress.close()
    told = [record.getMessage() for record in caplog.records if "not resumed" in record.getMessage()]
    assert len(told) == (said is not None)
    assert said is None or said in told[0]


def test_a_source_that_keeps_its_generator_is_not_seeded_over() -> None:
    whole = batches(make_loader(OwnState(keeps=True), seed=1, batch_size=3), 6)
    first = make_loader(OwnState(keeps=True), seed=1, batch_size=3)
    got = batches(first, 3)
    second = make_loader(OwnState(keeps=True), seed=1, batch_size=3)
    second.load_state_dict(first.state_dict())
    assert got + batches(second, 3) == whole
