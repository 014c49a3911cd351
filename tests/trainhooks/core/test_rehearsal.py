"""What the records of a killed run and of one without a kill come to."""

from typing import Any

import pytest

from trainhooks.core import rehearsal
from trainhooks.core.rehearsal import Plan, Result, judge


def line(attempt: int, step: int, *, loss: float | None = None, batch: str = "", **digests: str) -> dict[str, Any]:
    told = {"batch": batch or f"b{step}", **digests}
    return {"attempt": attempt, "step": step, "loss": step / 8 if loss is None else loss, "replay": told}


KILLED = [line(1, step, random="one start") for step in range(5)]
RESUMED = [line(2, 3, random="one start"), *(line(2, step) for step in range(4, 8))]
WHOLE = [line(1, step, random="another start") for step in range(8)]


def test_exact_over_all_steps_after_the_resume() -> None:
    """The generators of two starts differ where a script seeds only those that it uses."""
    outcome = judge([*KILLED, *RESUMED], WHOLE)
    assert (outcome.result, outcome.first, outcome.last, outcome.note) == (Result.EXACT, 3, 7, "")
    assert str(outcome) == "rehearsal: exact (steps 3 to 7 after the resume: batch, random numbers, loss)"


@pytest.mark.parametrize(
    ("changed", "step", "said"),
    [
        (line(2, 3, loss=0.5), 3, "loss: was 0.375, is 0.5"),
        (line(2, 4, batch="x"), 4, "the batch's content (digest): was b4, is x"),
        (line(2, 3, random="r"), 3, "the random numbers before the step (digest): was one start, is r"),
        (line(2, 6, loss=0.5), 6, "loss: was 0.75, is 0.5"),  # the killed process did not get there
    ],
)
def test_the_first_difference_is_named(changed: dict[str, Any], step: int, said: str) -> None:
    resumed = [changed if row["step"] == changed["step"] else row for row in RESUMED]
    outcome = judge([*KILLED, *resumed], WHOLE)
    assert (outcome.result, outcome.step, outcome.difference) == (Result.DIFFERS, step, said)


def test_two_starts_that_differ_by_themselves_prove_nothing_about_the_resume() -> None:
    unseeded = [line(1, step, loss=9.0) for step in range(8)]
    outcome = judge([*KILLED, *RESUMED], unseeded)
    assert (outcome.result, outcome.first, outcome.last) == (Result.EXACT, 3, 4)
    assert outcome.note.startswith("Two starts of the command differ at step 0 (loss: was 0.0, is 9.0)")
    outcome = judge([*KILLED, *RESUMED[2:]], unseeded)
    assert (outcome.result, outcome.why) == (Result.UNKNOWN, "there is no step that both have")


def test_what_the_resumed_attempt_says_of_itself_counts() -> None:
    """A difference on another rank stands in no row."""
    said = {"verdict": "diverged", "first_step": 3, "difference": "batch ids (rank 1): was 4, is 8"}
    assert judge([*KILLED, *RESUMED], WHOLE, said).difference == "batch ids (rank 1): was 4, is 8"


def test_without_a_resumed_step_or_a_result_nothing_is_reported() -> None:
    assert judge(KILLED, WHOLE).result is Result.UNKNOWN
    bare = [{"attempt": attempt, "step": 3, "replay": {"batch": "b"}} for attempt in (1, 2)]
    assert judge(bare, []).why == "neither a loss nor parameters were recorded in a step that both have"


def test_a_plan_survives_its_text_and_another_version_is_refused() -> None:
    plan = Plan(directory="/somewhere", steps=8, save_at=3, kill_at=5)
    assert rehearsal.decode(plan.encode()) == plan
    for text in ("{}", "[]", "no JSON", '{"v": 2}', '{"v": 1, "directory": "x"}', '{"v": 1, "other": 1}'):
        with pytest.raises(ValueError, match=r"."):
            rehearsal.decode(text)
