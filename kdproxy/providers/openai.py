"""OpenAI's dialect and compatible servers (API reference, read 2026-11): chat, completions, embeddings, moderations.
Images and audio, and the Responses API, have their own modules.
"""

import re
from collections.abc import Mapping
from typing import Any

from kdproxy.core.models import Form, Turn
from kdproxy.providers import members_openai
from kdproxy.providers.base import (
    Ask,
    Endpoint,
    Facts,
    NotAQuestion,
    integer,
    is_sampled,
    no_stream,
    suffix,
)
from kdproxy.providers.judge_choices import ChoiceStream, judge_choices
from kdproxy.providers.judge_rows import judge_list

PROVIDER = "openai"


def stream_facts(members: Mapping[str, Any]) -> tuple[Form, Mapping[str, Any] | None] | NotAQuestion:
    """Read `stream` and `stream_options`; the provider rejects wrong types."""
    stream = members.get("stream")
    options = members.get("stream_options")
    # `1 in (True, False)` is true, so compare the type.
    if not (stream is None or isinstance(stream, bool)) or not (options is None or isinstance(options, dict)):
        return NotAQuestion("stream or stream_options has the wrong type")
    return (Form.SSE if stream else Form.JSON), options


def has_tools(members: Mapping[str, Any]) -> bool:
    """Whether `tools` has the right type; the provider rejects a wrong one."""
    return isinstance(members.get("tools"), list | None)


def text_of(content: Any) -> str | None:
    """Return a message's text if it is text only."""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        part = content[0]
        text = part.get("text")
        if part.get("type") in ("text", "input_text") and isinstance(text, str) and set(part) <= {"type", "text"}:
            return text
    return None


_MESSAGE = frozenset({"role", "content"})
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def turns_of(messages: Any) -> tuple[Turn, ...] | None:
    """Return a text-only conversation, with `developer` read as `system`; else None."""
    if not isinstance(messages, list):
        return None
    turns = []
    for message in messages:
        if not isinstance(message, dict) or not _MESSAGE.issuperset(message):
            return None
        name = message.get("role")
        role = _ROLES.get(name) if isinstance(name, str) else None
        text = message.get("content")
        if type(text) is not str:
            text = text_of(text)
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
    prompts: int | None = 1
    match ask.members.get("prompt"):
        case [str() | list(), *_] as asked:
            # A list of texts or of token lists is several prompts; a list of numbers is one.
            prompts = len(asked)
    return _facts(ask.members, prompts=prompts)


def choices_of(members: Mapping[str, Any], name: str = "n") -> int | None:
    """Return the number of requested answers; None if it is not a count."""
    asked = members.get(name)
    return 1 if asked is None else integer(asked) or None


def _facts(members: Mapping[str, Any], *, prompts: int | None = 1) -> Facts | NotAQuestion:
    stream = stream_facts(members)
    if isinstance(stream, NotAQuestion):
        return stream
    form, options = stream
    choices = choices_of(members)
    return Facts(
        form=form,
        model=text_member(members, "model"),
        is_sampled=is_sampled(members),
        choices=None if choices is None or prompts is None else choices * prompts,
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
"""Members of vLLM, SGLang and llama.cpp that request an output format, or more than text."""


_PLAIN = frozenset({"model", "messages", "temperature", "top_p", "seed", "max_tokens", "stream", "stream_options"})
"""Members that request one text, whatever their value; nearly all requests have no other."""


def _is_plain(members: Mapping[str, Any]) -> bool:
    """Whether a recorded prompt's text is a full answer: the request asks only for one text."""
    if _PLAIN.issuperset(members):
        return True
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
        and (_BEYOND_TEXT.isdisjoint(members) or not any(members.get(name) for name in _BEYOND_TEXT))
    )


def _read_embeddings(ask: Ask) -> Facts | NotAQuestion:
    members = ask.members
    # vLLM embeds a conversation as one text.
    rows = 1 if members.get("messages") is not None else inputs_of(members.get("input"))
    return Facts(form=Form.JSON, model=text_member(members, "model"), choices=rows)


def _read_moderations(ask: Ask) -> Facts | NotAQuestion:
    asked = ask.members.get("input")
    # Texts are moderated one by one, parts (text and images) together; for conversations (Mistral) it is not known.
    is_parts = isinstance(asked, list) and all(isinstance(part, dict) for part in asked)
    choices = 1 if isinstance(asked, str) else inputs_of(asked) if not is_parts else None
    return Facts(form=Form.JSON, model=text_member(ask.members, "model"), choices=choices)


def inputs_of(asked: Any) -> int | None:
    """Return the number of rows for an input: one for a text or token list, else one per item; None: not known."""
    match asked:
        case str():
            return 1
        case [int(), *_]:
            return 1
        case [str() | list() | dict(), *_]:
            return len(asked)
    return None


def text_member(members: Mapping[str, Any], name: str) -> str | None:
    """Return a member if it is text, else None."""
    value = members.get(name)
    return value if isinstance(value, str) else None


ENDPOINTS = (
    Endpoint(
        provider=PROVIDER,
        name="chat.completions",
        path=suffix("/chat/completions"),
        read=_read_chat,
        turns=_chat_turns,
        judge=judge_choices,
        judge_stream=ChoiceStream,
        members=members_openai.CHAT,
    ),
    Endpoint(
        provider=PROVIDER,
        name="completions",
        # Not Mistral's agents: their answers depend on their current configuration at the provider.
        path=re.compile(r"(?<!/agents)/completions$"),
        read=_read_completion,
        judge=judge_choices,
        judge_stream=ChoiceStream,
        members=members_openai.COMPLETIONS,
    ),
    Endpoint(
        provider=PROVIDER,
        name="embeddings",
        path=suffix("/embeddings"),
        read=_read_embeddings,
        judge=judge_list("data", "embedding", holds_vectors=True),
        judge_stream=no_stream,
        members=members_openai.EMBEDDINGS,
    ),
    Endpoint(
        provider=PROVIDER,
        name="moderations",
        path=suffix("/moderations"),
        read=_read_moderations,
        judge=judge_list("results"),
        judge_stream=no_stream,
        members=members_openai.MODERATIONS,
    ),
)
