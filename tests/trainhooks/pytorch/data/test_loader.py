"""Map-style data: position and noise the same whatever workers, batch size and ranks are."""

import json
import random
import time
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset, get_worker_info

from tests.trainhooks.pytorch.datasets import Counting, Noisy, noise, plain
from trainhooks.core.position import Tail
from trainhooks.errors import PositionInvalid
from trainhooks.pytorch.data.loader import PositionedLoader


def flat(loader: PositionedLoader, epochs: int = 1) -> list[tuple[int, float]]:
    """All samples in order."""
    batches = [plain(batch) for _ in range(epochs) for batch in loader]
    return [sample for ids, noises in batches for sample in zip(ids, noises, strict=True)]


def test_samples_and_noise_do_not_depend_on_workers_or_batch_size() -> None:
    expected = flat(PositionedLoader(Noisy(23), batch_size=4, seed=1), 2)
    assert sorted(index for index, _ in expected[:23]) == list(range(23))
    assert flat(PositionedLoader(Noisy(23), batch_size=7, seed=1), 2) == expected
    assert flat(PositionedLoader(Noisy(23), batch_size=5, seed=1, num_workers=2), 2) == expected
    assert (
        flat(PositionedLoader(Noisy(23), batch_size=5, seed=1, num_workers=2, persistent_workers=True), 2) == expected
    )
    assert flat(PositionedLoader(Noisy(23), batch_size=4, seed=2), 2) != expected


def test_the_second_epoch_has_another_order_and_other_noise() -> None:
    samples = flat(PositionedLoader(Noisy(40), batch_size=4, seed=1), 2)
    first, second = dict(samples[:40]), dict(samples[40:])
    assert [index for index, _ in samples[:40]] != [index for index, _ in samples[40:]]
    assert all(first[index] != second[index] for index in range(40))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_trainings_own_generators_are_left_alone(workers: int) -> None:
    def draws(loads: bool) -> list[float]:
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        source = PositionedLoader(Noisy(9), batch_size=2, seed=1, num_workers=workers) if loads else range(5)
        return [noise(), *(noise() for _ in source)]

    assert draws(loads=True) == draws(loads=False)


def test_each_batch_size_continues_at_the_sample() -> None:
    expected = flat(PositionedLoader(Noisy(50), batch_size=1, seed=1))
    got, state = [], None
    for batch_size, steps in ((4, 3), (7, 2), (1, 5), (50, 1)):
        loader = PositionedLoader(Noisy(50), batch_size=batch_size, seed=1)
        if state is not None:
            loader.load_state_dict(json.loads(json.dumps(state)))
        for _, batch in zip(range(steps), loader, strict=False):
            got += zip(*plain(batch), strict=True)
        state = loader.state_dict()
    assert got == expected
    assert state is not None
    assert (state["epoch"], state["offset"]) == (1, 0)


def test_ranks_share_a_step_and_their_number_may_change() -> None:
    expected = [index for index, _ in flat(PositionedLoader(Noisy(48), batch_size=1, seed=1))]
    state, got = None, list[int]()
    for world, steps in ((2, 4), (4, 2), (1, 99)):
        ranks = [PositionedLoader(Noisy(48), batch_size=2, seed=1, rank=rank, world=world) for rank in range(world)]
        for each in ranks:
            if state is not None:
                each.load_state_dict(state)
        for _, batches in zip(range(steps), zip(*ranks, strict=True), strict=False):
            got += [index for batch in batches for index in plain(batch)[0]]
        assert len({json.dumps(each.state_dict()) for each in ranks}) == 1
        state = ranks[0].state_dict()
    assert got == expected


def test_ten_million_samples_in_without_reading_one() -> None:
    length = 20_000_000
    loader = PositionedLoader(data := Counting(length), batch_size=8, seed=1)
    state = {**loader.state_dict(), "offset": 10_000_000}
    fresh = PositionedLoader(data, batch_size=8, seed=1)
    started = time.perf_counter()
    fresh.load_state_dict(state)
    batch = next(iter(fresh))
    seconds = time.perf_counter() - started
    assert data.asked == 8
    assert len(batch) == 8
    assert seconds < 1
    assert fresh.position.offset == 10_000_008


