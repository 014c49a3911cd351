"""Rows as training trackers and data sets write them: a prompt and its answer, under the usual names (docs/warm.md).

Such a row has less information than a request, so it becomes a prompt line, matched by the conversation's text alone.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kdproxy.core import key
from kdproxy.core.models import Turn
from kdproxy.ops.reading import choices_of_body
from kdproxy.ops.warm.row import RowUnusable
from kdproxy.providers.openai import text_of

PROMPT = (
    "prompt",
    "prompt_text",
    "user_prompt",
    "question",
    "query",
    "instruction",
    "input",
    "conversations",
    "messages",
)
RESPONSE = (
    "response",
    "teacher_response",
    "api_response",
    "response_text",
    "completion",
    "output",
    "answer",
    "generation",
    "generated_text",
    "model_response",
)
MODEL = ("model", "teacher", "teacher_model", "model_name", "model_id")
SYSTEM = ("system", "system_prompt", "system_message")
TIME = ("created_at", "timestamp", "created", "time", "date")
FINISH = ("finish_reason", "stop_reason")
"""The accepted names of each member; the first one present counts."""

WHOLE = frozenset({"stop", "end_turn", "stop_sequence", "eos", "completed", "STOP"})
"""Finish reasons of an answer that ended by itself."""

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_LATEST_SECONDS = 1e11
"""A larger number (the year 5138 in seconds) is in milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The content of a row."""

    model: str
    turns: tuple[Turn, ...]
    response: str
    prompt_hash: str
    created_at: float | None


def read(members: Mapping[str, Any], *, model: str | None = None) -> Row:
    """Read a row; `model` is for rows that do not name one.

    Raises:
        RowUnusable: with the reason.
    """
    _refuse_failed(members)
    turns, response = _conversation(members)
    found = _first(members, MODEL)
    named = found if isinstance(found, str) and found else model
    if not named:
        raise RowUnusable("it names no model; give one with --model")
    system = _first(members, SYSTEM)
    if system is not None and not isinstance(system, str):
        raise RowUnusable("its system text is not text")
    if system and turns[0].role != "system":
        turns = (Turn(role="system", text=system), *turns)
    asked = [turn.text for turn in turns if turn.role != "system"]
    prompt_hash = key.prompt_hash("\n".join(asked))
    claimed = members.get("prompt_hash")
    # The hash of a conversation cannot be checked: how its turns were joined is unknown.
    if len(asked) == 1 and isinstance(claimed, str) and _SHA256.fullmatch(claimed) and claimed.lower() != prompt_hash:
        raise RowUnusable("its prompt_hash is not the SHA-256 of its prompt: the text was changed or cut")
    return Row(model=named, turns=turns, response=response, prompt_hash=prompt_hash, created_at=_time(members))


def _conversation(members: Mapping[str, Any]) -> tuple[tuple[Turn, ...], str]:
    """Return what was asked and what was answered."""
    response = _response(_first(members, RESPONSE))
    asked = _asked(members)
    if asked is None:
        if isinstance(members.get("prompt_hash"), str):
            raise RowUnusable("it has the prompt's hash but not its text, so it cannot match a request")
        raise RowUnusable(f"it has no prompt (none of {', '.join(PROMPT)})")
    if isinstance(asked, str):
        turns: tuple[Turn, ...] = (Turn(role="user", text=asked),)
    else:
        turns = _turns(asked)
        if response is None:
            turns, response = _before_the_answer(turns)
    if response is None:
        raise RowUnusable(f"it has no answer (none of {', '.join(RESPONSE)})")
    if not response:
        raise RowUnusable("its answer is empty")
    if not any(turn.text for turn in turns):
        raise RowUnusable("its prompt is empty")
    return turns, response


def _asked(members: Mapping[str, Any]) -> str | list[Any] | None:
    for name in PROMPT:
        value = members.get(name)
        if value is None:
            continue
        if not isinstance(value, str | list):
            raise RowUnusable(f"its {name} is neither text nor a list of messages")
        # Alpaca's rows separate a task from its input; Alpaca's template joins them with an empty line.
        more = members.get("input") if name == "instruction" else None
        if isinstance(value, str) and isinstance(more, str) and more:
            return f"{value}\n\n{more}"
        return value
    return None


def _turns(messages: Sequence[Any]) -> tuple[Turn, ...]:
    if not messages:
        raise RowUnusable("it has no messages")
    turns = []
    for message in messages:
        if not isinstance(message, dict):
            raise RowUnusable("a message is not an object")
        role = _ROLES.get(str(message.get("role", message.get("from"))))
        text = text_of(message.get("content", message.get("value")))
        if role is None or text is None or message.get("tool_calls"):
            raise RowUnusable("a message is more than text: only a journal or Batch line can hold such a question")
        turns.append(Turn(role=role, text=text))
    return tuple(turns)


def _before_the_answer(turns: tuple[Turn, ...]) -> tuple[tuple[Turn, ...], str]:
    last = max((index for index, turn in enumerate(turns) if turn.role == "assistant"), default=None)
    if last is None:
        raise RowUnusable("none of its messages is the assistant's")
    if last == 0:
        raise RowUnusable("its first message is the answer, so the question is missing")
    return turns[:last], turns[last].text


def _response(value: Any) -> str | None:
    """Read an answer: text, messages with one in it, or a provider's whole reply."""
    match value:
        case None | str():
            return value
        case [{"role": "assistant", "content": str(text)}] | {"role": "assistant", "content": str(text)}:
            return text
        case [str(text)]:
            return text
        case dict():
            choices = choices_of_body(value)
            if len(choices) == 1 and choices[0].text is not None and not choices[0].tool_calls:
                if choices[0].finish_reason not in (None, "stop"):
                    raise RowUnusable(_cut(choices[0].finish_reason))
                return choices[0].text
    raise RowUnusable("its answer is neither text nor a provider's reply")


def _refuse_failed(members: Mapping[str, Any]) -> None:
    if members.get("tools") or members.get("functions"):
        raise RowUnusable("it was asked with tools: only a journal or Batch line can hold such a question")
    reason = _first(members, FINISH)
    if reason is not None and reason not in WHOLE:
        raise RowUnusable(_cut(reason))
    if members.get("error"):
        raise RowUnusable("it holds an error and not an answer")


def _cut(reason: Any) -> str:
    return f"its answer is incomplete (finish reason {reason!s:.40}), but would be served as complete"


def _first(members: Mapping[str, Any], names: Sequence[str]) -> Any:
    for name in names:
        value = members.get(name)
        if value is not None:
            return value
    return None


def _time(members: Mapping[str, Any]) -> float | None:
    """Return when the answer was written, in Unix seconds; None if the row is not clear about it."""
    value = _first(members, TIME)
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        return None
    seconds = value / 1000 if value > _LATEST_SECONDS else float(value)
    return seconds if seconds <= _LATEST_SECONDS else None
