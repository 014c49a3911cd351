"""OpenAI's images and audio (API reference, read 2026-11): answers that carry their content in themselves."""

from collections.abc import Callable

from kdproxy.core.models import Form
from kdproxy.providers import members_openai
from kdproxy.providers.base import (
    Ask,
    Broken,
    Complete,
    Endpoint,
    Facts,
    Judgement,
    NotAQuestion,
    TerminalEvent,
    has_error,
    json_object,
    suffix,
)
from kdproxy.providers.openai import PROVIDER, judge_list, stream_facts, text_member
from kdproxy.providers.usage import read_openai


def _read_image(ask: Ask) -> Facts | NotAQuestion:
    members = ask.members
    model = text_member(members, "model")
    stream = stream_facts(members)
    if isinstance(stream, NotAQuestion):
        return stream
    is_inline = members.get("response_format") == "b64_json" or (model or "").startswith("gpt-image")
    if not is_inline:
        return NotAQuestion("image answers are links that expire; ask for b64_json")
    return Facts(form=stream[0], model=model, is_sampled=True)


def _read_speech(ask: Ask) -> Facts | NotAQuestion:
    members = ask.members
    form = Form.SSE if members.get("stream_format") == "sse" else Form.BINARY
    return Facts(form=form, model=text_member(members, "model"), is_sampled=True)


def _read_transcription(ask: Ask) -> Facts | NotAQuestion:
    members = ask.members
    if members.get("stream") == "true":
        form = Form.SSE
    elif members.get("response_format", "json") in ("json", "verbose_json", "diarized_json"):
        form = Form.JSON
    else:
        form = Form.BINARY
    return Facts(form=form, model=text_member(members, "model"))


def _judge_bytes(body: bytes) -> Judgement:
    return Complete() if body else Broken("empty")


def _judge_transcription(body: bytes) -> Judgement:
    members = json_object(body)
    if members is None:
        # text, srt and vtt; an HTML page never gets here, its content type is not in the list
        text = body.strip()
        return Complete() if text and not text.startswith(b"{") else Broken("empty, or JSON that was cut")
    if has_error(members) or not isinstance(members.get("text"), str):
        return Broken("no text")
    return Complete(usage=read_openai(members))


def _terminal(*complete: str) -> Callable[[int], TerminalEvent]:
    def make(_: int) -> TerminalEvent:
        return TerminalEvent(
            complete=frozenset(complete),
            failed=frozenset({"error"}),
            read=lambda event: Complete(usage=read_openai(event)),
        )

    return make


ENDPOINTS = (
    Endpoint(
        provider=PROVIDER,
        name="images.generations",
        path=suffix("/images/generations"),
        read=_read_image,
        judge=judge_list("data", "b64_json"),
        judge_stream=_terminal("image_generation.completed"),
        members=members_openai.IMAGES,
    ),
    Endpoint(
        provider=PROVIDER,
        name="audio.speech",
        path=suffix("/audio/speech"),
        read=_read_speech,
        judge=_judge_bytes,
        judge_stream=_terminal("speech.audio.done"),
        members=members_openai.SPEECH,
        content_types=("audio/", "application/octet-stream"),
    ),
    *(
        Endpoint(
            provider=PROVIDER,
            name=f"audio.{name}",
            path=suffix(f"/audio/{name}"),
            read=_read_transcription,
            judge=_judge_transcription,
            judge_stream=_terminal("transcript.text.done"),
            members=members_openai.TRANSCRIPTIONS,
            takes_form=True,
            content_types=("application/json", "text/plain", "text/vtt", "application/x-subrip"),
        )
        for name in ("transcriptions", "translations")
    ),
)
