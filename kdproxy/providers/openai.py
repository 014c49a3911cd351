"""OpenAI's dialect and everything compatible with it (API reference, read 2026-11): chat, completions, embeddings,
moderations. Images and audio, and the Responses API, have their own modules.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from kdproxy.core.models import Form, Turn
from kdproxy.core.sse import Piece
from kdproxy.providers import members_openai
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
from kdproxy.providers.usage import UsageMeter, read_openai

PROVIDER = "openai"


def stream_facts(members: Mapping[str, Any]) -> tuple[Form, Mapping[str, Any] | None] | NotAQuestion:
    """Read `stream` and `stream_options`; wrong types are the provider's to refuse."""
    stream = members.get("stream")
    options = members.get("stream_options")
    # `1 in (True, False)` holds, so the type is asked for.
    if not isinstance(stream, bool | None) or not isinstance(options, dict | None):
        return NotAQuestion("stream or stream_options has the wrong type")
    return (Form.SSE if stream else Form.JSON), options


def is_sampled(temperature: Any) -> bool:
    """Whether asking again would give another answer: an omitted temperature is not 0."""
    return bool(temperature != 0)


def has_tools(members: Mapping[str, Any]) -> bool:
    """Whether `tools` has its type; a wrong one is the provider's to refuse."""
    return isinstance(members.get("tools"), list | None)


def text_of(content: Any) -> str | None:
    """Return a message's text if it is text alone."""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        part = content[0]
        text = part.get("text")
        if part.get("type") in ("text", "input_text") and isinstance(text, str) and set(part) <= {"type", "text"}:
            return text
    return None


_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def turns_of(messages: Any) -> tuple[Turn, ...] | None:
    """Return a conversation that is text alone, `developer` read as `system`; else None."""
    if not isinstance(messages, list):
        return None
    turns = []
    for message in messages:
        if not isinstance(message, dict) or not set(message) <= {"role", "content"}:
            return None
        name = message.get("role")
        role = _ROLES.get(name) if isinstance(name, str) else None
        text = text_of(message.get("content"))
        if role is None or text is None:
            return None
        turns.append(Turn(role=role, text=text))
    return tuple(turns) or None


def _read_chat(ask: Ask) -> Facts | NotAQuestion:
    members = ask.members
    if not isinstance(members.get("messages"), list):
        return NotAQuestion("messages is not a list")
    if not has_tools(members):
        return NotAQuestion("tools has the wrong type")
    return _facts(members)


def _read_completion(ask: Ask) -> Facts | NotAQuestion:
    prompts = 1
    match ask.members.get("prompt"):
        case [str() | list(), *_] as asked:
            # Texts or lists of tokens, answered side by side; a list of numbers is one prompt.
            prompts = len(asked)
    return _facts(ask.members, prompts=prompts)


def _facts(members: Mapping[str, Any], *, prompts: int = 1) -> Facts | NotAQuestion:
    stream = stream_facts(members)
    if isinstance(stream, NotAQuestion):
        return stream
    form, options = stream
    return Facts(
        form=form,
        model=text_member(members, "model"),
        is_sampled=is_sampled(members.get("temperature")),
        choices=(integer(members.get("n")) or 1) * prompts,
        wants_stream_usage=bool(options and options.get("include_usage")),
        stream_options=options,
    )


def _chat_turns(ask: Ask) -> tuple[Turn, ...] | None:
    return turns_of(ask.members.get("messages")) if _is_plain(ask.members) else None


_BEYOND_TEXT = frozenset(
    {
        *("guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs", "prompt_logprobs"),
        *("regex", "ebnf", "structural_tag", "grammar", "json_schema"),
    }
)
"""What vLLM, SGLang and llama.cpp add to the dialect to ask for a form, or for more than text."""


def _is_plain(members: Mapping[str, Any]) -> bool:
    """Whether a recorded prompt's text is a full answer: nothing is asked beyond one text."""
    response_format = members.get("response_format")
    return (
        not members.get("tools")
        and members.get("web_search_options") is None
        and not members.get("functions")
        and not members.get("logprobs")
        and members.get("n") in (None, 1)
        and response_format in (None, {"type": "text"})
        and not members.get("audio")
        and members.get("modalities") in (None, ["text"])
        and not any(members.get(name) for name in _BEYOND_TEXT.intersection(members))
    )


def _read_embeddings(ask: Ask) -> Facts | NotAQuestion:
    return Facts(form=Form.JSON, model=text_member(ask.members, "model"))


