"""Canonical JSON: one byte string per meaning, so equal requests get equal keys.

There are two paths, which must agree. The fast path is orjson with a walk over the result; it is used only where orjson
is exact. The exact path is the standard library with decimal numbers. Bodies whose meaning is not certain (duplicate
members, NaN, lone surrogates, bad UTF-8, deep nesting) are refused with `NotCanonical` and pass uncached.

Rules: member order and white space are ignored; numbers are compared by value (1 = 1.0 = 1e0, big integers exact);
case and Unicode are kept as they are, nothing is normalised (RFC 8259 section 7 to 8.3 leaves both to the receiver).
"""

import json
import re
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

import orjson

MAX_DEPTH = 100
"""Deeper bodies pass uncached; no provider's schema is nearly as deep."""

_MAX_NUMBER_CHARACTERS = 4_000
_MAX_EXPONENT = 999_999
# Longer integers are written as digits and exponent: `1e3999` must not grow to 4,000 bytes.
_PLAIN_INTEGER_DIGITS = 40

_EXACT_INTEGER_FLOAT = 2.0**53
_SMALLEST_EXACT_EXPONENT = -300
_SMALLEST_EXACT_FLOAT = 1e-300

_NEGATIVE_EXPONENT = re.compile(rb"[0-9][eE]-[0-9]")
_ZEROED = bytes(ord("0") if chr(byte) in "0123456789." else byte for byte in range(256))
# Up to 15 significant digits survive a double and back; a run of 16 of them may not.
_LONG_NUMBER = b"0" * 16


class NotCanonical(ValueError):
    """The body has no single certain meaning as JSON."""


class _NeedsExactPath(Exception):
    """orjson may have lost something here."""


def parse(body: bytes) -> Any:
    """Parse a JSON body without losing anything that could distinguish two requests.

    Numbers come back as int, float or Decimal, integral floats as int.

    Raises:
        NotCanonical: the body is not JSON, or its meaning is not certain.
    """
    try:
        return _parse_fast(body)
    except (_NeedsExactPath, orjson.JSONDecodeError):
        return _parse_exact(body)


