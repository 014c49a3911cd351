"""Where seconds go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainhooks.core.timing import WORK, Phase, Stopwatch, total


def test_phases_are_disjoint_and_the_innermost_counts() -> None:
    watch = Stopwatch(0.0)
    watch.enter(Phase.EVALUATION, 10.0)
    watch.enter(Phase.PAUSED, 13.0)
    watch.leave(Phase.PAUSED, 20.0)
    watch.leave(Phase.EVALUATION, 21.0)
    assert watch.seconds(25.0) == {
        Phase.ACTIVE: 14.0,
        Phase.EVALUATION: 4.0,
        Phase.PAUSED: 7.0,
        Phase.REPLAYED: 0.0,
        Phase.CHECKPOINT: 0.0,
    }
    assert watch.working(25.0) == 14.0


def test_a_pause_outlives_what_it_began_in() -> None:
    watch = Stopwatch(0.0)
    watch.enter(Phase.CHECKPOINT, 1.0)
    watch.enter(Phase.PAUSED, 2.0)
    watch.leave(Phase.CHECKPOINT, 3.0)
    assert watch.phase is Phase.PAUSED
    watch.leave(Phase.PAUSED, 5.0)
    assert watch.phase is Phase.ACTIVE
    assert watch.seconds(5.0)[Phase.PAUSED] == 3.0


def test_what_was_ended_before_is_ended_once() -> None:
    watch = Stopwatch(0.0)
    watch.enter(Phase.PAUSED, 1.0)
    watch.leave(Phase.PAUSED, 3.0)
    watch.leave(Phase.PAUSED, 4.0)
    assert watch.seconds(5.0)[Phase.PAUSED] == 2.0
    assert watch.phase is Phase.ACTIVE


def test_replayed_steps_are_work_and_not_active() -> None:
    watch = Stopwatch(0.0)
    watch.work_as(Phase.REPLAYED, 1.0)
    watch.work_as(Phase.ACTIVE, 4.0)
    assert watch.seconds(6.0)[Phase.REPLAYED] == 3.0
    assert watch.seconds(6.0)[Phase.ACTIVE] == 3.0
    assert watch.working(6.0) == 6.0


@given(
    moves=st.lists(
        st.tuples(st.sampled_from(["enter", "leave", "work"]), st.sampled_from(list(Phase)), st.integers(0, 9)),
        max_size=30,
    )
)
def test_seconds_add_up_to_the_wall_clock(moves: list[tuple[str, Phase, int]]) -> None:
    watch, now, entered = Stopwatch(0.0), 0, []
    for move, phase, after in moves:
        now += after
        if move == "enter" and phase not in WORK:
            watch.enter(phase, now)
            entered.append(phase)
        elif move == "leave" and phase in entered:
            watch.leave(phase, now)
            entered.reverse()
            entered.remove(phase)
            entered.reverse()
        elif move == "work" and phase in WORK:
            watch.work_as(phase, now)
        assert total({each.value: seconds for each, seconds in watch.seconds(now).items()}) == pytest.approx(now)


def test_a_clock_that_goes_back_takes_nothing_away() -> None:
    watch = Stopwatch(10.0)
    watch.enter(Phase.PAUSED, 9.0)
    assert watch.seconds(9.5)[Phase.ACTIVE] == 0.0
    assert watch.seconds(9.5)[Phase.PAUSED] == 0.0
