"""Canonical JSON by table: what is equal, what is not, what is refused."""

import itertools

import pytest

from kdproxy.core.canonical import MAX_DEPTH, NotCanonical, canonical, parse, single_line

EQUAL = {
    "one": [b"1", b"1.0", b"1e0", b"1E+0", b"10e-1", b"0.1e1", b"1.000000000000000000000", b" 1\n"],
    "zero": [b"0", b"-0", b"0.0", b"-0.0", b"0e5", b"0E-400", b"0e9999"],
    "a tenth": [b"0.1", b"1e-1", b"0.10", b"0.100000000000000000000", b"10E-02"],
    "2**53 + 1": [b"9007199254740993", b"9007199254740993.0", b"9.007199254740993e15"],
    "a big power": [b"1e23", b"100000000000000000000000", b"0.1e24"],
    "beyond double": [b"1e400", b"10e399", b"1" + b"0" * 400],
    "below double": [b"1e-400", b"0.1e-399", b"10e-401"],
    "subnormal": [b"5e-324", b"50e-325"],
    "text": [b'"A\xc3\xa9\xf0\x9f\x98\x80/"', rb'"\u0041\u00e9\uD83D\uDE00\/"', rb'"A\u00E9\ud83d\ude00/"'],
    "controls": [rb'"\n\t\u0000\u001f\u007f"', rb'"\u000a\u0009\u0000\u001F' + b'\x7f"'],
    "members": [
        b'{"a":1,"b":[true,null]}',
        b'{ "b" : [ true , null ] , "a" : 1.0 }',
        b'{"b"\n:\r\n[true\t,null],"a":1e0}',
    ],
    "escaped name": [b'{"a":1}', rb'{"\u0061":1}'],
    "empty object": [b"{}", b"{ }", b"\t{\n}\r\n"],
    "empty list": [b"[]", b"[ ]"],
}

ALL_DIFFERENT = [
    b"null",
    b"true",
    b"false",
    b"0",
    b"1",
    b"-1",
    b'"1"',
    b'""',
    b"[]",
    b"{}",
    b"[[]]",
    b"[{}]",
    b"[null]",
    b'{"a":null}',
    b'{"a":[]}',
    b'{"a":{}}',
    b'{"A":null}',
    b'{"a":"b"}',
    b'{"b":"a"}',
    b"[1,2]",
    b"[2,1]",
    b"[12]",
    b"12345678901234567890123",
    b"12345678901234567890124",
    b"9007199254740992",
    b"9007199254740993",
    b"18446744073709551615",
    b"18446744073709551616",
    b"0.1",
    b"0.10000000000000000001",
    b"0.1000000000000000055511151231257827",
    b"1e400",
    b"1e401",
    b"-1e400",
    b"1e-400",
    b"1e-401",
    b'"\xc3\xa9"',
    b'"e\xcc\x81"',  # the same letter, decomposed: nothing is normalised
    b'"\xef\xac\x81"',
    b'"fi"',
    b'"a"',
    b'"A"',
    b'"\\u0000"',
    b'" "',
    b'"\\\\u0061"',
    b"1e39",
    b"1e40",
]

REFUSED = {
    "empty": b"",
    "white space": b" \n",
    "two values": b"1 2",
    "trailing comma": b"[1,]",
    "bare word": b"nul",
    "comment": b"[1/**/]",
    "single quotes": b"{'a':1}",
    "leading zero": b"01",
    "plus": b"+1",
    "no digit after the point": b"1.",
    "no digit before the point": b".1",
    "no exponent": b"1e",
    "hexadecimal": b"0x1",
    "NaN": b"NaN",
    "Infinity": b"[Infinity]",
    "-Infinity": b"-Infinity",
    "other digits": '"١"'.encode().strip(b'"'),
    "byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "UTF-16 without a mark": '{"a":1}'.encode("utf-16-le"),
    "UTF-32": '{"a":1}'.encode("utf-32-le"),
    "Latin-1": b'"\xe9"',
    "overlong": b'"\xc0\xaf"',
    "surrogate as UTF-8": b'"\xed\xa0\x80"',
    "lone high surrogate": rb'"\ud800"',
    "lone low surrogate": rb'"\udc00x"',
    "surrogates the wrong way round": rb'"\ude00\ud83d"',
    "lone surrogate in a name": rb'{"\ud800":1}',
    "raw line break in a string": b'"a\nb"',
    "raw NUL in a string": b'"\0"',
    "unknown escape": rb'"\x41"',
    "half an escape": rb'"\u00e"',
    "duplicate": b'{"a":1,"a":1}',
    "duplicate by escape": rb'{"a":1,"\u0061":2}',
    "duplicate, deep": b'[{"x":{"a":1,"b":2,"a":3}}]',
    "non-breaking space": b"[1,\xc2\xa02]",
    "form feed": b"[1,\x0c2]",
    "4,001 digits": b"1" * 4001,
    "an exponent beyond counting": b"1e999999999999999999999",
    "an exponent beyond counting, negative": b"1e-999999999999999999999",
}

