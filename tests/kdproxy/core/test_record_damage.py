"""A journal line that was touched, cut or made by somebody else is refused; a whole one behind a torn one is found."""

import hashlib
import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from kdproxy.core import line as lines
from kdproxy.core.models import Address, Form
from kdproxy.core.record import RECORD_VERSION, check, decode, decode_answer, encode, seal
from kdproxy.errors import RecordInvalid
from tests.kdproxy.sample import ENTRY

DATA = Path(__file__).parents[2] / "data"
SAMPLES = DATA / "journal_v1.jsonl"


@pytest.mark.parametrize(
    "members",
    [
        {"origin": "absent"},
        {"origin": "ab"},
        {"origin": "AB" * 12},
        {"origin": 7},
        {"seq": "absent"},
        {"seq": -1},
        {"seq": "1"},
        {"seq": True},
        {"generation": "x"},
        {"generation": "ab" * 12},
        {"replaces": ["ab" * 12 + "/x"]},
        {"replaces": 7},
        {"finish": 7},
    ],
    ids=str,
)
def test_a_name_of_another_shape_is_refused(members: dict[str, Any]) -> None:
    with pytest.raises(RecordInvalid):
        decode(resealed(**members))


def test_a_whole_line_behind_a_torn_one_is_found() -> None:
    whole, torn = encode(ENTRY), encode(ENTRY._replace(request=b'{"v":1}'))[:-40]
    assert lines.remainder(torn + whole) == len(torn)
    assert lines.remainder(torn + torn + whole) == 2 * len(torn)
    assert lines.remainder(torn) is None
    assert lines.remainder(whole[:-2] + b"\n") is None
    assert lines.remainder(b'{"v":' * 10_000) is None


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


def resealed(**members: Any) -> bytes:
    found = json.loads(encode(ENTRY))
    found.pop("sha256")
    return seal(orjson.dumps({name: value for name, value in {**found, **members}.items() if value != "absent"}))


@pytest.mark.parametrize("version", [3, "1", None, 1.5, True])
def test_another_version_says_what_to_do(version: object) -> None:
    with pytest.raises(RecordInvalid) as caught:
        check(resealed(v=version))
    assert str(RECORD_VERSION) in caught.value.message
    assert "upgrade" in caught.value.hint


@pytest.mark.parametrize(
    "members",
    [
        {"kind": 7},
        {"kind": "absent"},
        {"key": "absent"},
        {"ordinal": "x"},
        {"ordinal": None},
        {"status": None},
        {"form": "text"},
        {"headers": [["one"]]},
        {"headers": None},
        {"usage": [1]},
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
