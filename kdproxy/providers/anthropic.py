"""Anthropic's dialect: messages and count_tokens (API reference, read 2026-11)."""

from typing import Any

from kdproxy.core.models import Form, Turn
from kdproxy.providers import members_anthropic
from kdproxy.providers.base import (
    Ask,
    Endpoint,
    Facts,
    NotAQuestion,
    is_sampled,
    no_stream,
    suffix,
)
from kdproxy.providers.judge_message import MessageStream, judge_message
from kdproxy.providers.judge_rows import judge_count

PROVIDER = "anthropic"

_BEYOND_TEXT = ("tools", "mcp_servers", "container", "thinking", "output_config", "output_format")


def _read(ask: Ask) -> Facts | NotAQuestion:
    members = ask.members
    stream = members.get("stream")
    if not isinstance(stream, bool | None):
        return NotAQuestion("stream has the wrong type")
    if not isinstance(members.get("messages"), list):
        return NotAQuestion("messages is not a list")
    if not isinstance(members.get("tools"), list | None):
        return NotAQuestion("tools has the wrong type")
    model = members.get("model")
    return Facts(
        form=Form.SSE if stream else Form.JSON,
        model=model if isinstance(model, str) else None,
        is_sampled=is_sampled(members),
    )


def _read_count(ask: Ask) -> Facts | NotAQuestion:
    facts = _read(ask)
    if isinstance(facts, NotAQuestion):
        return facts
    return Facts(form=Form.JSON, model=facts.model)


def _turns(ask: Ask) -> tuple[Turn, ...] | None:
    members = ask.members
    if any(members.get(name) for name in _BEYOND_TEXT):
        return None
    turns = []
    system = members.get("system")
    if system is not None:
        text = _text_of(system)
        if text is None:
            return None
        turns.append(Turn(role="system", text=text))
    for message in members["messages"]:
        text = _text_of(message.get("content")) if isinstance(message, dict) else None
        if text is None or message.get("role") not in ("user", "assistant"):
            return None
        turns.append(Turn(role=message["role"], text=text))
    return tuple(turns) or None


def _text_of(content: Any) -> str | None:
    if isinstance(content, str):
        return content
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        block = content[0]
        text = block.get("text")
        # cache_control is about the provider's prompt cache; it does not change the text
        if block.get("type") == "text" and isinstance(text, str) and set(block) <= {"type", "text", "cache_control"}:
            return text
    return None


ENDPOINTS = (
    Endpoint(
        provider=PROVIDER,
        name="messages",
        path=suffix("/v1/messages"),
        read=_read,
        turns=_turns,
        judge=judge_message,
        judge_stream=MessageStream,
        members=members_anthropic.MESSAGES,
    ),
    Endpoint(
        provider=PROVIDER,
        name="messages.count_tokens",
        path=suffix("/v1/messages/count_tokens"),
        read=_read_count,
        judge=judge_count("input_tokens"),
        judge_stream=no_stream,
        members=members_anthropic.MESSAGES,
    ),
)