_INTERRUPTED = frozenset({"error", "abort", "insufficient_system_resource"})
"""OpenRouter's and Mistral's; vLLM's and SGLang's, where the server stops; DeepSeek's, where it is out of machines."""


def _is_interrupted(reason: Any) -> bool:
    """Whether a finish reason says that the server broke off: what there is of the text is not the answer."""
    return isinstance(reason, str) and reason in _INTERRUPTED


def _judge_choices(body: bytes) -> Judgement:
    members = json_object(body)
    if members is None or has_error(members):
        return Broken("not an answer")
    choices = members.get("choices")
    if not isinstance(choices, list) or not choices:
        return Broken("no choices")
    if any(not isinstance(choice, dict) or _is_interrupted(choice.get("finish_reason")) for choice in choices):
        return Broken("a choice ended in an error")
    return Complete(usage=read_openai(members))


def judge_list(name: str, item: str | None = None) -> Callable[[bytes], Judgement]:
    """Make the judge of an answer that is a list of rows, each with an item."""

    def judge(body: bytes) -> Judgement:
        members = json_object(body)
        rows = None if members is None or has_error(members) else members.get(name)
        if members is None or not isinstance(rows, list) or not rows:
            return Broken(f"no {name}")
        if item is not None and any(not isinstance(row, dict) or row.get(item) is None for row in rows):
            return Broken(f"a row has no {item}")
        return Complete(usage=read_openai(members))

    return judge


class ChoiceStream:
    """Judge of chat and completion streams: `[DONE]`, or every choice finished and a clean end."""

    def __init__(self, choices: int) -> None:
        self._expected = choices
        self._seen: set[int] = set()
        self._finished: set[int] = set()
        self._is_done = False
        self._failure: str | None = None
        self._meter = UsageMeter()

    @property
    def is_over(self) -> bool:
        """Whether `[DONE]` has come."""
        return self._is_done

    def take(self, piece: Piece) -> bool:
        """Look at a chunk."""
        if not piece.data or self._failure is not None:
            return False
        if piece.data.strip() == b"[DONE]":
            self._is_done = True
            return True
        members = json_object(piece.data)
        if members is None:
            self._failure = "a chunk is not JSON"
        elif has_error(members) or piece.event == "error":
            self._failure = "the stream carried an error"
        else:
            self._read(members)
        return self._failure is None and len(self._finished) >= self._expected

    def _read(self, members: Mapping[str, Any]) -> None:
        self._meter.take_openai(members)
        choices = members.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict):
                self._failure = "a choice is not an object"
                return
            index = integer(choice.get("index")) or 0
            self._seen.add(index)
            reason = choice.get("finish_reason")
            if _is_interrupted(reason):
                self._failure = "a choice ended in an error"
            elif reason is not None:
                self._finished.add(index)

    def finish(self) -> Judgement:
        """Say whether the stream was whole."""
        if self._failure is not None:
            return Broken(self._failure)
        if not self._seen:
            return Broken("no choices")
        if self._is_done or (self._seen <= self._finished and len(self._finished) >= self._expected):
            return Complete(usage=self._meter.usage)
        return Broken("the stream was cut")


def text_member(members: Mapping[str, Any], name: str) -> str | None:
    """Return a member if it is text."""
    value = members.get(name)
    return value if isinstance(value, str) else None


ENDPOINTS = (
    Endpoint(
        provider=PROVIDER,
        name="chat.completions",
        path=suffix("/chat/completions"),
        read=_read_chat,
        turns=_chat_turns,
        judge=_judge_choices,
        judge_stream=ChoiceStream,
        members=members_openai.CHAT,
    ),
    Endpoint(
        provider=PROVIDER,
        name="completions",
        # Not Mistral's agents: what one answers depends on how it is set up at the provider at that time.
        path=re.compile(r"(?<!/agents)/completions$"),
        read=_read_completion,
        judge=_judge_choices,
        judge_stream=ChoiceStream,
        members=members_openai.COMPLETIONS,
    ),
    Endpoint(
        provider=PROVIDER,
        name="embeddings",
        path=suffix("/embeddings"),
        read=_read_embeddings,
        judge=judge_list("data", "embedding"),
        judge_stream=no_stream,
        members=members_openai.EMBEDDINGS,
    ),
    Endpoint(
        provider=PROVIDER,
        name="moderations",
        path=suffix("/moderations"),
        read=_read_embeddings,
        judge=judge_list("results"),
        judge_stream=no_stream,
        members=members_openai.MODERATIONS,
    ),
)
