"""One journal line <-> one record. docs/formats/journal.md is its specification.

A line is a JSON object whose last member is `sha256`: the SHA-256, in hex, of the line's bytes before
`,"sha256":`. Readable by eye and by any JSON reader; a single flipped bit is seen.
"""

import base64
import hashlib
import json
from typing import Any, NoReturn

import orjson

from kdproxy.core import canonical, key
from kdproxy.core.models import (
    DEFAULT_NAMESPACE,
    Address,
    Answer,
    Entry,
    Form,
    HeaderPairs,
    Prompt,
    Record,
    Tombstone,
    Turn,
    Usage,
)
from kdproxy.errors import RecordInvalid

RECORD_VERSION = 1
_SEAL = b',"sha256":"'
_SEAL_BYTES = len(_SEAL) + 64 + len(b'"}')
_HELD_LOCK_BYTES = 2_047
_LONG_LINE_BYTES = 32_768
_REQUEST = ',"request":'
_SCANNER = json.JSONDecoder(parse_int=str, parse_float=str)  # finds where a value ends; its numbers are not looked at


def encode(record: Record) -> bytes:
    """Return the record's line, line break included."""
    match record:
        case Entry():
            members = _entry_members(record)
        case Prompt():
            members = _prompt_members(record)
        case Tombstone():
            members = _tombstone_members(record)
    try:
        return seal(orjson.dumps(members))
    except orjson.JSONEncodeError:
        # Undecodable bytes of a header or path arrive as lone surrogates; a paid answer is not lost over them.
        return seal(orjson.dumps(_replace_surrogates(members)))


