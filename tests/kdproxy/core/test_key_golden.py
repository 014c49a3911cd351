"""The key's specification, three times over: the committed vectors, the code, and docs/keys.md written out below.

The vectors never change: a changed key is a lost cache. A new rule is a new key version with a new file.
"""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from kdproxy.core import canonical, key, key_v1, multipart, position

DATA = Path(__file__).parents[2] / "data"
FILES = {"1": DATA / "keys_v1.json", "2": DATA / "keys_v2.json"}
ROWS: list[dict[str, Any]] = [
    {"version": version, **row} for version, file in FILES.items() for row in json.loads(file.read_text("utf-8"))
]


def raw_body(row: dict[str, Any]) -> bytes:
    request = row["request"]
    return request["body"].encode() if "body" in request else base64.b64decode(request["body_base64"])


def out_of(row: dict[str, Any]) -> list[str]:
    """Positions that are out of the key; version 1 knew outermost members alone."""
    request = row["request"]
    return list(request["out_of_key"] if row["version"] == "1" else request["out"])


def code(row: dict[str, Any]) -> tuple[str, bytes, str]:
    """Canonical query, canonical body and key, as the package makes them."""
    request = row["request"]
    if "parts" in row:
        parts = multipart.parse(raw_body(row), request["content_type"])
        assert parts is not None
        body = key.form_body(parts, out_of_key=frozenset(out_of(row)))
    else:
        body = key.json_body(canonical.parse(raw_body(row)), out=position.tree(out_of(row)))
    query = key.canonical_query(request["query"])
    facts: dict[str, Any] = {
        "upstream": request["upstream"],
        "method": request["method"],
        "path": request["path"],
        "query": query,
        "headers": CIMultiDict(request["headers"]),
        "body": body,
    }
    if row["version"] == "1":
        return query, body, key_v1.request_key(**facts)
    return query, body, key.request_key(**facts, key_headers=tuple(request.get("key_headers", ())))


def named(row: dict[str, Any]) -> str:
    return f"{row['version']}-{row['id']}"


@pytest.mark.parametrize("row", [row for row in ROWS if row["key"] is not None], ids=named)
def test_golden_vector(row: dict[str, Any]) -> None:
    assert code(row) == (row["canonical_query"], base64.b64decode(row["canonical_body_base64"]), row["key"])
    assert specification(row) == row["key"]


@pytest.mark.parametrize("row", [row for row in ROWS if row["key"] is None], ids=named)
def test_golden_refusal(row: dict[str, Any]) -> None:
    with pytest.raises(canonical.NotCanonical):
        code(row)


@pytest.mark.parametrize("version", FILES)
def test_vectors_are_many_and_differ_where_they_say_so(version: str) -> None:
    rows = [row for row in ROWS if row["version"] == version]
    assert len(rows) >= 100
    assert len({row["id"] for row in rows}) == len(rows)
    by_group: dict[str, set[str]] = {}
    for row in rows:
        if row["key"] is not None:
            by_group.setdefault(row["meaning"], set()).add(row["key"])
    assert all(len(keys) == 1 for keys in by_group.values())
    assert len({key for keys in by_group.values() for key in keys}) == len(by_group)


def test_no_key_of_one_version_is_one_of_the_other() -> None:
    one, two = ({row["key"] for row in ROWS if row["key"] and row["version"] == version} for version in FILES)
    assert one.isdisjoint(two)


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


ROUTING = {
    *("azureml-model-deployment", "extra-parameters", "x-ms-model-mesh-model-name"),
    *("helicone-fallbacks", "helicone-model-override", "helicone-openai-api-base", "helicone-target-provider"),
    *("helicone-target-url", "x-portkey-azure-deployment-id", "x-portkey-azure-endpoint-name"),
    *("x-portkey-azure-model-name", "x-portkey-azure-resource-name", "x-portkey-config", "x-portkey-custom-host"),
    *("x-portkey-provider", "x-portkey-virtual-key"),
}
CREDENTIAL = re.compile(
    r".*(api_?key|access_?key|access_key_id|secret_?key|private_key|subscription_key|embedding_?key|access_?token"
    r"|ad_token|api_token|auth_token|authorization_token|bearer_token|hf_token|bearer_token_bedrock|oauth_token"
    r"|refresh_token|security_token|session_token|_authorization|_credentials|_password|_secret|connection_?string"
    r"|clientsecret|fallback_credit_token)"
    r"|authorization|credentials?|password|proxy_authorization|secret|cookie"
)


def specification(row: dict[str, Any]) -> str:
    request = row["request"]
    fields = [
        "kdproxy-key",
        row["version"],
        request["upstream"],
        request["method"].upper(),
        request["path"],
        row["canonical_query"],
    ]
    clear = {"anthropic-beta", "anthropic-version", "openai-beta"}
    hashed = ROUTING | set(request.get("key_headers", ())) if row["version"] == "2" else set()
    for name in sorted(clear | hashed):
        lines = [value for line, value in request["headers"] if line.lower() == name]
        if lines and name in hashed:
            fields.append(name + ":sha256:" + hashlib.sha256(", ".join(lines).strip().encode()).hexdigest())
        elif lines:
            fields.append(name + ":" + ",".join(sorted(part.strip() for part in ",".join(lines).split(","))))
    if "parts" in row:
        body = b"form:" + b"".join(
            frame(
                frame(part["name"].encode())
                + frame(b"-" if part["filename"] is None else b"=" + part["filename"].encode())
                + frame(b"-" if part["content_type"] is None else b"=" + part["content_type"].encode())
                + hashlib.sha256(base64.b64decode(part["content_base64"])).digest()
            )
            for part in sorted(row["parts"], key=lambda part: part["name"].encode())
            if part["name"] not in out_of(row)
        )
    else:
        members = json.loads(raw_body(row), parse_int=Number, parse_float=Number)
        for place in out_of(row):
            drop(members, re.findall(r"\[\]|[^.\[\]]+", place))
        body = b"json:" + write(members).encode()
    framed = b"".join(frame(field.encode()) for field in fields) + frame(b"") + frame(body)
    return hashlib.sha256(framed).hexdigest()


def drop(value: Any, steps: list[str]) -> None:
    """Take out what stands at a position."""
    step, *rest = steps
    if step == "[]":
        for item in value if isinstance(value, list) else ():
            drop(item, rest)
    elif isinstance(value, dict):
        for name in list(value):
            if step == name or (step == "*credential*" and CREDENTIAL.fullmatch(name.lower().replace("-", "_"))):
                if step == "*credential*" and name == step:
                    continue
                if rest:
                    drop(value[name], rest)
                else:
                    del value[name]


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
