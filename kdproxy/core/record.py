"""Parses a journal line into its record. docs/formats/journal.md is the specification.

`core/line.py` has the checksum, `core/record_encode.py` writes lines.
"""

import base64
import json
import re
from typing import Any

from kdproxy.core import key
from kdproxy.core import line as lines
from kdproxy.core.line import is_whole, remainder, seal
from kdproxy.core.models import (
    DEFAULT_NAMESPACE,
    Address,
    Answer,
    Entry,
    Form,
    HeaderPairs,
    LineName,
    NamedRecord,
    Other,
    Prompt,
    Record,
    Seat,
    Start,
    Tombstone,
    Turn,
    Usage,
)
from kdproxy.core.record_encode import RECORD_VERSION, encode
from kdproxy.errors import RecordInvalid

__all__ = ["RECORD_VERSION", "check", "decode", "decode_answer", "encode", "is_whole", "read", "remainder", "seal"]

_VERSIONS = (1, 2)
_ORIGIN = re.compile(r"[0-9a-f]{24}")
_MOST = 2**63 - 1
"""Range of a number in a name and of an ordinal: the index keeps them in 8 bytes."""
_REQUEST = ',"request":'
_SCANNER = json.JSONDecoder(parse_int=str, parse_float=str)  # finds where a value ends; its numbers are not used


def prompt_key(model: str, prompt: str, *, system: str | None = None) -> str:
    """Return the key of a prompt line; equal prompts differ in their ordinal."""
    return key.match_key(model, _turns(prompt, system))


def prompt_record(
    model: str,
    prompt: str,
    response: str,
    *,
    created_at: float,
    system: str | None = None,
    ordinal: int = 0,
    source: str | None = None,
) -> Prompt:
    """Make the record of a prompt and its answer, for trackers that run without a proxy.

    Args:
        ordinal: number of equal prompts for this model before this one.
        created_at: UTC Unix seconds.
        source: its origin, such as `train.py`.
    """
    return Prompt(
        namespace=DEFAULT_NAMESPACE,
        match_key=prompt_key(model, prompt, system=system),
        ordinal=ordinal,
        model=model,
        turns=_turns(prompt, system),
        response=response,
        prompt_hash=key.prompt_hash(prompt),
        created_at=created_at,
        source=source,
    )


def read_prompt(line: bytes) -> tuple[str, str] | None:
    """Return (key, response) of a prompt line, or None if it is damaged or of another kind."""
    try:
        found = decode(line)
    except RecordInvalid:
        return None
    return (found.match_key, found.response) if isinstance(found, Prompt) else None


def read_bill(line: bytes) -> tuple[str, Usage | None, str | None] | None:
    """Return (key, tokens, cost in USD as decimal text) of an answer line; None if it is damaged or of another kind."""
    try:
        found = decode(line)
    except RecordInvalid:
        return None
    return (found.address.key, found.answer.usage, found.cost_usd) if isinstance(found, Entry) else None


def _turns(prompt: str, system: str | None) -> tuple[Turn, ...]:
    asked = Turn(role="user", text=prompt)
    return (asked,) if system is None else (Turn(role="system", text=system), asked)


def check(line: bytes) -> dict[str, Any]:
    """Verify a line's checksum and version and return its members.

    Raises:
        RecordInvalid: with the reason.
    """
    members = lines.members_of(line)
    version = members.get("v")
    if version not in _VERSIONS or type(version) is not int:
        raise RecordInvalid(
            f"A journal line has version {version!r}; this release reads versions up to {RECORD_VERSION}.",
            hint="A newer kdproxy wrote it, and nothing is lost: upgrade to read it.",
        )
    return members


def decode(line: bytes) -> Record:
    """Read one line.

    Raises:
        RecordInvalid: with the reason.
    """
    return read(line).record


def read(line: bytes) -> NamedRecord:
    """Read one line with its name.

    Raises:
        RecordInvalid: with the reason.
    """
    members = check(line)
    version = members["v"]
    try:
        is_named = version > 1 or "origin" in members  # a scrubbed line of version 1 states its name
        name = _name(members["origin"], members["seq"]) if is_named else _sha_name(members)
        match members["kind"]:
            case "answer":
                return NamedRecord(_entry(members, line), name, version)
            case "prompt":
                return NamedRecord(_prompt(members), name, version)
            case "tombstone":
                return NamedRecord(_tombstone(members), name, version)
            case str(kind) if version > 1:
                return NamedRecord(_later(kind, members), name, version)
            case kind:
                raise lines.invalid(f"its kind {kind!r} is unknown")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise lines.invalid(f"a member is missing or of the wrong type ({error})") from error


def decode_answer(line: bytes, address: Address, form: Form) -> Answer:
    """Read the answer of one line for a hit, and check that it has the requested address. Its usage is left out.

    Raises:
        RecordInvalid: the line is damaged, or has another address.
    """
    members = check(line)
    if (
        members.get("key") != address.key
        or members.get("ordinal") != address.ordinal
        or members.get("namespace") != address.namespace
        or members.get("form") != form
    ):
        raise lines.invalid("it belongs to another address")
    try:
        return _answer(members, form, None, _has_copy(members))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise lines.invalid(f"a member is missing or of the wrong type ({error})") from error