def test_a_larger_batch_over_what_is_left_goes_to_the_next_epoch() -> None:
    loader = PositionedLoader(Noisy(10), batch_size=2, seed=1, tail=Tail.DROP)
    state = {**loader.state_dict(), "offset": 8}
    larger = PositionedLoader(Noisy(10), batch_size=4, seed=1, tail=Tail.DROP)
    larger.load_state_dict(state)
    assert len(plain(next(iter(larger)))[0]) == 4
    assert (larger.position.epoch, larger.position.offset) == (1, 4)


def test_nothing_is_padded_at_the_end() -> None:
    kept = PositionedLoader(Noisy(10), batch_size=4, seed=1)
    assert [len(plain(batch)[0]) for batch in kept] == [4, 4, 2]
    dropped = PositionedLoader(Noisy(10), batch_size=4, seed=1, tail=Tail.DROP)
    assert [len(plain(batch)[0]) for batch in dropped] == [4, 4]


@pytest.mark.parametrize(("length", "batch_size", "tail"), [(0, 4, Tail.KEEP), (3, 4, Tail.DROP)])
def test_data_too_short_for_a_step_is_refused(length: int, batch_size: int, tail: Tail) -> None:
    with pytest.raises(PositionInvalid, match=f"has {length} samples"):
        PositionedLoader(Noisy(length), batch_size=batch_size, seed=1, tail=tail)


@pytest.mark.parametrize(
    "changed", [{"length": 11}, {"seed": 2}, {"shuffle": False}, {"tail": Tail.DROP}], ids=lambda each: next(iter(each))
)
def test_a_position_in_other_data_is_refused(changed: dict[str, Any]) -> None:
    state = PositionedLoader(Noisy(10), batch_size=4, seed=1).state_dict()
    options: dict[str, Any] = {"length": 10, "seed": 1} | changed
    other = PositionedLoader(Noisy(options.pop("length")), batch_size=4, **options)
    with pytest.raises(PositionInvalid, match=next(iter(changed))):
        other.load_state_dict(state)


def test_what_workers_have_read_ahead_does_not_count() -> None:
    loader = PositionedLoader(Noisy(40), batch_size=4, seed=1, num_workers=2, prefetch_factor=4)
    for _, _batch in zip(range(2), loader, strict=False):
        pass
    assert loader.position.offset == 8


def test_the_origin_names_the_samples_of_a_batch() -> None:
    loader = PositionedLoader(Noisy(20), batch_size=3, seed=1, num_workers=2)
    for batch in loader:
        assert loader.origin is not None
        assert list(loader.origin.ids or ()) == plain(batch)[0]


def _add_hundred(worker: int) -> None:
    info = get_worker_info()
    assert info is not None
    info.dataset.length = 100  # type: ignore[attr-defined]
    torch.randn(1)


class Telling(Noisy):
    """Tells its own length."""

    def __getitem__(self, index: int) -> tuple[int, float]:
        return self.length, noise()


def test_the_users_worker_init_runs_and_sees_the_users_data_set() -> None:
    expected = [value for _, value in flat(PositionedLoader(Telling(10), batch_size=4, seed=1))]
    got = flat(PositionedLoader(Telling(10), batch_size=4, seed=1, num_workers=2, worker_init_fn=_add_hundred))
    assert [length for length, _ in got] == [100] * 10
    assert [value for _, value in got] == expected


def test_randomness_in_the_collate_function_is_seeded_too() -> None:
    def collate(samples: list[Any]) -> tuple[list[int], list[float]]:
        return [index for index, _ in samples], [torch.randn(1).item() for _ in samples]

    inside = flat(PositionedLoader(Noisy(12), batch_size=4, seed=1, collate_fn=collate))
    assert flat(PositionedLoader(Noisy(12), batch_size=4, seed=1, collate_fn=collate, num_workers=2)) == inside


def test_a_subset_is_seeded_sample_by_sample() -> None:
    """It has `__getitems__`, which reads many at once for data sets that can, and loops for others."""
    subset = Subset(Noisy(30), range(20))
    assert flat(PositionedLoader(subset, batch_size=3, seed=1)) == flat(PositionedLoader(subset, batch_size=5, seed=1))


def test_plain_torch_loads_the_same_batches() -> None:
    """Without shuffling and noise it is DataLoader, batch by batch."""
    data = torch.utils.data.TensorDataset(torch.arange(10), torch.arange(10) * 2)
    ours = [plain(batch) for batch in PositionedLoader(data, batch_size=4, seed=1, shuffle=False)]
    assert ours == [plain(batch) for batch in DataLoader(data, batch_size=4)]
