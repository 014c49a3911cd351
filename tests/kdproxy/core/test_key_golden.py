"""The key's specification, three times over: the committed vectors, the code, and docs/keys.md written out below.

The vectors never change: a changed key is a lost cache. A new rule is a new key version with a new file.
"""

import base64
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from kdproxy.core import canonical, key, multipart

VECTORS = Path(__file__).parents[2] / "data" / "keys_v1.json"
ROWS: list[dict[str, Any]] = json.loads(VECTORS.read_text(encoding="utf-8"))


def raw_body(row: dict[str, Any]) -> bytes:
    request = row["request"]
    return request["body"].encode() if "body" in request else base64.b64decode(request["body_base64"])


def code(row: dict[str, Any]) -> tuple[str, bytes, str]:
    """Canonical query, canonical body and key, as the package makes them."""
    request = row["request"]
    out = frozenset(request["out_of_key"])
    if "parts" in row:
        parts = multipart.parse(raw_body(row), request["content_type"])
        assert parts is not None
        body = key.form_body(parts, out_of_key=out)
    else:
        body = key.json_body(canonical.parse(raw_body(row)), out_of_key=out)
    query = key.canonical_query(request["query"])
    made = key.request_key(
        upstream=request["upstream"],
        method=request["method"],
        path=request["path"],
        query=query,
        headers=CIMultiDict(request["headers"]),
        body=body,
    )
    return query, body, made


@pytest.mark.parametrize("row", [row for row in ROWS if row["key"] is not None], ids=lambda row: row["id"])
def test_golden_vector(row: dict[str, Any]) -> None:
    assert code(row) == (row["canonical_query"], base64.b64decode(row["canonical_body_base64"]), row["key"])
    assert specification(row) == row["key"]


@pytest.mark.parametrize("row", [row for row in ROWS if row["key"] is None], ids=lambda row: row["id"])
def test_golden_refusal(row: dict[str, Any]) -> None:
    with pytest.raises(canonical.NotCanonical):
        code(row)


def test_vectors_are_many_and_differ_where_they_say_so() -> None:
    assert len(ROWS) >= 40
    assert len({row["id"] for row in ROWS}) == len(ROWS)
    by_group: dict[str, set[str]] = {}
    for row in ROWS:
        if row["key"] is not None:
            by_group.setdefault(row["meaning"], set()).add(row["key"])
    assert all(len(keys) == 1 for keys in by_group.values())
    assert len({key for keys in by_group.values() for key in keys}) == len(by_group)


def test_another_process_with_another_hash_seed_makes_the_same_keys() -> None:
    program = (
        "import json, runpy, sys\n"
        "here = runpy.run_path(sys.argv[1])\n"
        "print(json.dumps([here['code'](row)[2] for row in here['ROWS'] if row['key'] is not None]))\n"
    )
    for seed in ("0", "4242"):
        made = subprocess.run(
            [sys.executable, "-c", program, __file__],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            timeout=60,
        )
        assert json.loads(made.stdout) == [row["key"] for row in ROWS if row["key"] is not None]


# -- docs/keys.md, written out with nothing of the package ----------------------------------------------------


def specification(row: dict[str, Any]) -> str:
    request = row["request"]
    fields = [
        "kdproxy-key",
        "1",
        request["upstream"],
        request["method"].upper(),
        request["path"],
        row["canonical_query"],
    ]
    for name in ("anthropic-beta", "anthropic-version", "openai-beta"):
        lines = [value for line, value in request["headers"] if line.lower() == name]
        if lines:
            fields.append(name + ":" + ",".join(sorted(part.strip() for part in ",".join(lines).split(","))))
    out = set(request["out_of_key"])
    if "parts" in row:
        body = b"form:" + b"".join(
            frame(
                frame(part["name"].encode())
                + frame(b"-" if part["filename"] is None else b"=" + part["filename"].encode())
                + frame(b"-" if part["content_type"] is None else b"=" + part["content_type"].encode())
                + hashlib.sha256(base64.b64decode(part["content_base64"])).digest()
            )
            for part in sorted(row["parts"], key=lambda part: part["name"].encode())
            if part["name"] not in out
        )
    else:
        members = json.loads(raw_body(row), parse_int=Number, parse_float=Number)
        body = b"json:" + write({name: value for name, value in members.items() if name not in out}).encode()
    framed = b"".join(frame(field.encode()) for field in fields) + frame(b"") + frame(body)
    return hashlib.sha256(framed).hexdigest()


def frame(field: bytes) -> bytes:
    return len(field).to_bytes(8, "big") + field


class Number(str):
    """A number as it was written."""


def write(value: Any) -> str:
    match value:
        case Number():
            return write_number(value)
        case dict():
            names = sorted(value, key=lambda name: name.encode())
            return "{" + ",".join(f"{write(name)}:{write(value[name])}" for name in names) + "}"
        case list():
            return "[" + ",".join(map(write, value)) + "]"
        case str():
            short = {8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}
            escapes = {code: f"\\u{code:04x}" for code in range(32)} | short
            return '"' + value.translate(escapes) + '"'
        case _:
            return {None: "null", True: "true", False: "false"}[value]


def write_number(text: str) -> str:
    mantissa, _, exponent = text.lower().partition("e")
    sign = "-" if mantissa.startswith("-") else ""
    whole, _, part = mantissa.lstrip("-").partition(".")
    power = int(exponent or "0") - len(part)
    digits = (whole + part).lstrip("0")
    power += len(digits) - len(digits.rstrip("0"))
    digits = digits.rstrip("0")
    point = len(digits) + power  # where the decimal point stands, counted from the first digit
    if not digits:
        return "0"
    if power >= 0:
        return sign + (digits + "0" * power if point <= 40 else f"{digits}e{power}")
    if len(digits) > 15 or point <= -300:
        return f"{sign}{digits}e{power}"
    if point > 0:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if point > -5:
        return f"{sign}0.{'0' * -point}{digits}"
    return f"{sign}{digits[0]}{'.' if digits[1:] else ''}{digits[1:]}e{point - 1}"


@given(
    st.from_regex(
        r"-?(0|[1-9][0-9]{0,24})(\.[0-9]{1,24})?([eE][+-]?[0-9]{1,3})?", fullmatch=True, alphabet="0123456789.-+eE"
    )
)
def test_any_number_is_written_as_specified(text: str) -> None:
    assert canonical.canonical(text.encode()).decode() == write_number(text)
    assert canonical.canonical(f"[{text},1e99]".encode()).decode() == f"[{write_number(text)},{write_number('1e99')}]"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_written_as_specified(text: str) -> None:
    spelled = json.dumps(text).encode()
    assert canonical.canonical(spelled).decode() == write(text)
    assert canonical.canonical(b"[1e99," + spelled + b"]").decode() == f"[{write_number('1e99')},{write(text)}]"
