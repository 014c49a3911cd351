"""Journal lines: what goes in comes out, and a line that was touched is refused."""

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdproxy.core import canonical
from kdproxy.core.models import (
    Address,
    Answer,
    Entry,
    Form,
    LineName,
    Other,
    Prompt,
    Record,
    Seat,
    Start,
    Tombstone,
    Turn,
    Usage,
)
from kdproxy.core.record import decode, decode_answer, encode, read, seal
from kdproxy.core.record_encode import draft, settled
from kdproxy.errors import RecordInvalid
from tests.kdproxy.sample import ENTRY

DATA = Path(__file__).parents[2] / "data"
SAMPLES = DATA / "journal_v1.jsonl"
SAMPLES_V2 = DATA / "journal_v2.jsonl"

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["\n", "\u2028", '","sha256":"']
)
NAME = st.text("abc_-.0", min_size=1, max_size=6)
COUNT = st.none() | st.integers(0, 2**40)
SECONDS = st.floats(0, 2e9, allow_nan=False)
PAIRS = st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple)
# Spellings that a JSON reader of lesser care would change, and members named like the line's own.
REQUESTS = st.sampled_from(
    [
        b"{}",
        b'{"model":"m","temperature":1.0}',
        b'{"a":1e400,"b":12345678901234567890123,"c":0.10000000000000000001,"d":-0}',
        b'{"request":{"status":1},"status":2,"sha256":"x"}',
        rb'{"a":"\u0041\n,\"status\":","b":"}"}',
        b'{ "b" : [ ] , "a" : [ 1 , 2 ] }',
        b'{"z":1,"a":"\xe2\x80\xa8"}',
        b"[" * 100 + b"]" * 100,
        b'"text"',
        b"null",
    ]
)
STREAM_OPTIONS = st.sampled_from([None, {}, {"include_usage": True}, {"request": {"a": 1}, "status": [1]}])
ANSWERS = st.builds(
    Answer,
    status=st.integers(200, 599),
    headers=PAIRS,
    body=st.binary(max_size=60) | TEXT.map(str.encode),
    form=st.sampled_from(Form),
    usage=st.none() | st.tuples(COUNT, COUNT, COUNT, COUNT).map(lambda counts: Usage(*counts)),  # what version 1 keeps
    stream_options=STREAM_OPTIONS,
    has_copy=st.none(),  # read for a hit alone
)
NAMES = st.builds(LineName, origin=st.binary(min_size=12, max_size=12).map(bytes.hex), seq=st.integers(0, 2**40))
ENTRIES = st.builds(
    Entry,
    address=st.builds(
        Address, namespace=NAME, key=st.binary(min_size=32, max_size=32).map(bytes.hex), ordinal=st.integers(0, 99)
    ),
    upstream=TEXT,
    provider=NAME,
    endpoint=NAME,
    method=NAME,
    path=TEXT,
    query=TEXT,
    request_headers=PAIRS,
    request=st.none() | REQUESTS.filter(lambda request: request != b"null"),
    prompt_hash=st.none() | NAME,
    model=st.none() | TEXT,
    answer=ANSWERS,
    cost_usd=st.none() | st.sampled_from(["0", "0.000123", "12345678901234567890.123456789"]),
    created_at=SECONDS,
    elapsed_seconds=st.none() | SECONDS,
    response_id=st.none() | TEXT,
    key_version=st.none() | st.integers(1, 3),
    finish=st.none() | st.lists(st.none() | NAME, min_size=1, max_size=3).map(tuple),
    refusal=st.none() | TEXT,
    price=st.none() | TEXT,
    billed=st.none() | st.sampled_from(["yes", "no", "free"]),
    attempts=st.none() | st.integers(1, 9),
    store=st.none() | st.booleans(),
    credential=st.none() | NAME,
    call=st.none() | NAME,
    generation=st.none() | NAMES,
    replaces=st.lists(NAMES, max_size=2).map(tuple),
)
PROMPTS = st.builds(
    Prompt,
    namespace=NAME,
    match_key=NAME,
    ordinal=st.integers(0, 99),
    model=TEXT,
    turns=st.lists(st.builds(Turn, role=NAME, text=TEXT), max_size=3).map(tuple),
    response=TEXT,
    prompt_hash=NAME,
    created_at=SECONDS,
    source=st.none() | TEXT,
)
TOMBSTONES = st.builds(
    Tombstone,
    namespace=NAME,
    key=NAME,
    ordinal=st.integers(0, 99),
    kind=st.sampled_from(["answer", "prompt"]),
    reason=TEXT,
    created_at=SECONDS,
    withdraws=st.lists(NAMES, max_size=3).map(tuple),
)
SEATS = st.builds(
    lambda seat, home_key, home_ordinal: replace(seat, home=Address(seat.address.namespace, home_key, home_ordinal)),
    st.builds(
        Seat,
        address=st.builds(Address, namespace=NAME, key=NAME, ordinal=st.integers(0, 99)),
        key_version=st.integers(1, 3),
        generation=NAMES,
        home=st.just(Address("", "")),
        created_at=SECONDS,
    ),
    NAME,
    st.integers(0, 99),
)
STARTS = st.builds(Start, created_at=SECONDS, release=NAME)


