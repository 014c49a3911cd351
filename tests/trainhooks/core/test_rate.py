"""What a step takes now: R9's 10 % within 50 steps of a resume, in simulated trainings."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainhooks.core.rate import StepRate, typical


def rate_of(seconds: list[float]) -> float:
    rate, working = StepRate(), 0.0
    rate.tick(0, 0.0)
    for step, each in enumerate(seconds, 1):
        working += each
        rate.tick(step, working)
    found = rate.seconds_per_step()
    assert found is not None
    return found


@given(
    seed=st.integers(0, 2**32),
    usual=st.floats(1e-3, 60.0),
    noise=st.floats(0.0, 0.12),
    warm_up=st.integers(0, 20),
    slow=st.floats(1.0, 30.0),
    sleeps=st.lists(st.tuples(st.integers(0, 49), st.floats(10.0, 10_000.0)), max_size=2),
)
def test_within_ten_percent_by_fifty_steps(
    seed: int, usual: float, noise: float, warm_up: int, slow: float, sleeps: list[tuple[int, float]]
) -> None:
    """A slow start of up to 20 steps, up to two sleeps of the machine, noise of up to 12 %."""
    chance = random.Random(seed)
    steps = [usual * max(0.2, chance.gauss(1.0, noise)) for _ in range(50)]
    for at in range(warm_up):
        steps[at] *= slow
    for at, length in sleeps:
        steps[at] += usual * length
    assert rate_of(steps) == pytest.approx(usual, rel=0.10)


@pytest.mark.parametrize("period", [2, 4, 8, 16])
@pytest.mark.parametrize("factor", [2.0, 5.0, 20.0])
def test_what_comes_back_regularly_counts(period: int, factor: float) -> None:
    """The optimizer's step at the end of an accumulation window, say: the mean is the truth, not the median."""
    steps = [factor if at % period == 0 else 1.0 for at in range(160)]
    assert rate_of(steps) == pytest.approx(sum(steps) / len(steps), rel=0.10)


def test_one_sleep_does_not_count() -> None:
    assert typical([1.0] * 30 + [3_600.0] + [1.0] * 5) == 1.0


def test_a_new_pace_is_estimated_from_its_first_32_steps() -> None:
    assert typical([1.0] * 400 + [3.0] * 32) == pytest.approx(3.0)


def test_rows_of_every_tenth_step_give_the_time_of_one() -> None:
    rate = StepRate()
    for step in range(0, 200, 10):
        rate.tick(step + 1, step * 0.5)
    assert rate.seconds_per_step() == pytest.approx(0.5)


def test_a_second_row_of_a_step_changes_nothing() -> None:
    rate = StepRate()
    for step in range(1, 20):
        rate.tick(step, step * 1.0)
        rate.tick(step, step * 1.0 + 0.7)
    assert rate.seconds_per_step() == pytest.approx(1.0)


def test_unknown_before_the_second_step() -> None:
    rate = StepRate()
    assert rate.seconds_per_step() is None
    rate.tick(100_000, 5.0)
    assert rate.seconds_per_step() is None  # steps of earlier attempts are not ours
    rate.tick(100_001, 6.0)
    assert rate.seconds_per_step() == pytest.approx(1.0)
