"""The verdicts, from what was compared before the first step and from rows."""

import math
from typing import Any

import pytest

from trainhooks.core import certificate
from trainhooks.core.certificate import IDS, RANDOM, STATE, Verdict
from trainhooks.core.difference import Difference
from trainhooks.core.replay import Replay


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
    assert (verdict([row(3, loss=recorded)], [row(3, loss=replayed)])[0] is Verdict.AGREES) is is_same


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
    assert certificate.describe(kept) == "resumed at step 3: no difference found (1 of 2 recorded steps compared)"
    assert certificate.describe({**kept, "compared": ["loss"], "added_by_a_later_release": 1}).endswith(
        "(1 of 2 recorded steps compared, by loss alone)"
    )
    replay.observe(4, row(4, loss=0.25))
    line = (
        "resumed at step 3: same data, numerics differ, first at step 4: loss: was 0.5, is 0.25"
        " (2 of 2 recorded steps compared). With equal data, other kernels"
    )
    assert str(replay.certificate()).startswith(line)
    assert str(Replay([], 3).certificate()) == "resumed at step 3: nothing to compare"


def test_a_line_that_an_earlier_release_kept() -> None:
    kept = {"verdict": "diverged", "from_step": 3, "compared_steps": 1, "recorded_steps": 1, "first_step": 3}
    kept |= {"field": "batch", "compared": ["batch", "loss"]}
    line = "resumed at step 3: diverged, first at step 3: batch (1 of 1 recorded steps compared)"
    assert certificate.describe(kept) == line


def after_a_preemption(*facts: tuple[str, Difference | None]) -> Replay:
    replay = Replay([], 3)
    for fact, difference in facts:
        replay.check(fact, difference)
    return replay


def test_what_was_compared_is_named_where_no_step_was_recorded() -> None:
    replay = after_a_preemption((RANDOM, None), (STATE, None), (IDS, None))
    assert not replay.expects_rows
    line = "resumed at step 3: no difference found (state, batch ids, random numbers; no loss recorded)"
    assert str(replay.certificate()) == line
    assert certificate.describe(certificate.members(replay.certificate())) == line


def test_a_difference_before_the_first_step_says_both_values_and_what_to_do() -> None:
    replay = after_a_preemption((STATE, None), (IDS, Difference(what=IDS, before="3, 4", after="5, 6")))
    assert replay.has_diverged
    assert str(replay.certificate()) == (
        "resumed at step 3: diverged, first at step 3: batch ids: was 3, 4, is 5, 6 (state, batch ids)."
        " Stop before more is trained: the loader is not where the run was. Give the data, order and options of the"
        " run; trainhooks verify checks the checkpoint."
    )


@pytest.mark.parametrize(
    ("recorded", "said"),
    [
        ([row(3)], Verdict.AGREES),
        ([row(3), row(4)], Verdict.EXACT),
        ([row(3) | {"replay": {"batch": "b", "parameters": "p"}}], Verdict.EXACT),
        ([row(3, loss=None), row(4, loss=None)], Verdict.AGREES),
        ([], Verdict.AGREES),
    ],
)
def test_exact_needs_two_steps_or_one_with_the_parameters_after_it(recorded: list[Any], said: Verdict) -> None:
    replay = Replay(recorded, 3)
    replay.check(STATE, None)
    for each in recorded:
        replay.observe(each["step"], each)
    assert replay.certificate().verdict is said


def test_a_step_that_was_begun_and_not_finished_is_compared_by_its_batch() -> None:
    begun = {"kind": "begun", **row(3, random="r", loss=None)}
    replay = Replay([begun], 3)
    assert not replay.expects_rows
    replay.begins(3, row(3, random="r", loss=None))
    assert str(replay.certificate()).endswith("no difference found (batch, random numbers; no loss recorded)")
    replay.begins(3, row(3, random="r", batch="c", loss=None))
    assert replay.certificate().field == "batch"


@pytest.mark.parametrize(
    ("other", "field", "verdict"),
    [
        ({"learning_rate": 0.2}, "learning rate", Verdict.DIVERGED),
        ({"replay": {"batch": "b", "parameters": "q"}}, "parameters", Verdict.NUMERICS),
        ({"replay": {"batch": "b", "parameters": "p", "streams": {"more": "s"}}}, "other streams", Verdict.DIVERGED),
        ({"replay": {"batch": "b", "parameters": "q@4"}}, None, Verdict.EXACT),  # of another number of ranks
    ],
)
def test_what_may_differ_beside_the_loss(other: dict[str, Any], field: str | None, verdict: Verdict) -> None:
    recorded = row(3) | {"learning_rate": 0.1, "replay": {"batch": "b", "parameters": "p", "streams": {"more": "r"}}}
    replay = Replay([recorded], 3)
    replay.observe(3, recorded | other)
    found = replay.certificate()
    assert (found.field, found.verdict) == (field, verdict)
