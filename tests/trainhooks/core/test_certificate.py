"""The four verdicts, from rows alone."""

import math
from typing import Any

import pytest

from trainhooks.core import certificate
from trainhooks.core.certificate import Replay, Verdict


def row(step: int, *, batch: str | None = "b", random: str | None = None, loss: Any = 0.5) -> dict[str, Any]:
    digests = {name: each for name, each in (("batch", batch), ("random", random)) if each is not None}
    return {"step": step, **({"replay": digests} if digests else {}), **({} if loss is None else {"loss": loss})}


def verdict(recorded: list[dict[str, Any]], replayed: list[dict[str, Any]], from_step: int = 3) -> Any:
    replay = Replay(recorded, from_step)
    for each in replayed:
        replay.observe(each["step"], each)
    found = replay.certificate()
    return found.verdict, found.first_step, found.field


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, (Verdict.EXACT, None, None)),
        ({"loss": 0.5 + 2**-53}, (Verdict.NUMERICS, 4, "loss")),
        ({"random": "s"}, (Verdict.DIVERGED, 4, "random numbers")),
        ({"batch": "c"}, (Verdict.DIVERGED, 4, "batch")),
        ({"batch": "c", "random": "s", "loss": 0.25}, (Verdict.DIVERGED, 4, "batch")),
        ({"batch": None, "loss": 0.25}, (Verdict.DIVERGED, 4, "loss")),  # that the data is the same was not seen
    ],
)
def test_one_step_that_differs(changed: dict[str, Any], said: Any) -> None:
    recorded = [row(step, random="r") for step in range(6)]
    replayed = [row(step, **{"random": "r", **(changed if step == 4 else {})}) for step in range(3, 6)]
    assert verdict(recorded, replayed) == said


def test_the_first_difference_is_named_and_a_later_one_decides_what_it_was() -> None:
    replayed = [row(3, loss=0.25), row(4, batch="c")]
    assert verdict([row(3), row(4)], replayed) == (Verdict.DIVERGED, 3, "loss")


@pytest.mark.parametrize("replayed", [[], [row(6), row(7)], [{"step": 3, "replay": {"random": "r"}}]])
def test_nothing_to_compare(replayed: list[dict[str, Any]]) -> None:
    assert verdict([row(step) for step in range(6)], replayed) == (Verdict.NOTHING, None, None)


def test_rows_before_the_place_do_not_count() -> None:
    assert verdict([row(0), row(1), row(2)], [row(3)]) == (Verdict.NOTHING, None, None)


@pytest.mark.parametrize(
    ("recorded", "replayed", "is_same"),
    [
        ("NaN", math.nan, True),
        ("Infinity", math.inf, True),
        ("-Infinity", math.inf, False),
        (0.1 + 0.2, 0.3, False),
        (0.0, -0.0, False),
        (1, 1.0, True),
        ("NaN", 0.5, False),
    ],
)
def test_losses_are_compared_bit_by_bit(recorded: Any, replayed: Any, is_same: bool) -> None:
    assert (verdict([row(3, loss=recorded)], [row(3, loss=replayed)])[0] is Verdict.EXACT) is is_same


def test_it_is_over_once_a_later_step_comes_or_all_is_lost() -> None:
    recorded = [row(3), row(4)]
    replay = Replay(recorded, 3)
    replay.observe(3, row(3))
    replay.observe(4, row(4, loss=None))
    assert not replay.is_over, "the rest of the last step may still come"
    replay.observe(4, {"step": 4, "loss": 0.25})
    assert not replay.is_over
    replay.observe(5, row(5))
    assert replay.is_over
    assert replay.certificate().verdict is Verdict.NUMERICS
    lost = Replay(recorded, 3)
    lost.observe(3, row(3, batch="c"))
    assert lost.is_over


def test_the_line_and_what_session_json_keeps_of_it() -> None:
    replay = Replay([row(3), row(4)], 3)
    replay.observe(3, row(3))
    kept = certificate.members(replay.certificate())
    assert certificate.told(kept) == "resumed at step 3: exact (1 of 2 recorded steps compared)"
    assert certificate.told({**kept, "compared": ["loss"], "added_by_a_later_release": 1}).endswith(
        "(1 of 2 recorded steps compared, by loss alone)"
    )
    replay.observe(4, row(4, loss=0.25))
    line = "resumed at step 3: same data, numerics differ, first at step 4: loss (2 of 2 recorded steps compared)"
    assert str(replay.certificate()) == line
    assert str(Replay([], 3).certificate()) == "resumed at step 3: nothing to compare"
