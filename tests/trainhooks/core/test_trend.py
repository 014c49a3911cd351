"""Where the loss goes."""

import math
import random

import pytest

from trainhooks.core.trend import Trend, trend


@pytest.mark.parametrize("seed", range(20))
def test_a_slope_in_noise_is_seen(seed: int) -> None:
    chance = random.Random(seed)
    falling = [2.0 - 0.005 * at + chance.gauss(0, 0.05) for at in range(100)]
    assert trend(falling) is Trend.IMPROVING
    assert trend(falling[::-1]) is Trend.WORSENING


def test_noise_alone_is_mostly_stable() -> None:
    chance = random.Random(0)
    seen = [trend([1.0 + chance.gauss(0, 0.1) for _ in range(100)]) for _ in range(200)]
    assert seen.count(Trend.STABLE) >= 180


def test_only_the_last_hundred_count() -> None:
    assert trend([100.0 - at for at in range(100)] + [1.0 + at / 10 for at in range(100)]) is Trend.WORSENING


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([], Trend.UNKNOWN),
        ([3.0] * 9, Trend.UNKNOWN),
        ([3.0] * 50, Trend.STABLE),
        ([3.0] * 50 + [math.nan], Trend.NOT_FINITE),
        ([math.inf], Trend.NOT_FINITE),
        ([math.nan] + [3.0 - at for at in range(50)], Trend.IMPROVING),
    ],
)
def test_edges(losses: list[float], expected: Trend) -> None:
    assert trend(losses) is expected
