"""What is told of samples and their keys comes back exactly, at any order of steps; what is lost becomes unknown."""

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from trainhooks.core import row as rows
from trainhooks.core.lineage import LINEAGE, LineageEncoder, StepLineage, resolved
from trainhooks.core.origin import Keys, Origin

A, B = (("a" * 64, 0),), (("b" * 64, None), ("c" * 64, 1))


def line(seq: int, step: int, told: Any, attempt: int = 1) -> dict[str, Any]:
    members: dict[str, Any] = {"v": 1, "seq": seq, "attempt": attempt, "step": step, LINEAGE: told}
    decoded: dict[str, Any] = orjson.loads(rows.encode(members))
    return decoded


def origin(*samples: tuple[int, Keys], worker: int | None = None) -> Origin:
    return Origin(epoch=0, ids=tuple(one for one, _ in samples), keys=tuple(keys for _, keys in samples), worker=worker)


def keys_of(lines: list[dict[str, Any]]) -> list[Any]:
    return [found[LINEAGE].keys for found in resolved(lines)]


def test_each_key_is_written_once() -> None:
    encoder = LineageEncoder()
    told = [
        encoder.members(origin((1, A), (2, B))),
        encoder.members(origin((2, B), (3, ()))),
        encoder.members(origin((1, A))),
    ]
    assert [each["keys"] for each in told] == [{"1": A, "2": B}, {}, {}]
    assert keys_of([line(number, number, each) for number, each in enumerate(told)]) == [(A, B), (B, ()), (A,)]


SAMPLES = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from([(), A, B])), min_size=1, max_size=3, unique_by=lambda s: s[0]
)
BATCHES = st.tuples(SAMPLES, st.sampled_from([None, 0, 1]))


@given(st.lists(BATCHES, max_size=12))
def test_what_was_written_is_read(batches: list[Any]) -> None:
    """Keys may change from one time to the next, or be no longer known; workers have streams of their own."""
    encoder, lines = LineageEncoder(), []
    for number, (samples, worker) in enumerate(batches):
        lines.append(line(number, number, encoder.members(origin(*samples, worker=worker))))
    expected = [tuple(keys for _, keys in samples) for samples, _ in batches]
    assert keys_of(lines) == [each if any(each) else None for each in expected]


@given(st.lists(BATCHES, min_size=3, max_size=12), st.data())
def test_a_lost_line_makes_unknown_and_never_wrong(batches: list[Any], data: st.DataObject) -> None:
    encoder, lines = LineageEncoder(), []
    for number, (samples, worker) in enumerate(batches):
        lines.append(line(number, number, encoder.members(origin(*samples, worker=worker))))
    lost = data.draw(st.integers(0, len(lines) - 2))
    for found in resolved(lines[:lost] + lines[lost + 1 :]):
        true = [keys for _, keys in batches[found["step"]][0]]
        read = found[LINEAGE].keys or ((),) * len(true)
        assert all(each in ((), keys) for each, keys in zip(read, true, strict=True))
        if found["step"] < lost:
            assert list(read) == true


def test_a_row_may_rest_on_one_that_is_superseded() -> None:
    """A loop that goes back by itself, in one attempt: the rows done again do not repeat the keys."""
    encoder = LineageEncoder()
    steps = [(0, A), (1, B), (2, A)]
    lines = [line(number, step, encoder.members(origin((step, keys)))) for number, (step, keys) in enumerate(steps)]
    lines.append({"v": 1, "seq": 3, "attempt": 1, "kind": rows.ATTEMPT, "from_step": 1})
    lines.append(line(4, 1, encoder.members(origin((2, A)))))
    assert [(row["step"], row[LINEAGE].keys) for row in rows.settle(resolved(lines))] == [(0, (A,)), (1, (A,))]


def test_another_attempt_knows_nothing_of_the_first() -> None:
    """Its data may be other data."""
    lines = [
        line(0, 0, LineageEncoder().members(origin((1, A)))),
        line(1, 1, LineageEncoder().members(origin((1, ()))), attempt=2),
    ]
    assert keys_of(lines) == [(A,), None]


def test_unknown_is_written_as_such() -> None:
    encoder = LineageEncoder()
    assert encoder.members(Origin()) == {"ids": "unknown", "keys": "unknown"}
    assert encoder.members(Origin(epoch=1, ids=(1,))) == {"epoch": 1, "ids": (1,), "keys": "unknown"}
    told = encoder.members(Origin(keys=(A, ())))
    assert told == {"ids": "unknown", "keys": [A, "unknown"]}
    lines = [line(0, 0, encoder.members(Origin())), line(1, 1, told), line(2, 2, {"ids": [1], "keys": "unknown"})]
    found = [each[LINEAGE] for each in resolved(lines)]
    assert found == [StepLineage(step=0), StepLineage(step=1, keys=(A, ())), StepLineage(step=2, ids=(1,))]
    assert [each.answers for each in found] == [(), A, ()]


def test_what_the_loop_asked_is_kept_apart_and_an_answer_counts_once() -> None:
    [found] = resolved([line(0, 0, {"ids": [1, 2], "keys": {"1": A, "2": A}, "asked": [A[0], B[1]], "ranks": 2})])
    assert (found[LINEAGE].asked, found[LINEAGE].ranks) == ((A[0], B[1]), 2)
    assert found[LINEAGE].answers == (A[0], B[1])
