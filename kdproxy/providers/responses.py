"""OpenAI's Responses API (API reference, read 2026-11)."""

from kdproxy.core.models import Turn
from kdproxy.providers import members_openai, openai
from kdproxy.providers.base import (
    Ask,
    Endpoint,
    Facts,
    NotAQuestion,
    suffix,
)
from kdproxy.providers.judge_response import ResponseStream, judge_response

# A stored prompt stands before what is asked here.
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
        is_sampled=openai.is_sampled(members.get("temperature")),
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


ENDPOINTS = (
    Endpoint(
        provider=openai.PROVIDER,
        name="responses",
        path=suffix("/responses"),
        read=_read,
        turns=_turns,
        judge=judge_response,
        judge_stream=ResponseStream,
        members=members_openai.RESPONSES,
        stores_unasked=True,
    ),
)
