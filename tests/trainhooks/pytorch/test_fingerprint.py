"""Digests tell what differs in a batch and in the random numbers, and only that."""

import random
from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from trainhooks.core.origin import Origin
from trainhooks.pytorch.fingerprint import of_batch, of_random_numbers

Pair = namedtuple("Pair", "x y")
ORIGIN = Origin(epoch=1, ids=(3, 4), worker=None)
BIG = torch.arange(1_000_000, dtype=torch.float32)


def changed(tensor: torch.Tensor, place: int) -> torch.Tensor:
    other = tensor.clone()
    other[place] += 1
    return other


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0 + 2**-22])),
        (torch.tensor([0.0]), torch.tensor([-0.0])),
        (torch.ones(4), torch.ones(2, 2)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
        (torch.tensor([1, 0], dtype=torch.int16), torch.tensor([0, 1], dtype=torch.int16)),
        (BIG, changed(BIG, 0)),
        (BIG, BIG + 1),
        (np.array([1, 2]), np.array([1, 3])),
        ({"x": torch.ones(1)}, {"y": torch.ones(1)}),
        ({"text": ["a", "b"]}, {"text": ["a", "c"]}),
        (Pair(1, "a"), Pair(1, "b")),
        ([None, 1], [1, None]),
        (1, 1.0),
        (b"1", "1"),
        (SimpleNamespace(x=torch.ones(1)), SimpleNamespace(x=torch.zeros(1))),
        (torch.ones(3, 4).t(), torch.ones(4, 3).cumsum(0)),
    ],
    ids=str,
)
def test_what_differs_is_seen(one: Any, other: Any) -> None:
    assert of_batch(ORIGIN, one) != of_batch(ORIGIN, other)
    assert of_batch(ORIGIN, one) == of_batch(ORIGIN, one)
    assert len(of_batch(ORIGIN, one)) == 16


def test_the_same_values_have_the_same_digest_wherever_they_lie() -> None:
    matrix = torch.arange(12.0).reshape(3, 4)
    assert of_batch(None, matrix.t()) == of_batch(None, matrix.t().contiguous())
    assert of_batch(None, matrix.requires_grad_()) == of_batch(None, matrix.detach().clone())
    assert of_batch(None, matrix[:, ::2]) == of_batch(None, matrix[:, ::2].clone())


@pytest.mark.parametrize(
    "batch", [torch.ones(0, 3), torch.ones(2, 2).to_sparse(), torch.ones((), dtype=torch.bfloat16), object()], ids=str
)
def test_anything_has_a_digest(batch: Any) -> None:
    assert len(of_batch(ORIGIN, batch)) == 16


@pytest.mark.parametrize("other", [None, Origin(epoch=2, ids=(3, 4)), Origin(epoch=1, ids=(4, 3)), Origin(epoch=1)])
def test_other_samples_are_seen_though_they_look_the_same(other: Origin | None) -> None:
    assert of_batch(ORIGIN, torch.ones(2)) != of_batch(other, torch.ones(2))


def test_the_teachers_keys_are_no_part_of_the_data() -> None:
    keyed = Origin(epoch=1, ids=(3, 4), keys=((("a" * 64, 0),), ()))
    assert of_batch(ORIGIN, torch.ones(2)) == of_batch(keyed, torch.ones(2))


@pytest.mark.parametrize(
    "draw",
    [random.random, lambda: np.random.rand(1), lambda: torch.rand(1), lambda: np.random.standard_normal()],
    ids=["python", "numpy", "torch", "numpy-half-a-pair"],
)
def test_each_generator_counts_and_a_digest_draws_nothing(draw: Any) -> None:
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    before = of_random_numbers()
    assert of_random_numbers() == before
    draw()
    between = of_random_numbers()
    draw()  # numpy keeps the second half of a pair
    assert len({before, between, of_random_numbers()}) == 3