def changed(entry: Entry, **members: Any) -> Entry:
    return entry._replace(**members)


@given(ENTRIES | PROMPTS | TOMBSTONES | SEATS | STARTS, NAMES)
def test_what_goes_in_comes_out_of_one_line(record: Record, name: LineName) -> None:
    line = encode(record, name)
    assert read(line) == (record, name, 2)
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert b"\r" not in line
    assert encode(decode(line), name) == line
    members = json.loads(line)  # any reader can
    assert list(members)[:4] == ["v", "kind", "origin", "seq"]
    assert list(members)[-1] == "sha256"
    assert None not in members.values()


@given(ENTRIES, NAMES, st.none() | NAMES, st.lists(NAMES, max_size=2).map(tuple))
def test_what_only_the_writer_knows_is_put_behind_the_rest(
    entry: Entry, name: LineName, generation: LineName | None, replaces: tuple[LineName, ...]
) -> None:
    entry = entry._replace(generation=None, replaces=())
    line = settled(draft(entry, name), generation=generation, replaces=replaces)
    assert read(line) == (entry._replace(generation=generation, replaces=replaces), name, 2)


def test_equal_records_without_a_name_have_equal_lines_and_others_have_others() -> None:
    again = ENTRY._replace(answer=ENTRY.answer._replace(body=b"{}"))
    assert read(encode(ENTRY)).name == read(encode(ENTRY._replace(created_at=1.0))).name
    assert read(encode(ENTRY)).name != read(encode(again)).name


def test_members_and_kinds_of_later_releases_are_passed_over() -> None:
    later = json.loads(encode(ENTRY)) | {"tenant": {"id": 1}}
    del later["sha256"]
    assert decode(seal(orjson.dumps(later))) == ENTRY
    line = seal(b'{"v":2,"kind":"lease","origin":"%b","seq":7,"until":[1]}' % (b"ab" * 12))
    assert read(line) == (Other(kind="lease", created_at=0.0), LineName("ab" * 12, 7), 2)


def test_a_line_of_version_1_is_named_by_its_checksum() -> None:
    for line in SAMPLES.read_bytes().splitlines():
        found = read(line)
        assert found.version == 1
        assert found.name == (line[-66:-42].decode(), 0)


@given(ENTRIES)
def test_the_answer_alone_comes_out_too_but_for_its_usage(entry: Entry) -> None:
    found = decode_answer(encode(entry), entry.address, entry.answer.form)
    assert found == entry.answer._replace(usage=None, has_copy=entry.store)


@pytest.mark.parametrize("body", [b"", b"\x00", "é\u2028\U0010ffff\r\n".encode()])
def test_a_body_of_text_is_written_as_text(body: bytes) -> None:
    members = json.loads(encode(changed(ENTRY, answer=Answer(status=200, headers=(), body=body, form=Form.JSON))))
    assert members["body"] == body.decode()
    assert "body_base64" not in members