def _has_copy(members: dict[str, Any]) -> bool | None:
    """Whether the provider was asked to keep a copy. Version 1 has it only in the request; absent means yes there."""
    found: Any = members.get("store")
    if members["v"] == 1:
        request = members.get("request")
        found = request.get("store") if isinstance(request, dict) else None
        if found is None and members.get("endpoint") == "responses":
            return True
    return found if isinstance(found, bool) else None


def _answer(members: dict[str, Any], form: Form, usage: Usage | None, has_copy: bool | None = None) -> Answer:
    text, asked_form = members.get("body"), members.get("asked_form")
    return Answer(
        int(members["status"]),
        _pairs(members["headers"]),
        base64.b64decode(members["body_base64"], validate=True) if text is None else text.encode("utf-8"),
        form,
        usage,
        members.get("stream_options"),
        has_copy,
        None if asked_form is None else Form(asked_form),
    )


def _entry(members: dict[str, Any], line: bytes) -> Entry:
    get = members.get
    finish, generation = get("finish"), get("generation")
    return Entry(
        address=_address(members),
        upstream=members["upstream"],
        provider=members["provider"],
        endpoint=members["endpoint"],
        method=members["method"],
        path=members["path"],
        query=members["query"],
        request_headers=_pairs(members["request_headers"]),
        request=None if get("request") is None else _request_text(line),
        prompt_hash=get("prompt_hash"),
        model=get("model"),
        answer=_answer(members, Form(members["form"]), read_usage(get("usage"))),
        cost_usd=get("cost_usd"),
        created_at=float(members["created_at"]),
        elapsed_seconds=get("elapsed_seconds"),
        response_id=get("response_id"),
        key_version=1 if members["v"] == 1 else get("key_version"),
        finish=None if finish is None else tuple(finish),
        refusal=get("refusal"),
        price=get("price"),
        billed=get("billed"),
        attempts=get("attempts"),
        store=get("store"),
        credential=get("credential"),
        call=get("call"),
        generation=None if generation is None else name_from(generation),
        replaces=tuple(map(name_from, get("replaces", ()))),
    )


def read_usage(members: Any) -> Usage | None:
    """Read the classes that this release knows."""
    if members is None:
        return None
    if not isinstance(members, dict):
        raise TypeError("usage is not an object")
    return Usage(**{name: members.get(name) for name in Usage._fields})


def _request_text(line: bytes) -> bytes:
    """Cut the request out of the text: parsing its numbers could change it.

    No member before it holds an object, and quotes in strings are escaped, so the first such name is the right one.
    """
    text = line.decode("utf-8")
    start = text.index(_REQUEST) + len(_REQUEST)
    _, end = _SCANNER.raw_decode(text, start)
    return text[start:end].encode("utf-8")


def _prompt(members: dict[str, Any]) -> Prompt:
    return Prompt(
        namespace=members["namespace"],
        match_key=members["key"],
        ordinal=int(members["ordinal"]),
        model=members["model"],
        turns=tuple(Turn(role=turn["role"], text=turn["content"]) for turn in members["messages"]),
        response=members["response"],
        prompt_hash=members["prompt_hash"],
        created_at=float(members["created_at"]),
        source=members.get("source"),
    )


def _tombstone(members: dict[str, Any]) -> Tombstone:
    return Tombstone(
        namespace=members["namespace"],
        key=members["key"],
        ordinal=int(members["ordinal"]),
        kind=members["of"],
        reason=members["reason"],
        created_at=float(members["created_at"]),
        withdraws=tuple(map(name_from, members.get("withdraws", ()))),
    )


def _later(kind: str, members: dict[str, Any]) -> Seat | Start | Other:
    """Read a line of a kind that version 1 did not have."""
    match kind:
        case "seat":
            return Seat(
                address=_address(members),
                key_version=int(members["key_version"]),
                generation=name_from(members["generation"]),
                home=_home(members),
                created_at=float(members["created_at"]),
            )
        case "start":
            return Start(created_at=float(members["created_at"]), release=str(members["release"]))
        case _:
            created_at = members.get("created_at")
            return Other(kind=kind, created_at=created_at if isinstance(created_at, int | float) else 0.0)


def _home(members: dict[str, Any]) -> Address:
    key, ordinal = str(members["home_key"]), int(members["home_ordinal"])
    if not 0 <= ordinal <= _MOST:
        raise ValueError("not an ordinal")
    return Address(members["namespace"], key, ordinal)


def name_from(text: str) -> LineName:
    """Read a line's name from a member. Raises ValueError."""
    origin, slash, seq = text.partition("/")
    if not slash or not seq.isdecimal():
        raise ValueError("not the name of a line")
    return _name(origin, int(seq))


def _name(origin: str, seq: int) -> LineName:
    if not _ORIGIN.fullmatch(origin) or type(seq) is not int or not 0 <= seq <= _MOST:
        raise ValueError("not the name of a line")
    return LineName(origin, seq)


def _sha_name(members: dict[str, Any]) -> LineName:
    return LineName(members["sha256"][:24], 0)


def _address(members: dict[str, Any]) -> Address:
    return Address(members["namespace"], members["key"], int(members["ordinal"]))


def _pairs(rows: list[list[str]]) -> HeaderPairs:
    return tuple([(name, value) for name, value in rows])
