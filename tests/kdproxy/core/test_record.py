"""Journal lines: what goes in comes out, and a line that was touched is refused."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdproxy.core import canonical
from kdproxy.core.models import Address, Answer, Entry, Form, Prompt, Record, Tombstone, Turn, Usage
from kdproxy.core.record import RECORD_VERSION, check, decode, decode_answer, encode, seal
from kdproxy.errors import RecordInvalid

SAMPLES = Path(__file__).parents[2] / "data" / "journal_v1.jsonl"

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
)
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
)

ENTRY = Entry(
    address=Address(namespace="default", key="ab" * 32, ordinal=0),
    upstream="openai",
    provider="openai",
    endpoint="chat.completions",
    method="POST",
    path="/v1/chat/completions",
    query="",
    request_headers=(),
    request=b'{"model":"m","messages":[]}',
    prompt_hash=None,
    model="m",
    answer=Answer(status=200, headers=(("Content-Type", "application/json"),), body=b'{"id":"x"}', form=Form.JSON),
    cost_usd=None,
    created_at=1790000000.25,
    elapsed_seconds=0.5,
)


def changed(entry: Entry, **members: Any) -> Entry:
    return entry._replace(**members)


@given(ENTRIES | PROMPTS | TOMBSTONES)
def test_what_goes_in_comes_out_of_one_line(record: Record) -> None:
    line = encode(record)
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert b"\r" not in line
    assert decode(line) == record
    assert encode(decode(line)) == line
    json.loads(line)  # any reader can


@given(ENTRIES)
def test_the_answer_alone_comes_out_too_but_for_its_usage(entry: Entry) -> None:
    assert decode_answer(encode(entry), entry.address, entry.answer.form) == entry.answer._replace(usage=None)


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


@pytest.mark.parametrize("line", [encode(ENTRY), *SAMPLES.read_bytes().splitlines(keepends=True)])
def test_every_flipped_bit_is_seen(line: bytes) -> None:
    accepted = []
    for place in range(len(line) * 8):
        flipped = bytearray(line)
        flipped[place // 8] ^= 1 << place % 8
        try:
            decode(bytes(flipped))
        except RecordInvalid:
            continue
        accepted.append(place)
    assert accepted == []


def test_every_cut_is_seen() -> None:
    line = encode(ENTRY)
    for end in range(len(line) - 1):  # all but the line break is a whole record
        with pytest.raises(RecordInvalid):
            decode(line[:end])


@pytest.mark.parametrize(
    ("address", "form"),
    [
        (Address(namespace="other", key="ab" * 32, ordinal=0), Form.JSON),
        (Address(namespace="default", key="ba" * 32, ordinal=0), Form.JSON),
        (Address(namespace="default", key="ab" * 32, ordinal=1), Form.JSON),
        (Address(namespace="default", key="ab" * 32, ordinal=0), Form.SSE),
    ],
)
def test_the_answer_of_another_address_is_refused(address: Address, form: Form) -> None:
    with pytest.raises(RecordInvalid, match="another address"):
        decode_answer(encode(ENTRY), address, form)


@given(PROMPTS | TOMBSTONES)
def test_a_line_of_another_kind_is_no_answer(record: Prompt | Tombstone) -> None:
    key = record.match_key if isinstance(record, Prompt) else record.key
    address = Address(namespace=record.namespace, key=key, ordinal=record.ordinal)
    for form in Form:
        with pytest.raises(RecordInvalid):
            decode_answer(encode(record), address, form)


def resealed(**members: Any) -> bytes:
    found = json.loads(encode(ENTRY))
    found.pop("sha256")
    return seal(orjson.dumps({name: value for name, value in {**found, **members}.items() if value != "absent"}))


@pytest.mark.parametrize("version", [2, "1", None, 1.5])
def test_another_version_says_what_to_do(version: object) -> None:
    with pytest.raises(RecordInvalid) as caught:
        check(resealed(v=version))
    assert str(RECORD_VERSION) in caught.value.message
    assert "upgrade" in caught.value.hint


@pytest.mark.parametrize(
    "members",
    [
        {"kind": "other"},
        {"kind": "absent"},
        {"key": "absent"},
        {"ordinal": "x"},
        {"ordinal": None},
        {"status": None},
        {"form": "text"},
        {"headers": [["one"]]},
        {"headers": None},
        {"usage": {"tokens": 1}},
        {"usage": "absent"},
        {"body": "absent"},
        {"body": None, "body_base64": "not base64"},
        {"body": 1},
        {"created_at": None},
        {"kind": "prompt"},
        {"kind": "tombstone"},
    ],
    ids=str,
)
def test_a_sealed_line_of_the_wrong_shape_is_refused(members: dict[str, Any]) -> None:
    with pytest.raises(RecordInvalid):
        decode(resealed(**members))


@pytest.mark.parametrize("line", [b"", b"\n", b"{}\n", b"null\n", seal(b"[1]"), b"x" * 200, seal(b'{"v":1')])
def test_what_is_no_record_is_refused(line: bytes) -> None:
    with pytest.raises(RecordInvalid):
        decode(line)


def test_the_checksum_is_what_the_page_says() -> None:
    """docs/formats/journal.md, the check in five lines."""
    for line in SAMPLES.read_bytes().splitlines():
        body, seal, tail = line.rpartition(b',"sha256":"')
        assert seal
        assert tail == hashlib.sha256(body).hexdigest().encode() + b'"}'


@pytest.mark.parametrize("size", [1_700, *range(2_046, 2_050), 4_094, 4_095, 32_767, 32_768, 32_769, 200_000])
def test_the_checksum_covers_lines_of_any_length(size: int) -> None:
    empty = len(encode(ENTRY._replace(model="")))
    entry = ENTRY._replace(model="x" * max(0, size - empty))
    line = encode(entry)
    assert decode(line) == entry
    body, _, tail = line.rpartition(b',"sha256":"')
    assert tail == hashlib.sha256(body).hexdigest().encode() + b'"}\n'
    for place in (
        0,
        len(body) // 2,
        len(body) - 1,
        *range(2_040, min(2_056, len(body))),
        *range(32_760, min(32_776, len(body))),
    ):
        flipped = bytearray(line)
        flipped[place] ^= 1
        with pytest.raises(RecordInvalid):
            decode(bytes(flipped))


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
    assert [encode(record) for record in records] == SAMPLES.read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize("value", [b'"\\ud800"', b'["\\udc00"]', b"NaN", b"-Infinity"])
def test_what_no_answer_can_hold_is_not_read(value: bytes) -> None:
    """A line that somebody else has sealed; numbers of any size are fine."""
    line = (
        b'{"v":1,"kind":"prompt","namespace":"default","key":"k","ordinal":0,"prompt_hash":"","model":"m",'
        b'"messages":[],"response":"r","created_at":1,"source":null,"more":%b}'
    )
    assert decode(seal(line % b"1e400"))
    with pytest.raises(RecordInvalid, match="not JSON"):
        decode(seal(line % value))
