"""What a log's calls come to, against a small model; whatever is read twice counts once."""

import orjson
from hypothesis import given
from hypothesis import strategies as st

from kdproxy.core.call_event import Ended, Sent
from kdproxy.core.call_set import CallSet
from kdproxy.core.call_state import MOST_KILLED, CallState
from kdproxy.core.models import Address, LineName
from kdproxy.core.retry_history import LIFETIME_SECONDS, MOST_QUESTIONS

ORIGIN = "0123456789abcdef01234567"


def name(number: int) -> LineName:
    return LineName(ORIGIN, number)


def sent(question: int = 0, at: float = 100.0, *, is_free: bool = False) -> Sent:
    address = Address("default", f"{question:032x}")
    return Sent(upstream="t", sent_at=at, question=address, model="m", is_free=is_free)


def ended(call: int, outcome: str = "maybe_billed", billed: str = "maybe", at: float = 101.0) -> Ended:
    return Ended(call=name(call), outcome=outcome, billed=billed, ended_at=at, seconds=1.0, reason="cut")


@given(st.lists(st.builds(LineName, st.sampled_from(["a", "b"]), st.integers(0, 2**63 - 1) | st.integers(0, 9_000))))
def test_a_call_set_is_a_set(names: list[LineName]) -> None:
    found = CallSet()
    assert [found.add(each) for each in names] == [each not in names[:at] for at, each in enumerate(names)]
    assert len(found) == len(set(names))
    assert all(each in found for each in names)
    assert LineName("c", 1) not in found


ENDS = st.sampled_from(["answer", "answered", "refused", "maybe_billed", "abandoned", "none"])


@given(st.lists(st.tuples(st.integers(0, 3), ENDS), max_size=40), st.integers(0, 40))
def test_the_sums_are_those_of_the_calls(calls: list[tuple[int, str]], restart: int) -> None:
    state = CallState()
    failures: dict[int, int] = {}
    killed = 0
    for number, (question, end) in enumerate(calls):
        if number == restart:
            state = CallState.load(orjson.loads(orjson.dumps(state.dump())))
        state.take_sent(name(number), sent(question))
        if end == "answer":
            state.take_answer(name(number))
            failures.pop(question, None)
        elif end == "none":
            killed += 1
            state.end_lives()
            failures[question] = failures.get(question, 0) + 1
        else:
            state.take_ended(ended(number, end, "maybe" if end in ("maybe_billed", "abandoned") else "no"))
            if end == "maybe_billed":
                failures[question] = failures.get(question, 0) + 1
            elif end == "answered":
                failures.pop(question, None)
    kinds = [end for _, end in calls]
    assert state.sent == len(calls)
    assert state.kept == kinds.count("answer")
    assert state.killed == killed == len(state.killed_calls)
    assert sum(state.outcomes.values()) == len(calls) - state.kept - killed
    assert state.maybe_billed == kinds.count("maybe_billed") + kinds.count("abandoned") + killed
    assert {int(question.key, 16): found.calls for question, found in state.failed_questions.items()} == failures
    assert CallState.load(orjson.loads(orjson.dumps(state.dump()))) == state


def test_an_end_that_is_found_later_takes_a_call_out_of_those_in_flight_at_a_kill() -> None:
    state = CallState()
    state.take_sent(name(1), sent())
    state.end_lives()
    assert (state.killed, state.maybe_billed) == (1, 1)
    state.take_answer(name(1))
    assert (state.killed, state.maybe_billed, state.kept, len(state.failed_questions)) == (0, 0, 1, 0)


def test_a_call_that_costs_nothing_is_no_failed_call_of_its_question() -> None:
    state = CallState()
    state.take_sent(name(1), sent(is_free=True))
    state.end_lives()
    state.take_sent(name(2), sent(1))
    state.take_ended(ended(2, "maybe_billed", "free"))
    assert (state.killed, state.maybe_billed, len(state.failed_questions)) == (1, 0, 0)


def test_memory_is_bounded_and_what_is_old_is_forgotten() -> None:
    state = CallState()
    for number in range(MOST_QUESTIONS + 10):
        state.take_sent(name(number), sent(number))
        state.take_ended(ended(number, at=float(number)))
    assert len(state.failed_questions) == MOST_QUESTIONS
    state.forget_old(LIFETIME_SECONDS + 100.0)
    assert min(found.failed_at for found in state.failed_questions.values()) == 100.0
    for number in range(MOST_KILLED + 10):
        state.take_sent(name(10**6 + number), sent())
    state.end_lives()
    assert (state.killed, len(state.killed_calls)) == (MOST_KILLED + 10, MOST_KILLED)
