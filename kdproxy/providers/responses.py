"""OpenAI's Responses API (API reference, read 2026-11)."""

from kdproxy.core.models import Form, Turn
from kdproxy.providers import members_openai, openai
from kdproxy.providers.base import (
    Ask,
    Endpoint,
    Facts,
    NotAQuestion,
    is_sampled,
    no_stream,
    suffix,
)
from kdproxy.providers.judge_response import RESPONSE_EVENTS, judge_compaction, judge_response
from kdproxy.providers.judge_rows import judge_count
from kdproxy.providers.judge_status import status_stream

# A stored prompt comes before this request's input.
_BEYOND_TEXT = ("previous_response_id", "tools", "include", "prompt", "top_logprobs")


def _read(ask: Ask) -> Facts | NotAQuestion:
    members = ask.members
    stream = openai.stream_facts(members)
    if isinstance(stream, NotAQuestion):
        return stream
    if not openai.has_tools(members):
        return NotAQuestion("tools has the wrong type")
    previous = members.get("previous_response_id")
    if previous is not None and not isinstance(previous, str):
        return NotAQuestion("previous_response_id has the wrong type")
    form, options = stream
    model = members.get("model")
    return Facts(
        form=form,
        model=model if isinstance(model, str) else None,
        is_sampled=is_sampled(members),
        stream_options=options,
        previous_response_id=previous,
    )


def _turns(ask: Ask) -> tuple[Turn, ...] | None:
    members = ask.members
    text = members.get("text")
    wanted = text.get("format") if isinstance(text, dict) else None
    if wanted not in (None, {"type": "text"}) or any(members.get(name) for name in _BEYOND_TEXT):
        return None
    question = members.get("input")
    turns = (Turn(role="user", text=question),) if isinstance(question, str) else openai.turns_of(question)
    instructions = members.get("instructions")
    if turns is None or not (instructions is None or isinstance(instructions, str)):
        return None
    return turns if instructions is None else (Turn(role="system", text=instructions), *turns)


def _read_input(ask: Ask) -> Facts | NotAQuestion:
    """Read a request about an input that generates no answer to it."""
    facts = _read(ask)
    return facts if isinstance(facts, NotAQuestion) else facts._replace(form=Form.JSON)


ENDPOINTS = (
    Endpoint(
        provider=openai.PROVIDER,
        name="responses.compact",
        path=suffix("/responses/compact"),
        read=_read_input,
        judge=judge_compaction,
        judge_stream=no_stream,
        members=members_openai.RESPONSES,
    ),
    Endpoint(
        provider=openai.PROVIDER,
        name="responses.input_tokens",
        path=suffix("/responses/input_tokens"),
        read=_read_input,
        judge=judge_count("input_tokens"),
        judge_stream=no_stream,
        members=members_openai.RESPONSES,
    ),
    Endpoint(
        provider=openai.PROVIDER,
        name="responses",
        path=suffix("/responses"),
        read=_read,
        turns=_turns,
        judge=judge_response,
        judge_stream=status_stream(RESPONSE_EVENTS),
        members=members_openai.RESPONSES,
        stores_unasked=True,
    ),
)
