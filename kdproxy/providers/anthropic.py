"""Anthropic's dialect: messages and count_tokens (API reference, read 2026-11)."""

from typing import Any

from kdproxy.core.models import Form, Turn
from kdproxy.core.sse import Piece
from kdproxy.providers import members_anthropic
from kdproxy.providers.base import (
    Ask,
    Broken,
    Complete,
    Endpoint,
    Facts,
    Judgement,
    NotAQuestion,
    has_error,
    integer,
    json_object,
    no_stream,
    suffix,
)
from kdproxy.providers.usage import UsageMeter, read_anthropic

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
        is_sampled=bool(members.get("temperature") != 0),
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
        # cache_control asks for the provider's prompt cache; it does not change the text
        if block.get("type") == "text" and isinstance(text, str) and set(block) <= {"type", "text", "cache_control"}:
            return text
    return None


def _judge(body: bytes) -> Judgement:
    members = json_object(body)
    if members is None or has_error(members):
        return Broken("not an answer")
    if members.get("type") != "message" or members.get("stop_reason") is None:
        return Broken("not a whole message")
    return Complete(usage=read_anthropic(members.get("usage")))


def _judge_count(body: bytes) -> Judgement:
    members = json_object(body)
    if members is None or integer(members.get("input_tokens")) is None:
        return Broken("no input_tokens")
    return Complete()


class MessageStream:
    """Judge of message streams: whole at `message_stop`. An `error` event may come inside a 200 (529)."""

    def __init__(self, choices: int) -> None:
        del choices  # a message stream has one
        self._meter = UsageMeter()
        self._has_started = False
        self._is_stopped = False
        self._failure: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether `message_stop` has come."""
        return self._is_stopped

    def take(self, piece: Piece) -> bool:
        """Look at an event."""
        if not piece.data or self._failure is not None:
            return False
        members = json_object(piece.data)
        if members is None:
            self._failure = "an event is not JSON"
            return False
        match members.get("type"):
            case "error":
                self._failure = "the stream carried an error"
            case "message_start":
                self._has_started = True
                message = members.get("message")
                self._meter.take_anthropic(message.get("usage") if isinstance(message, dict) else None)
            case "message_delta":
                self._meter.take_anthropic(members.get("usage"))
            case "message_stop":
                self._is_stopped = True
        return self._is_stopped

    def finish(self) -> Judgement:
        """Say whether the stream was whole."""
        if self._failure is not None:
            return Broken(self._failure)
        if not (self._has_started and self._is_stopped):
            return Broken("the stream was cut")
        return Complete(usage=self._meter.usage)


ENDPOINTS = (
    Endpoint(
        provider=PROVIDER,
        name="messages",
        path=suffix("/v1/messages"),
        read=_read,
        turns=_turns,
        judge=_judge,
        judge_stream=MessageStream,
        members=members_anthropic.MESSAGES,
    ),
    Endpoint(
        provider=PROVIDER,
        name="messages.count_tokens",
        path=suffix("/v1/messages/count_tokens"),
        read=_read_count,
        judge=_judge_count,
        judge_stream=no_stream,
        members=members_anthropic.MESSAGES,
    ),
)
