"""Batch jobs: pairs a provider's input and output lines by custom_id and makes full entries of them.

OpenAI: {"custom_id", "method", "url", "body"} with {"custom_id", "response": {"status_code", "body"}, "error"}
(Batch API reference, read 2026-11). Anthropic: {"custom_id", "params"} with {"custom_id", "result": {"type",
"message"}} (Message Batches reference, read 2026-11). The key is the one that the same request gets when asked live.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

import orjson

from kdproxy.core import canonical, key
from kdproxy.core.models import DEFAULT_NAMESPACE, Address, Answer, Entry, Form
from kdproxy.core.routing import Router
from kdproxy.errors import RequestRefused
from kdproxy.ops.warm.row import RowFailed, RowUnusable
from kdproxy.providers import question
from kdproxy.providers.base import Broken, Criteria, NotAQuestion, json_object
from kdproxy.providers.prompt_match import match
from kdproxy.providers.question import Asking
from kdproxy.providers.stored import stored_request

NEW_VERSION, OLD_VERSION = "2026-10-21", "2023-06-01"
"""Values of Anthropic's `anthropic-version` header, which is part of the key; batch lines leave it out. Its Python
client sends the newer one from 2.0 on, and that refuses these members (Anthropic's page on versions, read 2026-11):"""
_OLD_MEMBERS = frozenset({"temperature", "top_p", "top_k"})

_MESSAGES_PATH = "/v1/messages"


class Side(StrEnum):
    """Which half of a pair a line is."""

    INPUT = "input"
    OUTPUT = "output"


def side_of(members: Mapping[str, Any]) -> Side | None:
    """Return which half a batch line is, from its members; None for any other line."""
    if not isinstance(members.get("custom_id"), str):
        return None
    if isinstance(members.get("params"), dict) or isinstance(members.get("body"), dict):
        return Side.INPUT
    if "result" in members or "response" in members:
        return Side.OUTPUT
    return None


def is_failed(members: Mapping[str, Any]) -> bool:
    """Whether an output line reports that the provider did not answer."""
    try:
        _reply(members)
    except RowFailed:
        return True
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Half:
    """One line of a pair."""

    file: str
    line: int
    text: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Input and output of one custom_id; a missing half is None."""

    custom_id: str
    input: Half | None
    output: Half | None
    is_ambiguous: bool
    """Whether different lines of one side have the same custom_id, so that they cannot be paired."""

    @property
    def place(self) -> Half:
        """The half by which a user finds the pair."""
        half = self.output or self.input
        assert half is not None  # a pair has at least one
        return half


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    """A half on disk."""

    is_failed: bool

    file: str
    line: int
    offset: int
    length: int
    digest: bytes


class Pairing:
    """Collects halves until all files are read, since pairs are only known then. Texts wait on disk."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="kdproxy-")  # noqa: SIM115 - closed by __exit__
        self._halves: dict[Side, dict[str, _Waiting]] = {side: {} for side in Side}
        self._ambiguous: set[str] = set()
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, side: Side, custom_id: str, text: bytes, *, file: str, line: int, is_failed: bool = False) -> None:
        """Add one half; a repeated line changes nothing.

        Args:
            is_failed: the provider did not answer. A later success for the same custom_id replaces it.
        """
        halves = self._halves[side]
        digest = hashlib.sha256(text).digest()
        known = halves.get(custom_id)
        if known is not None and (is_failed or not known.is_failed):
            if known.digest != digest and not is_failed:
                self._ambiguous.add(custom_id)
            return
        self._file.write(text)
        halves[custom_id] = _Waiting(
            file=file, line=line, offset=self._size, length=len(text), digest=digest, is_failed=is_failed
        )
        self._size += len(text)

    def pairs(self) -> Iterator[Pair]:
        """Yield all pairs in the order of their outputs, then the inputs without an output."""
        inputs, outputs = self._halves[Side.INPUT], self._halves[Side.OUTPUT]
        for custom_id in (*outputs, *(name for name in inputs if name not in outputs)):
            yield Pair(
                custom_id=custom_id,
                input=self._read(inputs.get(custom_id)),
                output=self._read(outputs.get(custom_id)),
                is_ambiguous=custom_id in self._ambiguous,
            )

    def _read(self, half: _Waiting | None) -> Half | None:
        if half is None:
            return None
        self._file.seek(half.offset)
        return Half(file=half.file, line=half.line, text=self._file.read(half.length))


