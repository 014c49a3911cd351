"""Byte for byte: what the teacher sends is what a miss gives, a hit gives, and a hit after a restart gives."""

from pathlib import Path
from typing import Any

import pytest

from kdproxy.testing.proxy import run_proxy
from kdproxy.testing.teacher import ScriptedTeacher

pytestmark = pytest.mark.asyncio

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Wie spät? 🕰 \\u00e9 \u2028"}]}
MESSAGES: dict[str, Any] = {**CHAT, "max_tokens": 50}
CONTENTS: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": "Why?"}]}]}
FORM = (
    b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
    b"Content-Type: audio/wav\r\n\r\nRIFF\x00\xff\r\n--b--\r\n"
)
FORM_TYPE = {"Content-Type": "multipart/form-data; boundary=b"}
STREAM = {"stream": True}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}

CASES: dict[str, tuple[str, Any]] = {
    "chat": ("/v1/chat/completions", CHAT),
    "chat stream": ("/v1/chat/completions", CHAT | STREAM),
    "chat stream with usage": ("/v1/chat/completions", CHAT | USAGE | {"seed": 1}),
    "chat of two": ("/v1/chat/completions", CHAT | STREAM | {"n": 2}),
    "azure chat": ("/openai/deployments/mine/chat/completions?api-version=2024-10-21", CHAT),
    "completions": ("/v1/completions", {"model": "m", "prompt": "Once"}),
    "completions stream": ("/v1/completions", {"model": "m", "prompt": "Once"} | STREAM),
    "embeddings": ("/v1/embeddings", {"model": "m", "input": ["a", "b"]}),
    "responses": ("/v1/responses", {"model": "m", "input": "Why?"}),
    "responses stream": ("/v1/responses", {"model": "m", "input": "Why?"} | STREAM),
    "moderations": ("/v1/moderations", {"input": "Why?"}),
    "speech": ("/v1/audio/speech", {"model": "m", "voice": "alloy", "input": "Hello"}),
    "speech events": ("/v1/audio/speech", {"model": "m", "voice": "alloy", "input": "Hello", "stream_format": "sse"}),
    "transcription": ("/v1/audio/transcriptions", FORM),
    "image": ("/v1/images/generations", {"model": "dall-e-2", "prompt": "A cat", "response_format": "b64_json"}),
    "image stream": ("/v1/images/generations", {"model": "gpt-image-1", "prompt": "A cat"} | STREAM),
    "messages": ("/v1/messages", MESSAGES),
    "messages stream": ("/v1/messages", MESSAGES | STREAM),
    "count": ("/v1/messages/count_tokens", CHAT),
    "content": ("/v1beta/models/g:generateContent", CONTENTS),
    "content stream": ("/v1beta/models/g:streamGenerateContent?alt=sse", CONTENTS),
    "content array": ("/v1beta/models/g:streamGenerateContent", CONTENTS),
}


async def test_all_forms_of_all_endpoints(tmp_path: Path, send: Any) -> None:
    async with ScriptedTeacher(deterministic=True) as teacher:

        async def ask(address: str, path: str, body: Any) -> Any:
            if path.startswith("/v1/messages"):
                return await send(address + path, body, headers={"anthropic-version": "2023-06-01"})
            if isinstance(body, bytes):
                return await send(address + path, data=body, headers=FORM_TYPE)
            return await send(address + path, body)

        direct = {name: await ask(teacher.root_url, *case) for name, case in CASES.items()}
        teacher.reset()
        async with run_proxy(teacher.root_url, data_dir=tmp_path) as proxy:
            for verdict in ("; fwd=miss", "; hit"):
                for name, case in CASES.items():
                    got = await ask(proxy.address, *case)
                    assert (got.status, got.body) == (200, direct[name].body), name
                    assert verdict in got.cache, name
        async with run_proxy(teacher.root_url, data_dir=tmp_path) as proxy:
            for name, case in CASES.items():
                got = await ask(proxy.address, *case)
                assert (got.status, got.body) == (200, direct[name].body), name
                assert "; hit" in got.cache, name
                assert got.headers.getall("Content-Type") == direct[name].headers.getall("Content-Type"), name
        assert teacher.count() == len(CASES)
