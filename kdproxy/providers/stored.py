"""Prepares a request's body and its answer for the journal: credentials are replaced by stars."""

import json
from collections.abc import Mapping
from typing import Any

import orjson

from kdproxy.core import canonical
from kdproxy.providers.member import Members


def stored_exchange(
    members: Members, body: bytes, answer: bytes, looked_at: Mapping[str, Any] | None
) -> tuple[bytes, bytes]:
    """Return a JSON request and its answer as they may be stored: as below, in one walk if nothing is secret."""
    if looked_at is not None and members.starred(looked_at) is looked_at:
        return canonical.single_line(body), answer
    return stored_request(members, body, looked_at), scrubbed(answer, members, looked_at)


def stored_request(members: Members, body: bytes, looked_at: Mapping[str, Any] | None) -> bytes:
    """Return a JSON body as it may be stored, on one line: the original text, unless it holds a credential.

    A body with a credential is serialised again: the same members in the same order, each number as it was written.

    Args:
        looked_at: the body's members, if they have been parsed (even with loss of precision); saves a second parse.
    """
    if looked_at is not None and members.starred(looked_at) is looked_at:
        return canonical.single_line(body)
    value = json.loads(body, parse_int=_as_written, parse_float=_as_written)
    starred = members.starred(value)
    return canonical.single_line(body) if starred == value else orjson.dumps(starred)


def scrubbed(answer: bytes, members: Members, looked_at: Mapping[str, Any] | None) -> bytes:
    """Return an answer with the request's credentials replaced by stars; nearly always unchanged.

    Some servers repeat a request's tools in the answer. The length does not change.
    """
    for secret in () if looked_at is None else members.credentials(looked_at):
        if len(secret) >= SHORTEST_SECRET:
            text = secret.encode("utf-8", "surrogatepass")
            answer = answer.replace(text, b"*" * len(text))
    return answer


SHORTEST_SECRET = 8
"""In characters; a shorter text may occur in an answer by chance."""


def _as_written(number: str) -> orjson.Fragment:
    return orjson.Fragment(number)
