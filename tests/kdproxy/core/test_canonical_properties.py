"""Canonical JSON by property: equal meaning, equal bytes, and nothing else.

The oracle is independent: the standard library's parser with fractions for numbers and lists of pairs for objects.
"""

import json
import random
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdproxy.core import canonical as under_test
from kdproxy.core.canonical import NotCanonical, canonical

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ['":', '\\":', "", "\0", "\u2028"]
)
INTEGERS = st.integers(-3, 3) | st.integers(-(2**70), 2**70) | st.integers(10**22, 10**22 + 9)
DECIMALS = st.builds(
    lambda digits, exponent: Decimal(digits).scaleb(exponent),
    st.integers(-(10**5), 10**5) | st.integers(-(10**24), 10**24),
    st.integers(-30, 30) | st.integers(-340, 340),
)
NUMBERS = INTEGERS.map(Decimal) | DECIMALS
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
# Few of everything, so that two draws are often equal in meaning and nearly equal in spelling.
CLOSE_VALUES = st.recursive(
    st.sampled_from([None, True, "", "1", Decimal(0), Decimal(1), Decimal("0.1"), Decimal("0.10000000000000000001")]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b", '":']), inner, max_size=2),
    max_leaves=3,
)


def meaning(value: Any) -> Any:
    """What a value says, as something that compares by meaning."""
    match value:
        case bool() | None | str():
            return type(value).__name__, value
        case dict():
            return "object", frozenset((name, meaning(member)) for name, member in value.items())
        case list():
            return "list", tuple(map(meaning, value))
        case _:
            return "number", Fraction(value)


def read(text: str | bytes) -> Any:
    """Read JSON with the oracle's parser. Raises ValueError."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if len(set(names)) != len(names):
            raise ValueError("duplicate")
        return dict(pairs)

    def refuse(name: str) -> Any:
        raise ValueError(name)

    return json.loads(text, parse_int=Fraction, parse_float=Fraction, parse_constant=refuse, object_pairs_hook=once)


def spell(value: Any, rng: random.Random) -> str:
    """Write a value as JSON in one of the many ways that mean the same."""

    def space() -> str:
        return rng.choice(["", "", "", " ", "\n", "\t", "\r\n", "  "])

    def member(name: str, inner: Any) -> str:
        return f"{space()}{_spell_text(name, rng)}{space()}:{space()}{spell(inner, rng)}{space()}"

    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return _spell_text(value, rng)
        case Decimal():
            return _spell_number(value, rng)
        case list():
            return f"[{space()}" + ",".join(f"{space()}{spell(item, rng)}{space()}" for item in value) + "]"
        case _:
            pairs = list(value.items())
            rng.shuffle(pairs)
            return f"{{{space()}" + ",".join(member(*pair) for pair in pairs) + "}"


def _spell_text(text: str, rng: random.Random) -> str:
    short = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}
    written = []
    for letter in text:
        units = letter.encode("utf-16-be")
        escape = "".join(f"\\u{units[i] << 8 | units[i + 1]:04x}" for i in range(0, len(units), 2))
        choices = [escape, escape.upper().replace("\\U", "\\u"), short.get(letter, escape)]
        if letter == "/":
            choices.append("\\/")
        if letter >= " " and letter not in '"\\':
            choices += [letter, letter, letter]
        written.append(rng.choice(choices))
    return f'"{"".join(written)}"'


def _spell_number(number: Decimal, rng: random.Random) -> str:
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    text = "".join(map(str, digits)).lstrip("0")
    if not text:
        return rng.choice(["0", "-0", "0.0", "0e7", "-0.00E-3"])
    zeros = rng.choice([0, 0, 1, 5, 20])
    text, exponent = text + "0" * zeros, exponent - zeros
    # Put the point anywhere, and let the exponent make up for it.
    if 0 <= exponent <= 40 and rng.random() < 0.5:
        text, exponent = text + "0" * exponent, 0
    point = rng.randint(0, len(text))
    whole, part = text[:point].lstrip("0") or "0", text[point:]
    exponent += len(part)
    spelled = whole + (f".{part}" if part else "")
    if exponent or rng.random() < 0.2:
        plus = rng.choice(["", "+"]) if exponent >= 0 else "-"
        spelled += rng.choice("eE") + plus + rng.choice(["", "0", "00"]) + str(abs(exponent))
    return ("-" if sign else "") + spelled


RANDOMS = st.integers(0, 2**32).map(random.Random)


@given(VALUES, RANDOMS, RANDOMS)
def test_equal_meaning_gives_equal_bytes(value: Any, one: random.Random, other: random.Random) -> None:
    first, second = spell(value, one), spell(value, other)
    assert meaning(read(first)) == meaning(value)  # the re-speller itself is honest
    assert canonical(first.encode()) == canonical(second.encode())


@given(VALUES, RANDOMS)
def test_canonical_bytes_keep_the_meaning_and_are_a_fixed_point(value: Any, rng: random.Random) -> None:
    form = canonical(spell(value, rng).encode())
    assert meaning(read(form)) == meaning(value)
    assert canonical(form) == form


@given(st.tuples(CLOSE_VALUES, CLOSE_VALUES) | st.tuples(VALUES, VALUES), RANDOMS)
def test_different_meaning_gives_different_bytes(pair: tuple[Any, Any], rng: random.Random) -> None:
    one, other = (canonical(spell(value, rng).encode()) for value in pair)
    assert (one == other) == (meaning(pair[0]) == meaning(pair[1]))


@given(NUMBERS, NUMBERS, RANDOMS)
def test_numbers_are_distinguished_by_value(one: Decimal, other: Decimal, rng: random.Random) -> None:
    near = one + Decimal(1).scaleb(one.adjusted() - 20) if one else other
    for number in (other, near):
        is_equal = canonical(_spell_number(one, rng).encode()) == canonical(_spell_number(number, rng).encode())
        assert is_equal == (Fraction(one) == Fraction(number))


@given(VALUES, RANDOMS)
def test_the_two_paths_agree(value: Any, rng: random.Random) -> None:
    body = spell(value, rng).encode()
    exact = under_test.dump(under_test._parse_exact(body))
    try:
        fast = under_test.dump(under_test._parse_fast(body))
    except under_test._NeedsExactPath:
        return
    except ValueError:  # orjson takes no number beyond double
        return
    assert fast == exact


TOKENS = st.sampled_from(
    [
        *(
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            " ",
            "\n",
            '"',
            '"a"',
            '"a":',
            '"a" :',
            '{"a":1}',
            '"\\":"',
            '\\"',
            "\\",
            "\\u0061",
        ),
        *("\\ud800", "\\ud83d\\ude00", "1", "-", "-0", "1.0", "1e5", "1e999", "e-400", ".", "0", "00", "true", "null"),
        *("NaN", "Infinity", "12345678901234567890123", "\ufeff", "\x00", "\x1f", "é", "\u2028", "[[[[", "]]]]"),
    ]
)


@settings(max_examples=500)
@given(st.lists(TOKENS, max_size=14).map("".join).map(str.encode) | st.binary(max_size=40))
def test_any_bytes_are_refused_or_keep_their_meaning(body: bytes) -> None:
    try:
        form = canonical(body)
    except NotCanonical:
        return
    assert meaning(read(body)) == meaning(read(form))


@given(VALUES, RANDOMS, st.integers(0, 400), st.integers(0, 7))
def test_a_damaged_body_never_raises_anything_else(value: Any, rng: random.Random, place: int, bit: int) -> None:
    body = bytearray(spell(value, rng).encode())
    body[place % len(body)] ^= 1 << bit
    try:
        form = canonical(bytes(body))
    except NotCanonical:
        return
    assert meaning(read(bytes(body))) == meaning(read(form))


@given(st.dictionaries(TEXT, VALUES, min_size=1, max_size=3), RANDOMS)
def test_a_duplicate_member_is_always_refused(value: dict[str, Any], rng: random.Random) -> None:
    body = spell(value, rng)
    name = rng.choice(list(value))
    again = (
        f"{{{_spell_text(name, rng)}{rng.choice(['', ' '])}:{spell(rng.choice(['', Decimal(1), name]), rng)},{body[1:]}"
    )
    with pytest.raises(NotCanonical):
        canonical(again.encode())
