"""OpenAI's images and audio (API reference, read 2026-11): answers that contain their content, not a link to it."""

from kdproxy.core.models import Form
from kdproxy.providers import members_openai
from kdproxy.providers.base import (
    Ask,
    Endpoint,
    Facts,
    NotAQuestion,
    suffix,
)
from kdproxy.providers.judge_rows import judge_list, judge_sound, judge_transcript, terminal_stream
from kdproxy.providers.openai import PROVIDER, choices_of, stream_facts, text_member


def _read_image(ask: Ask) -> Facts | NotAQuestion:
    members = ask.members
    model = text_member(members, "model")
    stream = stream_facts(members)
    if isinstance(stream, NotAQuestion):
        return stream
    is_inline = members.get("response_format") == "b64_json" or (model or "").startswith("gpt-image")
    if not is_inline:
        return NotAQuestion("image answers are links that expire; ask for b64_json")
    return Facts(form=stream[0], model=model, is_sampled=True, choices=choices_of(members))


def _read_edit(ask: Ask) -> Facts | NotAQuestion:
    """Read a form, whose fields are texts."""
    fields = ask.members
    count = fields.get("n")
    stream = fields.get("stream")
    typed = {
        **fields,
        "n": int(count) if isinstance(count, str) and count.isdecimal() else count,
        "stream": {"true": True, "false": False}.get(stream, stream) if isinstance(stream, str) else stream,
    }
    return _read_image(ask._replace(members=typed))


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


ENDPOINTS = (
    Endpoint(
        provider=PROVIDER,
        name="images.generations",
        path=suffix("/images/generations"),
        read=_read_image,
        judge=judge_list("data", "b64_json"),
        judge_stream=terminal_stream("image_generation.completed"),
        members=members_openai.IMAGES,
    ),
    Endpoint(
        provider=PROVIDER,
        name="images.edits",
        path=suffix("/images/edits"),
        read=_read_edit,
        judge=judge_list("data", "b64_json"),
        judge_stream=terminal_stream("image_edit.completed"),
        members=members_openai.IMAGES,
        takes_form=True,
    ),
    Endpoint(
        provider=PROVIDER,
        name="audio.speech",
        path=suffix("/audio/speech"),
        read=_read_speech,
        judge=judge_sound,
        judge_stream=terminal_stream("speech.audio.done"),
        members=members_openai.SPEECH,
        content_types=("audio/", "application/octet-stream"),
    ),
    *(
        Endpoint(
            provider=PROVIDER,
            name=f"audio.{name}",
            path=suffix(f"/audio/{name}"),
            read=_read_transcription,
            judge=judge_transcript,
            judge_stream=terminal_stream("transcript.text.done"),
            members=members_openai.TRANSCRIPTIONS,
            takes_form=True,
            content_types=("application/json", "text/plain", "text/vtt", "application/x-subrip"),
        )
        for name in ("transcriptions", "translations")
    ),
)
