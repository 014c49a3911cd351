"""ETA, throughput and time, in a simulated training of two attempts."""

import random

import pytest

from trainhooks.core.progress import Progress
from trainhooks.core.timing import Phase, Stopwatch


class Simulation:
    """A training whose clock is a number."""

    def __init__(self, *, total: int, seed: int = 0) -> None:
        self.now, self.total, self.chance = 1_000.0, total, random.Random(seed)
        self.begin(Progress(total_steps=total))

    def begin(self, progress: Progress) -> None:
        self.progress = progress
        self.watch = Stopwatch(self.now)

    def run(
        self, steps: range, *, usual: float, warm_up: int = 0, slow: float = 1.0, sleep_at: int | None = None
    ) -> None:
        for step in steps:
            self.now += usual * self.chance.gauss(1.0, 0.1) * (slow if step < steps.start + warm_up else 1.0)
            if step == sleep_at:
                self.now += 5_000.0
            self.progress.tick(step + 1, self.watch.working(self.now))
            self.progress.row(
                step, {"loss": 1 / (step + 1), "samples_processed": step * 8, "tokens_processed": step * 800}
            )

    def spend(self, phase: Phase, seconds: float) -> None:
        self.watch.enter(phase, self.now)
        self.now += seconds
        self.watch.leave(phase, self.now)


@pytest.mark.parametrize("seed", range(20))
def test_eta_is_right_fifty_steps_after_a_resume(seed: int) -> None:
    """After a slow start, a pause, an evaluation and a sleep, and an earlier attempt on a machine half as fast."""
    it = Simulation(total=10_000, seed=seed)
    it.run(range(3_000), usual=4.0)
    earlier = {phase.value: seconds for phase, seconds in it.watch.seconds(it.now).items()}
    it.begin(Progress(total_steps=10_000, attempt=2, step=2_800, earlier_seconds=earlier))
    it.run(range(2_800, 2_830), usual=2.0, warm_up=18, slow=10.0, sleep_at=2_825)
    it.spend(Phase.PAUSED, 4_000.0)
    it.run(range(2_830, 2_850), usual=2.0)
    summary = it.progress.summary(it.watch.seconds(it.now))
    assert summary.step == 2_850
    assert summary.step_seconds == pytest.approx(2.0, rel=0.1)
    assert summary.eta_seconds == pytest.approx((10_000 - 2_850) * 2.0, rel=0.1)
    assert summary.samples_per_second == pytest.approx(8 / 2.0, rel=0.1)  # never the earlier attempt's steps
    assert summary.tokens_per_second == pytest.approx(800 / 2.0, rel=0.1)


def test_an_integer_beyond_every_float_is_infinite() -> None:
    progress = Progress(total_steps=3)
    progress.row(0, {"loss": 10**400, "samples_processed": 10**400})
    assert progress.summary(dict.fromkeys(Phase, 0.0)).loss == float("inf")


def test_eta_has_checkpoints_and_evaluations_at_their_share() -> None:
    it = Simulation(total=2_000)
    for start in range(0, 1_000, 100):
        it.run(range(start, start + 100), usual=1.0)
        it.spend(Phase.CHECKPOINT, 10.0)
        it.spend(Phase.EVALUATION, 15.0)
    begun = it.now
    eta = it.progress.summary(it.watch.seconds(it.now)).eta_seconds
    for start in range(1_000, 2_000, 100):
        it.run(range(start, start + 100), usual=1.0)
        it.spend(Phase.CHECKPOINT, 10.0)
        it.spend(Phase.EVALUATION, 15.0)
    assert eta == pytest.approx(it.now - begun, rel=0.05)
    assert it.progress.summary(it.watch.seconds(it.now)).eta_seconds == 0.0


def test_seconds_of_all_attempts_are_added_and_pauses_are_no_wall_clock() -> None:
    it = Simulation(total=100)
    it.begin(Progress(total_steps=100, earlier_seconds={"active": 50.0, "paused": 1_000.0}))
    it.now += 5.0
    it.spend(Phase.PAUSED, 70.0)
    summary = it.progress.summary(it.watch.seconds(it.now))
    assert summary.seconds["active"] == pytest.approx(55.0)
    assert summary.seconds["paused"] == pytest.approx(1_070.0)
    assert summary.wall_seconds == pytest.approx(55.0)
    assert summary.attempt_seconds["active"] == pytest.approx(5.0)


def test_nothing_is_known_before_anything_happened() -> None:
    summary = Progress(total_steps=10).summary(Stopwatch(0.0).seconds(0.0))
    assert (summary.loss, summary.step_seconds, summary.eta_seconds, summary.samples_per_second) == (None,) * 4
    assert summary.percent == 0.0


def test_a_counter_that_begins_anew_gives_no_negative_throughput() -> None:
    it = Simulation(total=100)
    it.run(range(20), usual=1.0)
    for step in range(20, 30):
        it.now += 1.0
        it.progress.tick(step + 1, it.watch.working(it.now))
        it.progress.row(step, {"samples_processed": (step - 20) * 8})
    summary = it.progress.summary(it.watch.seconds(it.now))
    assert summary.samples_per_second == pytest.approx(8.0, rel=0.1)
