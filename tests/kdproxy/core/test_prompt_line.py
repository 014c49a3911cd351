"""Prompt lines as trackers without a proxy make them."""

from hypothesis import given
from hypothesis import strategies as st

from kdproxy.core import key, record
from kdproxy.core.models import Prompt, Turn


@given(prompt=st.text(), response=st.text(), system=st.none() | st.text(), ordinal=st.integers(0, 10**6))
def test_a_line_gives_its_key_and_its_answer_back(prompt: str, response: str, system: str | None, ordinal: int) -> None:
    made = record.prompt_record(
        "gpt-4.1", prompt, response, system=system, ordinal=ordinal, created_at=1.5, source="train.py"
    )
    line = record.encode(made)
    assert record.decode(line) == made
    assert record.read_prompt(line) == (record.prompt_key("gpt-4.1", prompt, system=system), response)
    assert (made.ordinal, made.prompt_hash) == (ordinal, key.prompt_hash(prompt))


def test_the_key_is_that_of_the_conversation() -> None:
    turns = (Turn(role="system", text="Be brief."), Turn(role="user", text="Why?"))
    assert record.prompt_key("m", "Why?", system="Be brief.") == key.match_key("m", turns)
    assert record.prompt_key("m", "Why?") == key.match_key("m", turns[1:])
    assert record.prompt_key("m", "Why?", system="") != record.prompt_key("m", "Why?"), "an empty text is a text"


def test_what_is_no_whole_prompt_line_is_none() -> None:
    made = record.prompt_record("m", "Why?", "So.", created_at=1.5)
    assert isinstance(made, Prompt)
    line = record.encode(made)
    for damaged in (b"", b"{}", line[:-5], line.replace(b"Why?", b"Wha?")):
        assert record.read_prompt(damaged) is None
