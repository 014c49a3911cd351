"""The order of an epoch: a bijection for every length, evenly drawn, and the same for ever."""

import json
from pathlib import Path

import numpy as np
import pytest

from trainhooks.core import seed
from trainhooks.core.permutation import Permutation

GOLDEN = json.loads((Path(__file__).parents[2] / "data" / "order_v1.json").read_bytes())
LENGTHS = (2, 3, 5, 7, 16, 17, 64, 100)
KEYS = 2_000


@pytest.mark.parametrize("case", GOLDEN["permutations"], ids=lambda case: str(case["length"]))
def test_order_never_changes(case: dict[str, object]) -> None:
    """Checkpoints hold a place in the order, not the order: were it to change, each of them would point elsewhere."""
    values = case["values"]
    assert isinstance(values, list)
    places = range(case["start"], case["start"] + len(values))
    assert Permutation(case["length"], key=case["key"])[places].tolist() == values


@pytest.mark.parametrize("case", GOLDEN["seeds"], ids=lambda case: "-".join(map(str, case["parts"])))
def test_seeds_never_change(case: dict[str, object]) -> None:
    assert seed.derive(*case["parts"]) == case["seed"]  # type: ignore[misc]


def test_every_length_is_a_bijection() -> None:
    for length in range(1, 201):
        for key in range(3):
            assert sorted(Permutation(length, key=key)[range(length)].tolist()) == list(range(length))


def test_any_piece_is_the_piece_of_the_whole() -> None:
    permutation = Permutation(1_000, key=5)
    whole = permutation[range(1_000)]
    for start, stop in ((0, 1), (999, 1_000), (13, 700), (500, 500)):
        assert permutation[range(start, stop)].tolist() == whole[start:stop].tolist()


@pytest.mark.parametrize("length", LENGTHS)
def test_places_and_pairs_are_drawn_evenly(length: int) -> None:
    """Over seeds, each value is as often at the first, middle and last place, and each pair as often in either order.

    Limits at 5 standard deviations: what a fair draw passes all but once in a million.
    """
    drawn = np.stack([Permutation(length, key=seed.derive("test", key))[range(length)] for key in range(KEYS)])
    for place in (0, length // 2, length - 1):
        counts = np.bincount(drawn[:, place], minlength=length)
        expected = KEYS / length
        chi_square = ((counts - expected) ** 2 / expected).sum()
        freedom = length - 1
        assert chi_square < freedom + 5 * np.sqrt(2 * freedom) + 10, f"place {place}"
    where = np.argsort(drawn, axis=1)
    first, second = np.triu_indices(length, 1)
    deviation = ((where[:, first] < where[:, second]).sum(axis=0) - KEYS / 2) / np.sqrt(KEYS / 4)
    assert np.abs(deviation).max() < 5
    assert (deviation**2).mean() < 1 + 5 * np.sqrt(2 / len(first))


def test_neighbouring_keys_and_epochs_differ() -> None:
    orders = {tuple(Permutation(50, key=seed.derive("epoch", 1, epoch))[range(50)]) for epoch in range(100)}
    assert len(orders) == 100