@pytest.mark.parametrize("body", [b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\xaf", bytes(range(256))])
def test_a_body_that_is_not_utf_8_is_written_in_base64(body: bytes) -> None:
    line = encode(changed(ENTRY, answer=Answer(status=200, headers=(), body=body, form=Form.BINARY)))
    members = json.loads(line)
    assert base64.b64decode(members["body_base64"]) == body
    assert "body" not in members
    assert decode_answer(line, ENTRY.address, Form.BINARY).body == body


def test_a_request_of_many_lines_is_kept_on_one() -> None:
    line = encode(changed(ENTRY, request=b'{\r\n  "model": "m",\n  "text": "a\\nb"\r}'))
    assert line.count(b"\n") == 1
    request = decode(line)
    assert isinstance(request, Entry)
    assert request.request is not None
    assert json.loads(request.request) == {"model": "m", "text": "a\nb"}


def test_bytes_that_no_header_should_hold_do_not_lose_a_paid_answer() -> None:
    """aiohttp hands on undecodable bytes as lone surrogates."""
    found = decode(encode(changed(ENTRY, path="/\udcff", request_headers=(("anthropic-beta", "\udce9"),))))
    assert isinstance(found, Entry)
    assert found.answer == ENTRY.answer
    assert "\ufffd" in found.path


def test_numbers_that_no_double_holds_do_not_lose_a_paid_answer() -> None:
    options = canonical.parse(b'{"a":1e400,"b":0.10000000000000000001,"c":12345678901234567890123}')
    answer = Answer(status=200, headers=(), body=b"data: x\n\n", form=Form.SSE, stream_options=options)
    found = decode_answer(encode(changed(ENTRY, answer=answer)), ENTRY.address, Form.SSE)
    assert found.body == answer.body


@given(PROMPTS | TOMBSTONES)
def test_a_line_of_another_kind_is_no_answer(record: Prompt | Tombstone) -> None:
    key = record.match_key if isinstance(record, Prompt) else record.key
    address = Address(namespace=record.namespace, key=key, ordinal=record.ordinal)
    for form in Form:
        with pytest.raises(RecordInvalid):
            decode_answer(encode(record), address, form)


def test_the_committed_samples_keep_decoding() -> None:
    records = [decode(line) for line in SAMPLES.read_bytes().splitlines()]
    assert {type(record) for record in records} == {Entry, Prompt, Tombstone}
    answers = [record.answer for record in records if isinstance(record, Entry)]
    assert {answer.form for answer in answers} == set(Form)
    by_form = {answer.form: answer for answer in reversed(answers)}
    assert json.loads(by_form[Form.JSON].body)["choices"][0]["message"]["content"] == "Grüße 😀"
    assert by_form[Form.SSE].body.endswith(b"data: [DONE]\n\n")
    assert by_form[Form.SSE].stream_options == {"include_usage": True}
    assert by_form[Form.BINARY].body == b"ID3\x00\xff\xfe"
    assert by_form[Form.JSON].usage == Usage(input_tokens=9, output_tokens=4, cached_input_tokens=0)
    prompts = [record for record in records if isinstance(record, Prompt)]
    assert prompts[0].turns == (Turn(role="system", text="Be short."), Turn(role="user", text="What is 2 + 2?"))


def test_the_committed_samples_of_version_2_keep_decoding() -> None:
    named = [read(line) for line in SAMPLES_V2.read_bytes().splitlines()]
    assert [encode(found.record, found.name) for found in named if not isinstance(found.record, Other)] == [
        line for line in SAMPLES_V2.read_bytes().splitlines(keepends=True) if b'"kind":"later"' not in line
    ]
    assert [type(found.record) for found in named] == [Start, Entry, Entry, Entry, Prompt, Tombstone, Seat, Other]
    start, first, second, refreshed, *_ = named
    assert isinstance(first.record, Entry)
    assert isinstance(second.record, Entry)
    assert isinstance(refreshed.record, Entry)
    assert start.name.origin == first.name.origin
    assert second.record.generation == first.name
    assert refreshed.record.replaces == (first.name,)
    assert first.record.finish == ("stop",)
    assert first.record.answer.usage == Usage(input_tokens=9, output_tokens=4, tier="standard")
