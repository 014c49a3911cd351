"""Distances between windows of inputs: known values, and the laws that each of them keeps."""

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainhooks.core.distribution import (
    SHIFTED_PSI,
    jensen_shannon,
    kullback_leibler,
    length_bin,
    log_probability_bin,
    population_stability_index,
    token_bin,
)

COUNTS = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 10_000), min_size=1)


@given(COUNTS)
def test_a_distribution_has_no_distance_to_itself(counts: dict[str, int]) -> None:
    psi = population_stability_index(counts, counts)
    assert psi == 0 or (math.isnan(psi) and sum(counts.values()) < 64)  # too few to tell
    assert kullback_leibler(counts, counts) == 0
    assert jensen_shannon(counts, counts) == pytest.approx(0, abs=1e-12)


@given(COUNTS, COUNTS)
def test_laws(now: dict[str, int], first: dict[str, int]) -> None:
    psi = population_stability_index(now, first)
    assert psi == pytest.approx(population_stability_index(first, now), nan_ok=True)
    if not math.isnan(psi):  # the divergence of Jeffreys, less what chance gives
        assert 0 <= psi <= kullback_leibler(now, first) + kullback_leibler(first, now) + 1e-12
    assert kullback_leibler(now, first) >= -1e-12
    assert 0 <= jensen_shannon(now, first) <= 1
    assert jensen_shannon(now, first) == pytest.approx(jensen_shannon(first, now))


def test_known_values() -> None:
    assert jensen_shannon({"a": 5}, {"b": 9}) == 1
    # Shares 0.6/0.4 against 0.4/0.6, counts so large that half a count does not matter: 2 x 0.2 x ln 1.5.
    big = 10**9
    psi = population_stability_index({"a": 6 * big, "b": 4 * big}, {"a": 4 * big, "b": 6 * big})
    assert psi == pytest.approx(2 * 0.2 * math.log(1.5), rel=1e-6)
    # JS of (1, 0) and (1/2, 1/2) is h(3/4) - h(1/2)/2 = 0.31128 bits.
    assert jensen_shannon({"a": 8}, {"a": 4, "b": 4}) == pytest.approx(0.311278, rel=1e-5)


@given(COUNTS, COUNTS)
def test_a_bin_that_one_side_never_saw_is_finite(now: dict[str, int], first: dict[str, int]) -> None:
    many = {name: 10_000 + count for name, count in now.items()}
    assert math.isfinite(population_stability_index({**many, "new": 5}, {**first, "a": 90_000}))
    assert not math.isinf(population_stability_index({**now, "new": 5}, first))


def test_bins_grow_with_the_value() -> None:
    bins = [int(length_bin(length)) for length in range(5000)]
    assert bins == sorted(bins)
    assert len(set(bins)) < 60
    assert length_bin(0) == length_bin(-3) == "0"
    assert log_probability_bin(-1000.0) == log_probability_bin(-20.0) == log_probability_bin(float("-inf"))
    assert log_probability_bin(float("nan")) == "nan"
    assert log_probability_bin(-0.1) != log_probability_bin(-0.7)


def test_tokens_spread_over_all_buckets() -> None:
    found = {token_bin(token) for token in range(20_000)}
    assert len(found) == 512


@pytest.mark.parametrize("bins", [2, 20, 200])
@pytest.mark.parametrize("size", [40, 100, 400, 3_000])
def test_one_distribution_does_not_look_shifted(bins: int, size: int) -> None:
    rng = random.Random(bins * size)

    def window() -> dict[str, int]:
        return dict(Counter(str(min(bins - 1, int(rng.expovariate(4 / bins)))) for _ in range(size)))

    found = [population_stability_index(window(), window()) for _ in range(60)]
    told = [each for each in found if not math.isnan(each)]
    assert sum(each > SHIFTED_PSI for each in told) <= 3
    if size == 3_000 or bins == 2:
        assert told
    if size == 40 and bins > 2:
        assert not told, "too few to tell a shift from chance"


def test_a_real_shift_is_seen() -> None:
    before = {str(each): 100 for each in range(10)}
    after = {str(each): 10 + 100 * each for each in range(10)}
    assert population_stability_index(after, before) > SHIFTED_PSI
