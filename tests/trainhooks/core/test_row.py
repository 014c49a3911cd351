"""One line of metrics.jsonl, and which rows count after any number of rewinds."""

import math
from itertools import groupby
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trainhooks.core import row as rows

HEAD = {"v": 1, "seq": 0, "attempt": 1, "step": 3, "at": 1.5}


def test_a_row_comes_back_as_it_was() -> None:
    members = {
        **HEAD,
        "loss": 0.1,
        "parts": {"ce": 1e-300, "n": 2**80},
        "ids": [1, 2],
        "note": "\ud800 ünï",
        "none": None,
    }
    line = rows.encode(members)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert rows.decode(line) == members


@given(value=st.floats())
def test_every_float_comes_back_bit_for_bit(value: float) -> None:
    members = rows.decode(rows.encode({**HEAD, "loss": value, "parts": {"ce": [value]}}))
    assert members is not None
    for back in (rows.revive(members)["loss"], rows.revive(members)["parts"]["ce"][0]):
        assert (
            math.isnan(back)
            if math.isnan(value)
            else (back == value and math.copysign(1, back) == math.copysign(1, value))
        )


def test_numbers_that_json_lacks_are_written_as_their_names() -> None:
    line = rows.encode({**HEAD, "loss": math.nan, "a": math.inf, "b": -math.inf})
    assert b'"loss":"NaN","a":"Infinity","b":"-Infinity"' in line


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"nul\x00",
        b'{"v":2,"seq":0,"attempt":1}',
        b'{"v":1,"attempt":1}',
        b'{"v":1,"seq":"0","attempt":1}',
    ],
)
def test_what_is_no_line_is_none(line: bytes) -> None:
    assert rows.decode(line) is None


def row(attempt: int, step: int, **members: Any) -> dict[str, Any]:
    return {"attempt": attempt, "step": step, **members}


def begins(attempt: int, from_step: int | None) -> dict[str, Any]:
    return {"attempt": attempt, "kind": rows.ATTEMPT, "from_step": from_step}


PIECES = [
    b'{"v":1,"seq":0,"attempt":1,"step":3,"loss":0.5}',
    b'{"v":1,"seq":1,"attempt":1,"ids":[1,{"a":2}]}',
    b'{"v":1,"seq":2,"attempt":1,"ids":[1',
    b'{"v":1,"seq":3,"attempt":1,"ids":{"a":1}',
    b'{"v":2,"seq":4,"attempt":1}',
    b'{"v":1,"seq":true,"attempt":1}',
    b'{"v":1,"seq":"5","attempt":1}',
    b'{"v":1,"seq":6}',
    b'{"v":1,"seq":7,"attempt":1,"loss":NaN,"n":1180591620717411303424}',
    b'{"v":1,"seq":8,"attempt":1},{"v":1,"seq":9,"attempt":1}',
    b'{"v":1,"seq":8,"attempt":1,"text":"a\\nb"}\r',
    b"2]}",
    b"]",
    b"[1]",
    b"{}",
    b"null",
    b"",
    b"\x00\x00",
    b" {}",
]


@example([PIECES[2], b"2]}", PIECES[9]])
@given(st.lists(st.one_of(st.just(PIECES[0]), st.sampled_from(PIECES)), max_size=8))
def test_many_lines_at_once_are_decoded_as_each_alone(lines: list[bytes]) -> None:
    expected = [members for line in lines if (members := rows.decode(line)) is not None]
    assert repr(rows.decode_block(b"".join(line + b"\n" for line in lines))) == repr(expected)


def test_undamaged_lines_are_decoded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    block = b"".join(rows.encode({**HEAD, "seq": at, "loss": 0.5}) for at in range(50))
    expected = [rows.decode(line) for line in block.splitlines()]
    monkeypatch.setattr(rows, "decode", None)
    assert rows.decode_block(block) == expected


STEPS = st.one_of(st.integers(0, 6), st.sampled_from([None, True, "3", 2.0, ...]))


