"""Lines of the events log: read as they were written, short, and open to what is to come."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdproxy.core.call_event import Ended, Sent, encode_event, question_of, read_event
from kdproxy.core.line import is_whole, seal
from kdproxy.core.models import Address, LineName, Other, Usage
from kdproxy.errors import RecordInvalid

NAME = LineName("0123456789abcdef01234567", 1_234_567)
CALL = LineName("ba9876543210ba9876543210", 7)
KEY = "5" * 64
SENT = Sent(
    upstream="openai",
    sent_at=1790000000.123,
    question=question_of(Address("default", KEY)),
    model="gpt-4o-mini-2024-07-18",
    credential="0123456789abcdef",
)
TEXT = st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=20)


def test_a_sent_line_takes_less_than_300_bytes() -> None:
    line = encode_event(SENT, NAME)
    assert len(line) <= 300
    assert is_whole(line)
    members = orjson.loads(line)
    assert [*members][:4] == ["v", "kind", "origin", "seq"]
    assert [*members][-1] == "sha256"
    assert KEY.startswith(members["key"])


@given(
    namespace=TEXT,
    ordinal=st.integers(0, 2**63 - 1),
    model=TEXT,
    run=TEXT,
    attempt=st.integers(1, 1_000),
    path=st.none() | TEXT,
    flags=st.tuples(st.booleans(), st.booleans()),
)
def test_a_sent_line_reads_as_it_was_written(
    namespace: str, ordinal: int, model: str, run: str, attempt: int, path: str | None, flags: tuple[bool, bool]
) -> None:
    question = Address(namespace, KEY[:32], ordinal)
    sent = SENT._replace(question=question, model=model, run=run, attempt=attempt, path=path)
    sent = sent._replace(is_free=flags[0], is_detached=flags[1])
    assert read_event(encode_event(sent, NAME)) == (sent, NAME)


@given(
    status=st.none() | st.integers(100, 599),
    usage=st.none() | st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)).map(lambda counts: Usage(*counts)),
    reason=st.none() | TEXT,
    error=st.none() | TEXT,
    is_detached=st.booleans(),
)
def test_an_ended_line_reads_as_it_was_written(
    status: int | None, usage: Usage | None, reason: str | None, error: str | None, is_detached: bool
) -> None:
    ended = Ended(
        call=CALL,
        outcome="refused",
        billed="no",
        ended_at=1790000001.5,
        seconds=1.377,
        status=status,
        usage=usage,
        reason=reason,
        error=error,
        is_detached=is_detached,
    )
    assert read_event(encode_event(ended, NAME)) == (ended, NAME)


def test_text_that_utf8_cannot_hold_is_written_all_the_same() -> None:
    line = encode_event(SENT._replace(model="bad \udcff", path="/v1/\udc80"), NAME)
    assert read_event(line).name == NAME


def test_kinds_that_are_not_known_are_kept_and_no_error() -> None:
    line = seal(orjson.dumps({"v": 2, "kind": "settled", "origin": NAME.origin, "seq": 3, "run": "night"}))
    assert read_event(line).event == Other(kind="settled", created_at=0.0)


@pytest.mark.parametrize("missing", ["call", "outcome", "billed", "seconds", "at", "origin", "seq", "kind"])
def test_a_line_that_lacks_a_member_is_damage(missing: str) -> None:
    ended = Ended(call=CALL, outcome="refused", billed="no", ended_at=1.0, seconds=1.0)
    members = orjson.loads(encode_event(ended, NAME))
    del members[missing], members["sha256"]
    with pytest.raises(RecordInvalid):
        read_event(seal(orjson.dumps(members)))
