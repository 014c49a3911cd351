"""Writes a record as a journal line. docs/formats/journal.md is the specification."""

import base64
import json
from collections.abc import Mapping
from itertools import compress, repeat
from json.encoder import encode_basestring_ascii as _text
from operator import is_not
from typing import Any

import orjson

from kdproxy.core import canonical
from kdproxy.core.line import digest, seal
from kdproxy.core.models import Address, Entry, LineName, Other, Prompt, Record, Seat, Start, Tombstone, Usage

RECORD_VERSION = 2
"""The version that is written; all earlier versions are read."""


def encode(record: Record, name: LineName | None = None) -> bytes:
    """Return the record's line, line break included.

    Args:
        name: the line's name; None: derived from the record's content, so that equal records have equal lines.
    """
    return seal(draft(record, content_name(record) if name is None else name))


def draft(record: Record, name: LineName) -> bytes:
    """Return the record's JSON object without its checksum."""
    members = {"v": RECORD_VERSION, "kind": _kind(record), "origin": name.origin, "seq": name.seq}
    match record:
        case Entry():
            members |= _entry_members(record)
        case Prompt():
            members |= _prompt_members(record)
        case Tombstone():
            members |= _tombstone_members(record)
        case Seat():
            members |= _seat_members(record)
        case Start():
            members |= {"created_at": record.created_at, "release": record.release}
        case Other():
            raise TypeError("a line of an unknown kind is copied, not written")
    return dump(_given(members))


def _given(members: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is None. No comprehension: for 40 members it takes 400 opcodes of the interpreter."""
    return dict(compress(members.items(), map(is_not, members.values(), repeat(None))))


def dump(members: dict[str, Any]) -> bytes:
    """Return a JSON object's text, in UTF-8."""
    try:
        return orjson.dumps(members)
    except orjson.JSONEncodeError:
        # Undecodable bytes of a header or path arrive as lone surrogates; they must not cost a paid answer.
        return orjson.dumps(_replace_surrogates(members))


def settled(text: bytes, *, generation: LineName | None, replaces: tuple[LineName, ...]) -> bytes:
    """Complete an answer's draft with what only the writer knows: its generation, and the generations that it ends."""
    tail = b""
    if generation is not None:
        tail += b',"generation":"%b"' % str(generation).encode()
    if replaces:
        tail += b',"replaces":' + orjson.dumps([str(name) for name in replaces])
    return seal(text[:-1] + tail + b"}" if tail else text)


def content_name(record: Record) -> LineName:
    """Name a record by its content: for records that no writer process bought, such as rows of a tracker."""
    match record:
        case Entry():
            said: tuple[object, ...] = (*record.address, record.answer.form, record.answer.body.hex())
        case Prompt():
            # Written out, and the same text: `warm` makes one for each row.
            namespace, key, response = _text(record.namespace), _text(record.match_key), _text(record.response)
            return _named(f'["prompt", {namespace}, {key}, {record.ordinal}, {response}]')
        case Tombstone():
            said = (record.namespace, record.key, record.ordinal, *map(str, record.withdraws), record.created_at)
        case Seat():
            said = (*record.address, str(record.generation))
        case Start() | Other():
            said = (record.created_at,)
    # The same text as json.dumps of the list, which takes twice as long for a list of texts.
    return _named(f"[{', '.join([_json(value) for value in (_kind(record), *said)])}]")


def _named(framed: str) -> LineName:
    return LineName(digest(framed.encode())[:24].decode(), 0)


def _json(value: object) -> str:
    if type(value) is str:
        return _text(value)
    return str(value) if type(value) is int else json.dumps(value)


def _kind(record: Record) -> str:
    return record.kind if isinstance(record, Other) else _KINDS[type(record)]


_KINDS: dict[type, str] = {Entry: "answer", Prompt: "prompt", Tombstone: "tombstone", Seat: "seat", Start: "start"}


def _entry_members(entry: Entry) -> dict[str, Any]:
    answer, options = entry.answer, entry.answer.stream_options
    members: dict[str, Any] = {
        **_address_members(entry.address),
        "key_version": entry.key_version,
        "form": answer.form,
        "asked_form": answer.asked_form,
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
        "usage": None if answer.usage is None else usage_members(answer.usage),
        "cost_usd": entry.cost_usd,
        "price": entry.price,
        "billed": entry.billed,
        "attempts": entry.attempts,
        "finish": entry.finish,
        "refusal": entry.refusal,
        "store": entry.store,
        "credential": entry.credential,
        "call": entry.call,
        "response_id": entry.response_id,
        "created_at": entry.created_at,
        "elapsed_seconds": entry.elapsed_seconds,
        "generation": None if entry.generation is None else str(entry.generation),
        "replaces": _names(entry.replaces) if entry.replaces else None,
    }
    try:
        members["body"] = answer.body.decode("utf-8")
    except UnicodeDecodeError:
        members["body_base64"] = base64.b64encode(answer.body).decode("ascii")
    return members


def usage_members(usage: Usage) -> dict[str, int]:
    """Return only what the provider reported."""
    return _given(usage._asdict())


def _address_members(address: Address) -> dict[str, Any]:
    return {"namespace": address.namespace, "key": address.key, "ordinal": address.ordinal}


def _names(names: tuple[LineName, ...]) -> list[str] | None:
    return [str(name) for name in names] or None


def _prompt_members(prompt: Prompt) -> dict[str, Any]:
    return {
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
        "namespace": tombstone.namespace,
        "key": tombstone.key,
        "ordinal": tombstone.ordinal,
        "of": tombstone.kind,
        "withdraws": _names(tombstone.withdraws),
        "reason": tombstone.reason,
        "created_at": tombstone.created_at,
    }


def _seat_members(seat: Seat) -> dict[str, Any]:
    return {
        **_address_members(seat.address),
        "key_version": seat.key_version,
        "generation": str(seat.generation),
        "home_key": seat.home.key,
        "home_ordinal": seat.home.ordinal,
        "created_at": seat.created_at,
    }


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
