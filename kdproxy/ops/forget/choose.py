"""The first half of `forget`: chooses the samples. Runs in the user's command, never in a serving proxy: a regular
expression can take forever.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from kdproxy.core import record as record_format
from kdproxy.core.models import Entry, Prompt, Upstream
from kdproxy.errors import KdproxyError
from kdproxy.ops.live import seal_of
from kdproxy.ops.reading import choices_of
from kdproxy.providers.base import json_object
from kdproxy.providers.judge_stored import is_empty, reason_not_kept
from kdproxy.providers.rekey import v2_key_of

LEAST_KEY_DIGITS = 8
_KEY = re.compile(r"[0-9a-f]{8,64}")
_SHOWN_CHARACTERS = 60

Stored = Entry | Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Which samples to withdraw; a sample must match all the given conditions."""

    key: str | None = None
    ordinal: int | None = None
    """Which sample of each question."""
    match: str | None = None
    finish_reason: str | None = None
    invalid_json: bool = False
    empty: bool = False
    """The answer has no generated content."""
    broken: bool = False
    """The current rules would not store it (docs/answers.md)."""
    upstreams: Mapping[str, Upstream] = field(default_factory=dict)
    """By name, with the settings that decide whether their answers are stored."""

    @property
    def reason(self) -> str:
        """The conditions as text, for the tombstones."""
        parts = [
            None if self.key is None else f"key {self.key}",
            None if self.ordinal is None else f"sample {self.ordinal}",
            None if self.match is None else f"match {self.match}",
            None if self.finish_reason is None else f"finish reason {self.finish_reason}",
            "invalid JSON" if self.invalid_json else None,
            "empty" if self.empty else None,
            "not whole by today's rules" if self.broken else None,
        ]
        return ", ".join(part for part in parts if part)


@dataclass(slots=True, kw_only=True)
class Chosen:
    """A sample that matches."""

    kind: str
    namespace: str
    key: str
    ordinal: int
    model: str | None
    asked: str
    """First words of the question."""
    answered: str
    """First words of the answer."""
    seals: list[str]
    """Of its matching recordings."""

    @property
    def sample(self) -> dict[str, Any]:
        """Return it as an argument for `withdraw`."""
        return {name: getattr(self, name) for name in ("kind", "namespace", "key", "ordinal", "seals")}

    @property
    def members(self) -> dict[str, Any]:
        """Return what a user sees of it."""
        return {name: getattr(self, name) for name in ("kind", "key", "ordinal", "model", "asked", "answered")}


def not_kept(lines: Iterable[bytes], upstreams: Mapping[str, Upstream]) -> Iterator[dict[str, Any]]:
    """Yield the answers among live lines that the current rules would not store, and why."""
    for line in lines:
        record = record_format.decode(line)
        if not isinstance(record, Entry):
            continue
        reason = reason_not_kept(record, upstreams.get(record.upstream))
        if reason is not None:
            yield {**_chosen(record).members, "kind": "not-kept", "upstream": record.upstream, "reason": reason}


def choose(lines: Iterable[bytes], wish: Wish) -> list[Chosen]:
    """Return the samples of live lines that match a wish. Raises KdproxyError if the wish is malformed."""
    fits = compile_wish(wish)
    chosen: dict[tuple[str, str, str, int], Chosen] = {}
    for line in lines:
        record = record_format.decode(line)
        if not isinstance(record, Stored) or not fits(record):
            continue
        found = _chosen(record)
        place = (found.kind, found.namespace, found.key, found.ordinal)
        chosen.setdefault(place, found).seals.append(seal_of(line))
    return list(chosen.values())


def compile_wish(wish: Wish) -> Callable[[Stored], bool]:
    """Make the test of a wish.

    Raises:
        KdproxyError: no condition is given, or one is malformed.
    """
    tests: list[Callable[[Stored], bool]] = []
    if wish.key is not None:
        tests.append(_key_test(wish.key))
    if wish.ordinal is not None:
        tests.append(lambda stored: _ordinal_of(stored) == wish.ordinal)
    if wish.match is not None:
        tests.append(_match_test(wish.match))
    if wish.finish_reason is not None:
        tests.append(_finish_test(wish.finish_reason))
    if wish.invalid_json:
        tests.append(_holds_invalid_json)
    if wish.empty:
        tests.append(lambda stored: isinstance(stored, Entry) and is_empty(stored))
    if wish.broken:
        tests.append(_broken_test(wish.upstreams))
    if not tests or (wish.ordinal is not None and len(tests) == 1):
        raise _mistake(
            "No condition says which answers to withdraw.",
            "Give --key (and --sample for one of its samples), --match, --finish-reason, --invalid-json, --empty or "
            "--broken.",
        )
    return lambda stored: all(test(stored) for test in tests)


