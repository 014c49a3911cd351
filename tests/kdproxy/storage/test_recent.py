"""Answers in memory: bounded, and never older than what was withdrawn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdproxy.core.models import Answer, Form
from kdproxy.storage.recent import _ENTRY_OVERHEAD_BYTES, RecentAnswers


def answer(size: int, text: bytes = b"x") -> Answer:
    return Answer(status=200, headers=(), body=text * size, form=Form.JSON)


def put(recent: RecentAnswers, name: str, found: Answer) -> None:
    recent.put(name, found, epoch=recent.epoch)


def test_the_least_recently_used_goes_first() -> None:
    recent = RecentAnswers(10 * (100 + _ENTRY_OVERHEAD_BYTES))
    for number in range(10):
        put(recent, str(number), answer(100))
    assert recent.get("0") is not None
    put(recent, "10", answer(100))
    assert [number for number in range(11) if recent.get(str(number)) is None] == [1]


def test_one_answer_may_not_fill_the_memory() -> None:
    recent = RecentAnswers(10_000)
    put(recent, "a", answer(10_000))
    assert recent.get("a") is None
    put(RecentAnswers(0), "a", answer(0))


@pytest.mark.parametrize("withdraw", ["drop", "drop_all"])
def test_what_was_looked_up_before_a_withdrawal_is_not_remembered(withdraw: str) -> None:
    """The reader was slower than the writer: its answer may be the withdrawn one."""
    recent = RecentAnswers(1 << 20)
    epoch = recent.epoch
    if withdraw == "drop":
        recent.drop(["a"])
    else:
        recent.drop_all()
    recent.put("a", answer(1), epoch=epoch)
    assert recent.get("a") is None
    put(recent, "a", answer(1))
    assert recent.get("a") is not None


SIZES = st.integers(0, 3_000)
STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "get", "drop", "drop_all"]), st.sampled_from("abcdef"), SIZES), max_size=60
)


@given(STEPS)
def test_the_bound_holds_and_answers_are_the_last_put(steps: list[tuple[str, str, int]]) -> None:
    limit = 8_000
    recent = RecentAnswers(limit)
    last: dict[str, Answer | None] = {}
    for step, name, size in steps:
        match step:
            case "put":
                last[name] = answer(size, name.encode())
                put(recent, name, answer(size, name.encode()))
            case "get":
                assert recent.get(name) in (None, last.get(name))
            case "drop":
                recent.drop([name])
                assert recent.get(name) is None
            case _:
                recent.drop_all()
                assert recent.get(name) is None
        held = [found for found in map(recent.get, "abcdef") if found is not None]
        assert sum(len(found.body) + _ENTRY_OVERHEAD_BYTES for found in held) <= limit
        assert recent._bytes == sum(len(found.body) + _ENTRY_OVERHEAD_BYTES for found in held)