@st.composite
def written(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Lines of attempts that mostly follow each other, with odd steps and events among them."""
    lines: list[dict[str, Any]] = []
    start = draw(st.integers(0, 2))
    for attempt in draw(st.one_of(st.just([1, 2, 3]), st.lists(st.integers(1, 3), max_size=4))):
        if draw(st.booleans()):
            begins = {
                "kind": draw(st.sampled_from(["attempt", "x"])),
                "from_step": draw(st.sampled_from([None, start])),
            }
            lines.append({"attempt": attempt, **begins})
        start += draw(st.integers(0, 1))
        steps = [*range(start, start + draw(st.integers(0, 4))), *draw(st.lists(STEPS, max_size=2))]
        start = draw(st.integers(0, start + 4))
        lines += [{"attempt": attempt} if step is ... else {"attempt": attempt, "step": step} for step in steps]
    return [{**line, "seq": at} for at, line in enumerate(lines)]


def resumed(first: list[int], at: int, second: list[int]) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = [{"attempt": 1, "kind": "attempt", "from_step": first[0]}]
    lines += [{"attempt": 1, "step": step} for step in first]
    lines.append({"attempt": 2, "kind": "attempt", "from_step": at})
    lines += [{"attempt": 2, "step": step} for step in second]
    return [{**line, "seq": number} for number, line in enumerate(lines)]


@example(resumed([1, 2, 3], 3, [4, 5]), 6)  # counted from 1 on: row 3 stays
@example(resumed([0, 1, 2], 2, [3, 4]), 6)  # from 0 on: row 2 does not
@given(written(), st.integers(1, 6))
def test_rows_taken_together_settle_as_each_alone(lines: list[dict[str, Any]], at_once: int) -> None:
    settled, kept = rows.NumberedRows(), []
    for is_event, group in groupby(lines, key=lambda line: "kind" in line):
        several = list(group)
        while several:
            if is_event:
                settled.add(len(kept), several.pop(0))
                continue
            settled.add_rows(len(kept), several[:at_once])
            kept += several[:at_once]
            del several[:at_once]
    made = []
    for number in settled.first():
        made.append(dict(kept[number]))
        for more in settled.further.get(number, ()):
            made[-1] |= kept[more]
    assert made == list(rows.settle(lines))


def test_a_resume_supersedes_even_steps_that_are_not_done_again_yet() -> None:
    lines = [begins(1, 0), *(row(1, step) for step in range(10)), begins(2, 4)]
    assert [each["step"] for each in rows.settle(lines)] == [0, 1, 2, 3]


def test_without_a_declaration_the_first_row_says_where_an_attempt_continues() -> None:
    lines = [begins(1, None), *(row(1, step) for step in range(10)), begins(2, None), row(2, 6)]
    assert [(each["step"], each["attempt"]) for each in rows.settle(lines)] == [*((at, 1) for at in range(6)), (6, 2)]


def test_an_attempt_that_records_nothing_supersedes_nothing() -> None:
    lines = [row(1, 0), row(1, 1), begins(2, None)]
    assert [each["step"] for each in rows.settle(lines)] == [0, 1]


def test_rows_of_one_step_are_one_row() -> None:
    lines = [row(1, 5, loss=2.0, lr=0.1), row(1, 5, loss=1.0, val_loss=3.0)]
    assert list(rows.settle(lines)) == [row(1, 5, loss=1.0, lr=0.1, val_loss=3.0)]


def test_nothing_of_a_superseded_row_stays() -> None:
    lines = [row(1, 5, loss=2.0, only_then=1.0), begins(2, 5), row(2, 5, loss=1.0)]
    assert list(rows.settle(lines)) == [row(2, 5, loss=1.0)]


def test_a_process_that_was_followed_writes_nothing_that_counts() -> None:
    lines = [row(1, 0), begins(2, 1), row(2, 1, loss=2.0), row(1, 1, loss=9.0), row(1, 2, loss=9.0)]
    assert list(rows.settle(lines)) == [row(1, 0), row(2, 1, loss=2.0)]


@given(data=st.data(), says_so=st.lists(st.booleans(), min_size=4, max_size=4), every=st.integers(1, 4))
def test_three_random_rewinds_leave_one_row_a_step(data: st.DataObject, says_so: list[bool], every: int) -> None:
    """Against the training itself: what its last, unbroken line of steps measured."""
    lines: list[dict[str, Any]] = []
    truth: dict[int, float] = {}
    reached = 0
    for attempt in range(1, 5):
        start = data.draw(st.integers(0, reached)) if attempt > 1 else 0
        stop = data.draw(st.integers(start, start + 30))
        recorded = [step for step in range(start, stop) if step % every == 0]
        if says_so[attempt - 1] or (recorded and recorded[0] != start):
            lines.append(begins(attempt, start))
        else:
            lines.append(begins(attempt, None))
            if not recorded:
                continue
        truth = {step: loss for step, loss in truth.items() if step < start}
        for step in recorded:
            loss = data.draw(st.floats(0, 10))
            lines.append(row(attempt, step, loss=loss))
            truth[step] = loss
        reached = max(reached, stop)
    found = list(rows.settle(lines))
    assert [each["step"] for each in found] == sorted(truth)
    assert {each["step"]: each["loss"] for each in found} == truth