def prompt_key(model: str, prompt: str, *, system: str | None = None) -> str:
    """Return the key of a prompt line: equal ones are told apart by their ordinal."""
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
    """Make the record of a prompt and its answer, as trackers without a proxy write it.

    Args:
        ordinal: how many equal prompts for this model came before.
        created_at: UTC Unix seconds.
        source: where it came from, such as `train.py`.
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
    """Return (key, response) of a prompt line, or None where it is damaged or holds something else."""
    try:
        found = decode(line)
    except RecordInvalid:
        return None
    return (found.match_key, found.response) if isinstance(found, Prompt) else None


def read_bill(line: bytes) -> tuple[str, Usage | None, str | None] | None:
    """Return (key, tokens, cost in USD as decimal text) of an answer line, or None where it is damaged or another."""
    try:
        found = decode(line)
    except RecordInvalid:
        return None
    return (found.address.key, found.answer.usage, found.cost_usd) if isinstance(found, Entry) else None


def _turns(prompt: str, system: str | None) -> tuple[Turn, ...]:
    asked = Turn(role="user", text=prompt)
    return (asked,) if system is None else (Turn(role="system", text=system), asked)


def seal(text: bytes) -> bytes:
    """Close a JSON object with its checksum and a line break."""
    body = text[:-1]
    return b"".join((body, _SEAL, _digest(body), b'"}\n'))


def _digest(body: bytes) -> bytes:
    """SHA-256 in hex, fed in pieces below 2,048 bytes.

    From there on hashlib lets go of the interpreter's lock, and to get it back beside a busy writer thread takes ten
    times as long as the hashing (20 us against 2 us for a line of 3 KB). Long lines are worth it.
    """
    if len(body) > _LONG_LINE_BYTES:
        return hashlib.sha256(body).hexdigest().encode()
    digest = hashlib.sha256()
    for start in range(0, len(body), _HELD_LOCK_BYTES):
        digest.update(body[start : start + _HELD_LOCK_BYTES])
    return digest.hexdigest().encode()


def is_whole(line: bytes) -> bool:
    """Whether a line is as it was written, by its checksum alone."""
    line = line.rstrip(b"\r\n")
    body, tail = line[:-_SEAL_BYTES], line[-_SEAL_BYTES:]
    return tail.startswith(_SEAL) and _digest(body) == tail[len(_SEAL) : -2]


def check(line: bytes) -> dict[str, Any]:
    """Verify a line's checksum and version and return its members.

    Raises:
        RecordInvalid: with the reason.
    """
    line = line.rstrip(b"\r\n")
    body, tail = line[:-_SEAL_BYTES], line[-_SEAL_BYTES:]
    if not tail.startswith(_SEAL):
        raise _invalid("it does not end in a checksum")
    if _digest(body) != tail[len(_SEAL) : -2]:
        raise _invalid("its checksum does not match")
    try:
        members = _load(line)
    except ValueError as error:
        raise _invalid("it is not JSON") from error
    if not isinstance(members, dict):
        raise _invalid("it is not a JSON object")
    version = members.get("v")
    if version != RECORD_VERSION:
        raise RecordInvalid(
            f"A journal line has version {version!r}; this release reads version {RECORD_VERSION}.",
            hint="It was written by a newer kdproxy: upgrade to read it.",
        )
    return members


def decode(line: bytes) -> Record:
    """Read one line.

    Raises:
        RecordInvalid: with the reason.
    """
    members = check(line)
    try:
        match members["kind"]:
            case "answer":
                return _entry(members, line)
            case "prompt":
                return _prompt(members)
            case "tombstone":
                return _tombstone(members)
            case kind:
                raise _invalid(f"its kind {kind!r} is unknown")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _invalid(f"a member is missing or of the wrong type ({error})") from error


def decode_answer(line: bytes, address: Address, form: Form) -> Answer:
    """Read the answer of one line for a hit, proving that it is the one that was asked for. Its usage is left out.

    Raises:
        RecordInvalid: damaged, or the answer of another address.
    """
    members = check(line)
    if (
        members.get("key") != address.key
        or members.get("ordinal") != address.ordinal
        or members.get("namespace") != address.namespace
        or members.get("form") != form
    ):
        raise _invalid("it belongs to another address")
    try:
        return _answer(members, form, None)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _invalid(f"a member is missing or of the wrong type ({error})") from error


def _entry_members(entry: Entry) -> dict[str, Any]:
    answer, options = entry.answer, entry.answer.stream_options
    members: dict[str, Any] = {
        "v": RECORD_VERSION,
        "kind": "answer",
        "namespace": entry.address.namespace,
        "key": entry.address.key,
        "ordinal": entry.address.ordinal,
        "form": answer.form,
        "prompt_hash": entry.prompt_hash,
        "upstream": entry.upstream,
        "provider": entry.provider,
        "endpoint": entry.endpoint,
        "model": entry.model,
        "method": entry.method,
        "path": entry.path,
        "query": entry.query,
        "request_headers": entry.request_headers,
        "request": None if entry.request is None else orjson.Fragment(canonical.single_line(entry.request)),
        "status": answer.status,
        "headers": answer.headers,
        "stream_options": None if options is None else orjson.Fragment(canonical.dump(options)),
        "usage": None if answer.usage is None else _usage_members(answer.usage),
        "cost_usd": entry.cost_usd,
        "response_id": entry.response_id,
        "created_at": entry.created_at,
        "elapsed_seconds": entry.elapsed_seconds,
    }
    try:
        members["body"] = answer.body.decode("utf-8")
    except UnicodeDecodeError:
        members["body_base64"] = base64.b64encode(answer.body).decode("ascii")
    return members


def _usage_members(usage: Usage) -> dict[str, int | None]:
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
    }


def _prompt_members(prompt: Prompt) -> dict[str, Any]:
    return {
        "v": RECORD_VERSION,
        "kind": "prompt",
        "namespace": prompt.namespace,
        "key": prompt.match_key,
        "ordinal": prompt.ordinal,
        "prompt_hash": prompt.prompt_hash,
        "model": prompt.model,
        "messages": [{"role": turn.role, "content": turn.text} for turn in prompt.turns],
        "response": prompt.response,
        "created_at": prompt.created_at,
        "source": prompt.source,
    }


def _tombstone_members(tombstone: Tombstone) -> dict[str, Any]:
    return {
        "v": RECORD_VERSION,
        "kind": "tombstone",
        "namespace": tombstone.namespace,
        "key": tombstone.key,
        "ordinal": tombstone.ordinal,
        "of": tombstone.kind,
        "reason": tombstone.reason,
        "created_at": tombstone.created_at,
    }


def _answer(members: dict[str, Any], form: Form, usage: Usage | None) -> Answer:
    text = members.get("body")
    return Answer(
        status=int(members["status"]),
        headers=_pairs(members["headers"]),
        body=base64.b64decode(members["body_base64"], validate=True) if text is None else text.encode("utf-8"),
        form=form,
        usage=usage,
        stream_options=members["stream_options"],
    )


def _entry(members: dict[str, Any], line: bytes) -> Entry:
    usage = members["usage"]
    return Entry(
        address=_address(members),
        upstream=members["upstream"],
        provider=members["provider"],
        endpoint=members["endpoint"],
        method=members["method"],
        path=members["path"],
        query=members["query"],
        request_headers=_pairs(members["request_headers"]),
        request=None if members["request"] is None else _request_text(line),
        prompt_hash=members["prompt_hash"],
        model=members["model"],
        answer=_answer(members, Form(members["form"]), None if usage is None else Usage(**usage)),
        cost_usd=members["cost_usd"],
        created_at=float(members["created_at"]),
        elapsed_seconds=members["elapsed_seconds"],
        response_id=members["response_id"],
    )


def _request_text(line: bytes) -> bytes:
    """Cut the request out as it was written: a parser's numbers could mean another request.

    No member before it holds an object, and no quote stands bare in a string, so the first such name is the right one.
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
        source=members["source"],
    )


def _tombstone(members: dict[str, Any]) -> Tombstone:
    return Tombstone(
        namespace=members["namespace"],
        key=members["key"],
        ordinal=int(members["ordinal"]),
        kind=members["of"],
        reason=members["reason"],
        created_at=float(members["created_at"]),
    )


def _address(members: dict[str, Any]) -> Address:
    return Address(namespace=members["namespace"], key=members["key"], ordinal=int(members["ordinal"]))


def _load(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        # A request may hold a number beyond double, which orjson refuses. What else it refuses is no JSON, or text that
        # can be neither indexed nor served: lone surrogates.
        members = json.loads(line, parse_constant=_refuse_constant)
        json.dumps(members, ensure_ascii=False).encode()
        return members


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _replace_surrogates(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
        case dict():
            return {name: _replace_surrogates(member) for name, member in value.items()}
        case tuple() | list():
            return [_replace_surrogates(item) for item in value]
        case _:
            return value


def _pairs(rows: list[list[str]]) -> HeaderPairs:
    return tuple((name, value) for name, value in rows)


def _invalid(reason: str) -> RecordInvalid:
    return RecordInvalid(
        f"A journal line cannot be used: {reason}.",
        hint="`kdproxy verify` lists every damaged line; `kdproxy verify --repair` drops them from the index.",
    )