# The fast path counts `":`. Each body hides or fakes some, so that the count alone would come out right.
COUNT_ATTACKS = [
    rb'{"a":1,"a":"x\":"}',
    rb'{"a":1,"a" :2}',
    rb'{"a" :1,"a":2}',
    b'{"a"\n:1,"a"\t:2}',
    b'{"a":1,"a":2,":":3}',
    b'{"\\":":1,"\\":":2}',
    rb'{"b\":":1,"a":1,"a":2}',
    rb'{"a":{"b":1},"a":["\":"]}',
    rb'{"a":1,"a":2,"c":"\":\":"}',
    rb'{"":1,"":2}',
    rb'{"a":1,"\u0061":"\":"}',
]

NO_DUPLICATES = [
    (rb'{"a":"\":"}', rb'{"a":"\":"}'),
    (rb'{"\":":1,"a" :":"}', rb'{"\":":1,"a":":"}'),
    (b'{":":":"}', b'{":":":"}'),
]


@pytest.mark.parametrize("spellings", EQUAL.values(), ids=EQUAL)
def test_spellings_of_one_meaning_have_one_form(spellings: list[bytes]) -> None:
    assert len({canonical(spelling) for spelling in spellings}) == 1


def test_different_meanings_have_different_forms() -> None:
    forms = [canonical(body) for body in ALL_DIFFERENT]
    assert [
        (one, other)
        for (one, form), (other, other_form) in itertools.combinations(zip(ALL_DIFFERENT, forms, strict=True), 2)
        if form == other_form
    ] == []


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_uncertain_bodies_are_refused(body: bytes) -> None:
    with pytest.raises(NotCanonical):
        parse(body)


@pytest.mark.parametrize("body", COUNT_ATTACKS)
def test_a_duplicate_is_seen_however_it_is_hidden(body: bytes) -> None:
    with pytest.raises(NotCanonical, match="duplicate"):
        parse(body)


@pytest.mark.parametrize(("body", "form"), NO_DUPLICATES)
def test_a_colon_in_a_string_is_no_member(body: bytes, form: bytes) -> None:
    assert canonical(body) == form


@pytest.mark.parametrize("spelled", [b"1", b"1e99"], ids=["fast", "exact"])
@pytest.mark.parametrize("shape", ["list", "object", "empty list", "empty object"])
def test_the_depth_limit_is_one_number_on_both_paths(spelled: bytes, shape: str) -> None:
    def nested(depth: int) -> bytes:
        # A number of either path beside the deepest place, so that both paths see every shape.
        match shape:
            case "list":
                return b"[" * depth + spelled + b"]" * depth
            case "object":
                return b'{"a":' * depth + spelled + b"}" * depth
            case "empty list":
                return b"[" + spelled + b"," + b"[" * (depth - 1) + b"]" * depth
            case _:
                return b"[" + spelled + b"," + b'{"a":' * (depth - 2) + b"{}" + b"}" * (depth - 2) + b"]"

    assert canonical(nested(MAX_DEPTH)) == canonical(b" " + nested(MAX_DEPTH))
    for depth in (MAX_DEPTH + 1, MAX_DEPTH + 2, 5_000):
        with pytest.raises(NotCanonical, match="deep"):
            parse(nested(depth))


def test_a_short_number_does_not_become_a_long_one() -> None:
    body = b"[" + b",".join([b"1e3999"] * 1_000) + b"]"
    assert len(canonical(body)) <= 10 * len(body)


def test_the_longest_number_is_exact() -> None:
    digits = b"9" * 3_990
    forms = {canonical(digits + tail) for tail in (b"7", b"8", b"8e4000", b"8e4001", b"8e-4000", b"8e-4001")}
    assert len(forms) == 6


def test_single_line_changes_white_space_only() -> None:
    body = b'\r\n{\n  "a": "x\\ny",\r\n  "b": [1,\r2]\n}\n'
    line = single_line(body)
    assert not {0x0A, 0x0D} & set(line)
    assert canonical(line) == canonical(body)
    assert single_line(b'{"a":1}') == b'{"a":1}'