def _key_test(prefix: str) -> Callable[[Stored], bool]:
    prefix = prefix.lower()
    if not _KEY.fullmatch(prefix):
        raise _mistake(
            "The key is not hexadecimal, or it is too short.",
            f"Give at least {LEAST_KEY_DIGITS} digits of it; Cache-Status shows the key of each reply.",
        )
    return lambda stored: any(key.startswith(prefix) for key in _keys_of(stored))


def _match_test(pattern: str) -> Callable[[Stored], bool]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise _mistake(
            f"The regular expression cannot be read: {error}.", "See Python's `re` for the syntax."
        ) from error
    return lambda stored: any(compiled.search(text) for text in (*texts_asked(stored), *texts_answered(stored)))


def _finish_test(reason: str) -> Callable[[Stored], bool]:
    def test(stored: Stored) -> bool:
        if isinstance(stored, Prompt):
            return False
        return any(reason in (choice.finish_reason, choice.native_reason) for choice in choices_of(stored))

    return test


def _broken_test(upstreams: Mapping[str, Upstream]) -> Callable[[Stored], bool]:
    def test(stored: Stored) -> bool:
        return isinstance(stored, Entry) and reason_not_kept(stored, upstreams.get(stored.upstream)) is not None

    return test


def _holds_invalid_json(stored: Stored) -> bool:
    """Whether JSON was asked for, and a choice that is neither a tool call nor a refusal is not valid JSON."""
    if isinstance(stored, Prompt) or not _asks_for_json(stored):
        return False
    choices = [choice for choice in choices_of(stored) if not choice.tool_calls and choice.refusal is None]
    return any(not _is_json(choice.text or "") for choice in choices)


def _asks_for_json(entry: Entry) -> bool:
    asked = json_object(entry.request or b"") or {}
    formats = [
        asked.get("response_format"),
        _member(asked.get("text"), "format"),
        asked.get("output_format"),
        _member(asked.get("output_config"), "format"),
    ]
    if any(_member(given, "type") in ("json_object", "json_schema") for given in formats):
        return True
    config = asked.get("generationConfig", asked.get("generation_config"))
    return "application/json" in (_member(config, "responseMimeType"), _member(config, "response_mime_type"))


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


# -- texts ------------------------------------------------------------------------------------------------------------

_TEXT_MEMBERS = (
    "system",
    "instructions",
    "systemInstruction",
    "system_instruction",
    "messages",
    "contents",
    "prompt",
    "input",
)
_NOT_TEXT = frozenset({"role", "type"})


def texts_asked(stored: Stored) -> Iterator[str]:
    """Yield the texts of a question; the last is the newest."""
    if isinstance(stored, Prompt):
        yield from (turn.text for turn in stored.turns)
        return
    asked = json_object(stored.request or b"") or {}
    for name in _TEXT_MEMBERS:
        yield from _strings(asked.get(name))


def texts_answered(stored: Stored) -> Iterator[str]:
    """Yield the texts of an answer."""
    if isinstance(stored, Prompt):
        yield stored.response
        return
    choices = choices_of(stored)
    if not choices:
        yield stored.answer.body.decode("utf-8", "replace")
    for choice in choices:
        yield from (text for text in (choice.text, choice.reasoning, choice.refusal) if text)
        yield from _strings(choice.tool_calls)
        if not (choice.text or choice.reasoning or choice.refusal or choice.tool_calls):
            yield ""  # `--match '^$'` finds it


def _strings(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for item in value:
                yield from _strings(item)
        case dict():
            for name, member in value.items():
                if name not in _NOT_TEXT:
                    yield from _strings(member)


def _chosen(stored: Stored) -> Chosen:
    is_prompt = isinstance(stored, Prompt)
    *_, asked = ("", *texts_asked(stored))
    return Chosen(
        kind="prompt" if is_prompt else "answer",
        namespace=stored.namespace if isinstance(stored, Prompt) else stored.address.namespace,
        key=_key_of(stored),
        ordinal=_ordinal_of(stored),
        model=stored.model,
        asked=_first_words(asked),
        answered=_first_words(next(texts_answered(stored), "")),
        seals=[],
    )


def _ordinal_of(stored: Stored) -> int:
    return stored.ordinal if isinstance(stored, Prompt) else stored.address.ordinal


def _key_of(stored: Stored) -> str:
    return stored.match_key if isinstance(stored, Prompt) else stored.address.key


def _keys_of(stored: Stored) -> Iterator[str]:
    """Yield the key of a sample; of an answer bought under key version 1 also the current key, which replies show."""
    yield _key_of(stored)
    if isinstance(stored, Entry) and (current := v2_key_of(stored)) is not None:
        yield current


def _first_words(text: str) -> str:
    line = " ".join(text[: 4 * _SHOWN_CHARACTERS].split())
    return line if len(line) <= _SHOWN_CHARACTERS else line[: _SHOWN_CHARACTERS - 1] + "…"


def _mistake(message: str, hint: str) -> KdproxyError:
    return KdproxyError(message, hint=hint, code="wish_invalid", http_status=400)