def dump(value: Any) -> bytes:
    """Write the canonical bytes of a value that `parse` returned."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except (TypeError, orjson.JSONEncodeError):
        # Reached by decimals and by integers beyond 64 bits.
        parts: list[bytes] = []
        _write(value, parts)
        return b"".join(parts)


def canonical(body: bytes) -> bytes:
    """Return the canonical bytes of a JSON body. Raises NotCanonical."""
    return dump(parse(body))


def single_line(body: bytes) -> bytes:
    """Return the same JSON text without line breaks: raw ones are white space only (RFC 8259 section 2, 7)."""
    return body.strip(b" \t\r\n").replace(b"\r", b" ").replace(b"\n", b" ")


def _parse_fast(body: bytes) -> Any:
    # Remove white space, and turn digits and dots into zeros. This changes strings too, but both tests err only on the
    # safe side.
    squeezed = body.translate(_ZEROED, b" \t\r\n")
    if _LONG_NUMBER in squeezed:
        raise _NeedsExactPath
    value = orjson.loads(body)
    has_exponent = (b"e-" in body or b"E-" in body) and _NEGATIVE_EXPONENT.search(body) is not None
    walk = _Walk(has_negative_exponent=has_exponent)
    value = walk.normalise(value, 0)
    # Each member writes one `":`; orjson keeps only the last of duplicates, so a difference means a duplicate or
    # a string that holds `":` itself. The exact path decides which.
    if walk.members != squeezed.count(b'":'):
        raise _NeedsExactPath
    return value


_AS_THEY_ARE = frozenset({str, int, bool, type(None)})


class _Walk:
    """Counts members and turns integral floats into integers, in place."""

    __slots__ = ("_has_negative_exponent", "members")

    def __init__(self, *, has_negative_exponent: bool) -> None:
        self.members = 0
        self._has_negative_exponent = has_negative_exponent

    def normalise(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind is str:
            return value
        if kind is dict:
            if depth >= MAX_DEPTH:
                raise NotCanonical("nested too deep")
            self.members += len(value)
            for name, member in value.items():
                if type(member) not in _AS_THEY_ARE:
                    value[name] = self.normalise(member, depth + 1)
            return value
        if kind is list:
            if depth >= MAX_DEPTH:
                raise NotCanonical("nested too deep")
            for index, item in enumerate(value):
                if type(item) not in _AS_THEY_ARE:
                    value[index] = self.normalise(item, depth + 1)
            return value
        if kind is float:
            return self._number(value)
        return value

    def _number(self, value: float) -> float | int:
        if self._has_negative_exponent and -_SMALLEST_EXACT_FLOAT < value < _SMALLEST_EXACT_FLOAT:
            raise _NeedsExactPath  # 1e-400 reads as 0.0
        if value.is_integer():
            if not -_EXACT_INTEGER_FLOAT < value < _EXACT_INTEGER_FLOAT:
                raise _NeedsExactPath  # 1e300 has 301 digits
            return int(value)
        return value


def _parse_exact(body: bytes) -> Any:
    try:
        text = body.decode("utf-8")
        if text.startswith("\ufeff"):
            raise NotCanonical("starts with a byte order mark")
        value = json.loads(
            text,
            parse_float=_exact_number,
            parse_int=_exact_number,
            parse_constant=_refuse_constant,
            object_pairs_hook=_object,
        )
    except UnicodeDecodeError as error:
        raise NotCanonical("not UTF-8") from error
    except RecursionError as error:
        raise NotCanonical("nested too deep") from error
    except json.JSONDecodeError as error:
        raise NotCanonical("not JSON") from error
    _check(value)
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise NotCanonical(f"{name} is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise NotCanonical("duplicate member")
    return members


def _exact_number(text: str) -> int | float | Decimal:
    """Parse a number; every spelling of one value gets the same type."""
    if len(text) > _MAX_NUMBER_CHARACTERS:
        raise NotCanonical(f"a number of over {_MAX_NUMBER_CHARACTERS} characters")
    try:
        number = Decimal(text)
    except InvalidOperation as error:
        raise NotCanonical("a number out of range") from error
    if not number:
        return 0
    if abs(number.adjusted()) > _MAX_EXPONENT:
        raise NotCanonical("a number out of range")
    _, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)  # text forms of NaN and Infinity never get here
    significant = "".join(map(str, digits)).rstrip("0")
    if exponent + len(digits) - len(significant) >= 0:
        return int(number) if number.adjusted() < _PLAIN_INTEGER_DIGITS else number
    is_exact_double = len(significant) <= 15 and number.adjusted() >= _SMALLEST_EXACT_EXPONENT
    return float(number) if is_exact_double else number


def _check(value: Any) -> None:
    """Refuse what the standard library accepts: deep nesting and lone surrogates."""
    level: list[Any] = [value]
    depth = 0
    while level:
        inner: list[Any] = []
        for node in level:
            if isinstance(node, str):
                _string(node)
            elif isinstance(node, dict | list):
                if depth >= MAX_DEPTH:
                    raise NotCanonical("nested too deep")
                inner += node
                if isinstance(node, dict):
                    inner += node.values()
        level = inner
        depth += 1


def _write(value: Any, parts: list[bytes]) -> None:
    match value:
        case dict():
            parts.append(b"{")
            for position, name in enumerate(sorted(value)):
                parts.append(b"," if position else b"")
                parts.append(_string(name))
                parts.append(b":")
                _write(value[name], parts)
            parts.append(b"}")
        case list():
            parts.append(b"[")
            for position, item in enumerate(value):
                parts.append(b"," if position else b"")
                _write(item, parts)
            parts.append(b"]")
        case str():
            parts.append(_string(value))
        case Decimal():
            parts.append(_decimal(value))
        case bool() | None:
            parts.append(orjson.dumps(value))
        case int():
            parts.append(str(value).encode())
        case _:
            parts.append(orjson.dumps(value))


def _string(text: str) -> bytes:
    try:
        return orjson.dumps(text)
    except (TypeError, orjson.JSONEncodeError) as error:
        raise NotCanonical("a string holds a lone surrogate") from error


def _decimal(number: Decimal) -> bytes:
    """One spelling per value: sign, digits without zeros at either end, exponent."""
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    text = "".join(map(str, digits)).lstrip("0")
    stripped = text.rstrip("0")
    exponent += len(text) - len(stripped)
    return f"{'-' if sign else ''}{stripped}e{exponent}".encode()
