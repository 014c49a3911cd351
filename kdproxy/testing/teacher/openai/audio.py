"""POST audio/speech, audio/transcriptions and audio/translations."""

import base64

from kdproxy.testing.teacher.answer import Json, Reply, Streamed, Whole, sse, whole
from kdproxy.testing.teacher.fault import bad_request
from kdproxy.testing.teacher.openai.usage import prompt_tokens
from kdproxy.testing.teacher.stamp import Stamp, tokens_of

_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/opus",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
_FRAME_HEADER = b"\xff\xfb\x90\x00"  # MPEG-1 layer III, 128 kbit/s, 44.1 kHz
_FRAME_BYTES = 417
_FRAMES = 12


def answer_speech(body: Json, stamp: Stamp) -> Reply:
    """Answer with bytes that look like MP3 frames, without a length, as the provider sends sound."""
    if not body.get("input"):
        raise bad_request("Missing required parameter: 'input'.", param="input")
    noise = stamp.noise(_FRAMES * (_FRAME_BYTES - 4))
    size = _FRAME_BYTES - 4
    frames = [_FRAME_HEADER + noise[i * size : (i + 1) * size] for i in range(_FRAMES)]
    if body.get("stream_format") == "sse":
        return _speech_events(body, frames)
    kind = _TYPES.get(body.get("response_format") or "mp3", "audio/mpeg")
    return Streamed(lead=tuple(frames), content_type=kind)


def _speech_events(body: Json, frames: list[bytes]) -> Streamed:
    asked = prompt_tokens(body["input"])
    usage = {"input_tokens": asked, "output_tokens": _FRAMES, "total_tokens": asked + _FRAMES}
    lead = tuple(sse({"type": "speech.audio.delta", "audio": base64.b64encode(frame).decode()}) for frame in frames)
    return Streamed(lead=lead, terminator=(sse({"type": "speech.audio.done", "usage": usage}),))


def answer_transcription(form: dict[str, bytes], stamp: Stamp, *, task: str) -> Reply:
    """Answer what was said in the file: json, text, srt, vtt, verbose_json, or events."""
    if "file" not in form or "model" not in form:
        raise bad_request("Missing required parameter: 'file' or 'model'.")
    text = "".join(stamp.text())
    if form.get("stream") == b"true":
        return _transcript_events(text)
    match form.get("response_format", b"json").decode(errors="replace"):
        case "text":
            return _plain(text)
        case "srt":
            return _plain(f"1\n00:00:00,000 --> 00:00:02,000\n{text}\n")
        case "vtt":
            return _plain(f"WEBVTT\n\n00:00:00.000 --> 00:00:02.000\n{text}\n")
        case "verbose_json":
            return whole(_verbose(text, task))
        case _:
            return whole({"text": text, "usage": _usage(text)})


def _plain(text: str) -> Whole:
    return Whole(body=f"{text}\n".encode(), content_type="text/plain; charset=utf-8")


def _usage(text: str) -> Json:
    produced = len(tokens_of(text))
    return {
        "type": "tokens",
        "input_tokens": 14,
        "input_token_details": {"text_tokens": 0, "audio_tokens": 14},
        "output_tokens": produced,
        "total_tokens": 14 + produced,
    }


def _verbose(text: str, task: str) -> Json:
    segment = {
        "id": 0,
        "seek": 0,
        "start": 0.0,
        "end": 2.0,
        "text": text,
        "tokens": [50364, 440, 50464],
        "temperature": 0.0,
        "avg_logprob": -0.25,
        "compression_ratio": 1.2,
        "no_speech_prob": 0.01,
    }
    return {"task": task, "language": "english", "duration": 2.0, "text": text, "segments": [segment]}


def _transcript_events(text: str) -> Streamed:
    lead = tuple(sse({"type": "transcript.text.delta", "delta": token}) for token in tokens_of(text))
    done = sse({"type": "transcript.text.done", "text": text, "usage": _usage(text)})
    return Streamed(lead=lead, terminator=(done,))
