"""What may be deleted."""

import math

from hypothesis import given
from hypothesis import strategies as st

from trainhooks.core.retention import PINNED, Best, Candidate, Mode, Retention, doomed


def candidate(serial: int, step: int | None = None, *, loss: float | None = None, tags: str = "") -> Candidate:
    metrics = {} if loss is None else {"loss": loss}
    return Candidate(
        serial=serial, step=serial * 10 if step is None else step, metrics=metrics, tags=frozenset(tags.split())
    )


candidates = st.lists(
    st.builds(
        candidate,
        st.integers(1, 40),
        st.integers(0, 60),
        loss=st.none() | st.floats(),
        tags=st.sampled_from(["", PINNED, "milestone", "other"]),
    ),
    unique_by=lambda each: each.serial,
    max_size=25,
)
rules = st.builds(
    Retention,
    keep_last=st.integers(2, 5),
    keep_best=st.none() | st.builds(Best, metric=st.just("loss"), count=st.integers(1, 3), mode=st.sampled_from(Mode)),
    keep_every_steps=st.none() | st.integers(1, 30),
    keep_tags=st.sampled_from([frozenset(), frozenset({"milestone"})]),
)


@given(candidates, rules)
def test_the_newest_two_steps_stay(found: list[Candidate], rules: Retention) -> None:
    gone = set(doomed(found, rules))
    newest_of_step = {each.step: each.serial for each in sorted(found, key=lambda each: each.serial)}
    assert not gone & set(sorted(newest_of_step.values())[-2:])


@given(candidates, rules)
def test_the_best_stays(found: list[Candidate], rules: Retention) -> None:
    if rules.keep_best is None:
        return
    values = [each.metrics["loss"] for each in found if not math.isnan(each.metrics.get("loss", math.nan))]
    if values:
        best = min(values) if rules.keep_best.mode is Mode.MIN else max(values)
        gone = set(doomed(found, rules))
        assert any(each.serial not in gone and each.metrics.get("loss") == best for each in found)


@given(candidates, rules)
def test_what_is_pinned_or_carries_a_kept_tag_stays(found: list[Candidate], rules: Retention) -> None:
    gone = set(doomed(found, rules))
    assert not any(each.serial in gone and each.tags & (rules.keep_tags | {PINNED}) for each in found)


@given(candidates, rules)
def test_what_stays_is_bounded_and_a_second_look_deletes_nothing(found: list[Candidate], rules: Retention) -> None:
    gone = doomed(found, rules)
    left = [each for each in found if each.serial not in gone]
    assert doomed(left, rules) == []
    best = 0 if rules.keep_best is None else rules.keep_best.count
    tagged = sum(bool(each.tags & (rules.keep_tags | {PINNED})) for each in found)
    marks = len({each.step for each in found if rules.keep_every_steps and each.step % rules.keep_every_steps == 0})
    assert len(left) <= rules.keep_last + best + tagged + marks


def test_rules_together() -> None:
    found = [
        candidate(1, loss=5.0),
        candidate(2, loss=1.0),
        candidate(3, loss=math.nan),
        candidate(4, tags=PINNED),
        candidate(5, loss=2.0),
        candidate(6),
        candidate(7, loss=9.0),
        candidate(8),
    ]
    rules = Retention(keep_last=2, keep_best=Best(metric="loss"), keep_every_steps=50)
    assert doomed(found, rules) == [1, 3, 6]


def test_of_a_step_that_was_saved_twice_the_newer_counts() -> None:
    found = [candidate(1, 10), candidate(2, 20), candidate(3, 30), candidate(4, 20)]
    assert doomed(found, Retention(keep_last=2)) == [1, 2]


def test_of_checkpoints_with_one_evaluation_the_first_is_the_evaluated_one() -> None:
    """Evaluated were steps 20, 50 and 80; the others carry what was measured last."""
    losses = [9.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0, 4.0, 4.0, 4.0]
    found = [candidate(serial, loss=loss) for serial, loss in enumerate(losses, 1)]
    left = {each.serial for each in found} - set(doomed(found, Retention(keep_best=Best(metric="loss", count=2))))
    assert left == {2, 5, 8, 9, 10}
    again = [*found, candidate(11, 20, loss=2.0)]
    assert 11 not in doomed(again, Retention(keep_best=Best(metric="loss")))
    assert 2 in doomed(again, Retention(keep_best=Best(metric="loss")))
