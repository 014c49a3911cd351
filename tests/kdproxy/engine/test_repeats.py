"""Which equal questions of one client are counted, and that memory for them is bounded."""

import logging

import pytest

from kdproxy.engine.repeats import Repeats, advice_on


def test_a_question_counts_from_its_second_time_on() -> None:
    repeats = Repeats()
    asker = repeats.connect("one", "python")
    for key in "aabab":
        repeats.note(asker, key)
    assert repeats.as_dict() == {"requests": 3, "questions": 2}


def test_a_client_is_another_one_once_its_last_connection_has_ended() -> None:
    repeats = Repeats()
    first = repeats.connect("one", "python")
    repeats.note(first, "a")
    second = repeats.connect("one", "python")
    repeats.leave(first)
    repeats.note(second, "a")
    assert repeats.requests == 1
    repeats.leave(second)
    repeats.note(repeats.connect("one", "python"), "a")
    assert repeats.requests == 1


@pytest.mark.parametrize("other", [("two", "python"), ("one", "curl")])
def test_another_credential_or_program_is_another_client(other: tuple[str, str]) -> None:
    repeats = Repeats()
    repeats.note(repeats.connect("one", "python"), "a")
    repeats.note(repeats.connect(*other), "a")
    assert repeats.requests == 0


def test_a_million_questions_take_bounded_memory() -> None:
    repeats = Repeats(most_questions=1_000)
    asker = repeats.connect("one", "python")
    for number in range(10_000):
        repeats.note(asker, str(number))
    assert len(repeats._asked) <= 1_000
    repeats.note(asker, "9999")
    assert repeats.requests == 1
    repeats.leave(asker)
    assert not repeats._open


def test_the_first_one_is_logged_and_says_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    repeats = Repeats()
    asker = repeats.connect("one", "python")
    for _ in range(5):
        repeats.note(asker, "a")
    [record] = caplog.records
    assert "kdproxy run -- CMD" in record.getMessage()
    advice = advice_on(repeats.as_dict())
    assert advice is not None
    assert advice.startswith("4 requests asked a sampled question again")
    assert "kdproxy run -- CMD" in advice
    assert advice_on(Repeats().as_dict()) is None
