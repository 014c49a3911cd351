"""Prepares a request's body and its answer for the journal: credentials are replaced by stars."""

import json
from collections.abc import Mapping
from typing import Any

import orjson

from kdproxy.core import canonical
from kdproxy.providers.member import Members


def stored_exchange(
    members: Members, body: bytes, answer: bytes, parsed: Mapping[str, Any] | None
) -> tuple[bytes, bytes]:
    """Return a JSON request and its answer as they may be stored: as below, in one walk if nothing is secret."""
    if parsed is not None and members.starred(parsed) is parsed:
        return canonical.single_line(body), answer
    return stored_request(members, body, parsed), scrubbed(answer, members, parsed)


def stored_request(members: Members, body: bytes, parsed: Mapping[str, Any] | None) -> bytes:
    """Return a JSON body as it may be stored, on one line: the original text, unless it holds a credential.

    A body with a credential is serialised again: the same members in the same order, each number as it was written.

    Args:
        parsed: the body's members, if they have been parsed (even with loss of precision); saves a second parse.
    """
    if parsed is not None and members.starred(parsed) is parsed:
        return canonical.single_line(body)
    value = json.loads(body, parse_int=_as_written, parse_float=_as_written)
    starred = members.starred(value)
    return canonical.single_line(body) if starred == value else orjson.dumps(starred)


def scrubbed(answer: bytes, members: Members, parsed: Mapping[str, Any] | None) -> bytes:
    """Return an answer with the request's credentials replaced by stars; nearly always unchanged.

    Some servers repeat a request's tools in the answer. The length does not change.
    """
    for secret in () if parsed is None else members.credentials(parsed):
        if len(secret) >= SHORTEST_SECRET:
            text = secret.encode("utf-8", "surrogatepass")
            answer = answer.replace(text, b"*" * len(text))
    return answer


SHORTEST_SECRET = 8
"""In characters; a shorter text may occur in an answer by chance."""


def _as_written(number: str) -> orjson.Fragment:
    return orjson.Fragment(number)