def entry_of(
    asked: bytes, answered: bytes, *, router: Router, now: float, anthropic_version: str | None = None
) -> tuple[Entry, float | None]:
    """Make the entry that buying this answer live would have made, with its JSON body and its time.

    Args:
        asked: the input line.
        answered: the output line.
        anthropic_version: what live requests carry; None: derived from the members of the request.

    Raises:
        RowFailed: the provider did not answer.
        RowUnusable: the answer is incomplete, or such questions are not cached.
    """
    path, body, headers = _request(asked, anthropic_version)
    status, reply, request_id = _reply(orjson.loads(answered))
    try:
        route = router.route(path)
    except RequestRefused as error:
        raise RowUnusable(f"{error.message} Give --upstream NAME=URL") from error
    endpoint = question.endpoint_of("POST", route.path)
    if endpoint is None or endpoint.takes_form:
        raise RowUnusable(f"answers of {path!r:.80} are not cached")
    asking = Asking(upstream=route.upstream, path=route.path, query="", headers=headers, body=body)
    found = question.read(endpoint, asking)
    if isinstance(found, NotAQuestion):
        raise RowUnusable(f"it is not known to be a pure question: {found.reason}")
    text = orjson.dumps(reply)
    judgement = endpoint.judge(text, Criteria(choices=found.choices))
    if isinstance(judgement, Broken):
        raise RowUnusable(f"its answer is not whole: {judgement.reason}")
    response_headers = [("Content-Type", "application/json")]
    if request_id is not None:
        response_headers.append(("x-request-id", request_id))
    said_at, parsed = _created(reply), json_object(body)
    entry = Entry(
        address=Address(namespace=DEFAULT_NAMESPACE, key=found.key),
        upstream=route.upstream.name,
        provider=found.provider,
        endpoint=found.endpoint,
        method="POST",
        path=route.path,
        query="",
        request_headers=tuple(headers.items()),
        request=stored_request(endpoint.members, body, parsed),
        prompt_hash=match(found, path=route.path, query="", members=parsed).prompt_hash,
        model=found.model,
        answer=Answer(
            status=status,
            headers=tuple(response_headers),
            body=text,
            form=Form.JSON,
            # The provider bills it as a batch, whatever tier the body names.
            usage=None if judgement.usage is None else judgement.usage._replace(tier="batch"),
        ),
        cost_usd=None,
        created_at=now if said_at is None else said_at,
        elapsed_seconds=None,
        response_id=judgement.response_id,
        store=found.wants_copy,
        key_version=int(key.KEY_VERSION),
    )
    return entry, said_at


def _request(line: bytes, anthropic_version: str | None) -> tuple[str, bytes, dict[str, str]]:
    """Return path, body and key headers of an input line. The body is exact: the key depends on each digit."""
    try:
        members = canonical.parse(line)
    except canonical.NotCanonical as error:
        raise RowUnusable(f"its request has no single meaning as JSON: {error}") from error
    params = members.get("params")
    if isinstance(params, dict):
        version = anthropic_version or (NEW_VERSION if _OLD_MEMBERS.isdisjoint(params) else OLD_VERSION)
        return _MESSAGES_PATH, _text(params), {"anthropic-version": version}
    if members.get("method", "POST") != "POST" or not isinstance(members.get("url"), str):
        raise RowUnusable("its request is not a POST to a url")
    return members["url"], _text(members["body"]), {}


def _text(value: Any) -> bytes:
    try:
        return orjson.dumps(value)  # in the order in which it was written
    except (TypeError, orjson.JSONEncodeError):
        return canonical.dump(value)


def _reply(members: Mapping[str, Any]) -> tuple[int, dict[str, Any], str | None]:
    """Return status, body and request id of an output line."""
    result = members.get("result")
    if isinstance(result, dict):
        if result.get("type") != "succeeded" or not isinstance(result.get("message"), dict):
            raise RowFailed(f"the provider says {result.get('type')!s:.40}: {_message(result)}")
        return 200, result["message"], None
    response = members.get("response")
    if not isinstance(response, dict) or members.get("error"):
        raise RowFailed(f"the provider says: {_message(members)}")
    body = response.get("body")
    if response.get("status_code") != 200 or not isinstance(body, dict):
        raise RowFailed(f"the provider says status {response.get('status_code')!s:.10}: {_message(body)}")
    request_id = response.get("request_id")
    return 200, body, request_id if isinstance(request_id, str) and request_id else None


def _message(value: Any) -> str:
    """Return an error's text, however deeply it is nested."""
    while isinstance(value, dict):
        if isinstance(value.get("message"), str):
            return json.dumps(value["message"][:120], ensure_ascii=False)
        value = value.get("error")
    return "no answer"


def _created(reply: Mapping[str, Any]) -> float | None:
    for name in ("created", "created_at"):
        value = reply.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            return float(value)
    return None
