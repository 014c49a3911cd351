"""When a checkpoint is due, on a clock that the test moves."""

import pytest

from trainhooks.core.cadence import Cadence
from trainhooks.core.policy import CheckpointPolicy
from trainhooks.errors import ConfigInvalid


class Training:
    """Steps of a given length, and saves that cost what the test says."""

    def __init__(self, cadence: Cadence) -> None:
        self.cadence = cadence
        self.now = 0.0
        self.worked = 0.0
        self.step = 0
        self.saves: list[int] = []

    def run(self, steps: int, *, step_seconds: float, blocked: float = 0.0, slower: float = 0.0) -> None:
        """`slower`: seconds that each of the ten steps after a save takes longer."""
        for _ in range(steps):
            after = self.step - self.saves[-1] if self.saves else 10
            seconds = step_seconds + (slower if after < 10 else 0.0)
            self.now += seconds
            self.worked += seconds
            self.step += 1
            self.cadence.step_done(self.worked)
            if self.cadence.is_due(self.step, self.now):
                self.saves.append(self.step)
                self.now += blocked
                self.cadence.saved(self.now, blocked_seconds=blocked)


def cadence(
    *, every_steps: int | None = None, every_seconds: float | None = None, max_overhead: float | None = 0.05
) -> Cadence:
    return Cadence(every_steps=every_steps, every_seconds=every_seconds, max_overhead=max_overhead, now=0.0)


def test_every_n_steps() -> None:
    training = Training(cadence(every_steps=7))
    training.run(30, step_seconds=1.0)
    assert training.saves == [7, 14, 21, 28]


def test_every_s_seconds() -> None:
    training = Training(cadence(every_seconds=10.0))
    training.run(35, step_seconds=1.0)
    assert training.saves == [10, 20, 30]


def test_either_of_both() -> None:
    training = Training(cadence(every_steps=25, every_seconds=10.0))
    training.run(30, step_seconds=1.0)
    assert training.saves == [10, 20, 25]


def test_cheap_saves_are_not_stretched() -> None:
    training = Training(cadence(every_steps=20))
    training.run(100, step_seconds=1.0, blocked=0.2, slower=0.05)
    assert training.saves == [20, 40, 60, 80, 100]


def test_saves_that_cost_too_much_become_rarer() -> None:
    """Ten steps of 0.3 s more and 1 s of standing still are 4 s: at 5 % one save in 80 s."""
    training = Training(cadence(every_steps=20))
    training.run(400, step_seconds=1.0, blocked=1.0, slower=0.3)
    gaps = [after - before for before, after in zip(training.saves, training.saves[1:], strict=False)]
    assert all(70 <= gap <= 85 for gap in gaps), training.saves
    assert training.cadence.stretch_seconds == pytest.approx(78, abs=3)


def test_once_saves_are_cheap_again_they_come_as_often_as_asked_for() -> None:
    training = Training(cadence(every_steps=20))
    training.run(200, step_seconds=1.0, blocked=1.0, slower=0.3)
    training.run(200, step_seconds=1.0)
    assert training.saves[-3:] == [360, 380, 400]


def test_no_bound_no_stretch() -> None:
    training = Training(cadence(every_steps=20, max_overhead=None))
    training.run(100, step_seconds=1.0, blocked=100.0, slower=9.0)
    assert training.saves == [20, 40, 60, 80, 100]


def test_a_due_save_stays_due_until_it_is_taken() -> None:
    one = cadence(every_steps=5)
    assert one.is_due(5, 5.0)
    assert one.is_due(6, 6.0)
    one.saved(6.0, blocked_seconds=0.0)
    assert not one.is_due(7, 7.0)


def test_a_policy_names_all_that_is_wrong_with_it() -> None:
    with pytest.raises(ConfigInvalid, match=r"every_steps.*keep_last.*keep_best"):
        CheckpointPolicy(every_steps=0, keep_last=1, keep_best="loss")  # type: ignore[arg-type]
