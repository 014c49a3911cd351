"""OpenAI's official client: a second pass, and one after a restart, get equal objects and cost nothing."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from kdproxy.testing.proxy import RunningProxy
from kdproxy.testing.teacher import TOOL_MARKER, ScriptedTeacher, ServerError

pytestmark = [pytest.mark.asyncio, pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")]

MESSAGES: Any = [{"role": "user", "content": "Why is the sky blue? — naïve"}]
TOOL: Any = {
    "type": "function",
    "function": {"name": "look_up", "parameters": {"type": "object", "properties": {"term": {"type": "string"}}}},
}


class Point(BaseModel):
    x: int
    name: str


async def chat(ask: Any) -> Any:
    answer = await ask.openai.chat.completions.create(model="gpt-4.1", messages=MESSAGES, temperature=0)
    assert answer.choices[0].message.content
    assert answer.usage.total_tokens > 0
    return answer


async def chat_sync(ask: Any) -> Any:
    return await asyncio.to_thread(
        ask.openai_sync.chat.completions.create, model="gpt-4.1", messages=MESSAGES, seed=12345678901234567890
    )


async def chat_stream(ask: Any) -> Any:
    stream = await ask.openai.chat.completions.create(model="gpt-4.1", messages=MESSAGES, stream=True)
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices[0].finish_reason == "stop"
    return chunks


async def chat_stream_sync(ask: Any) -> Any:
    def read() -> Any:
        return list(ask.openai_sync.chat.completions.create(model="gpt-4.1", messages=MESSAGES, stream=True, n=2))

    return await asyncio.to_thread(read)


async def chat_stream_with_usage(ask: Any) -> Any:
    stream = await ask.openai.chat.completions.create(
        model="gpt-4.1", messages=MESSAGES, seed=1, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].usage.total_tokens > 0
    return chunks


async def chat_stream_helper(ask: Any) -> Any:
    async with ask.openai.chat.completions.stream(model="gpt-4.1", messages=MESSAGES, seed=2) as stream:
        events = [event.type async for event in stream]
        return events, await stream.get_final_completion()


async def chat_tools(ask: Any) -> Any:
    messages = [{"role": "user", "content": f"Please {TOOL_MARKER}."}]
    answer = await ask.openai.chat.completions.create(model="gpt-4.1", messages=messages, tools=[TOOL])
    assert answer.choices[0].message.tool_calls[0].function.name == "look_up"
    return answer


async def chat_tools_stream(ask: Any) -> Any:
    messages = [{"role": "user", "content": f"Please {TOOL_MARKER}."}]
    stream = await ask.openai.chat.completions.create(model="gpt-4.1", messages=messages, tools=[TOOL], stream=True)
    chunks = [chunk async for chunk in stream]
    assert any(chunk.choices[0].delta.tool_calls for chunk in chunks)
    return chunks


async def chat_parsed(ask: Any) -> Any:
    answer = await ask.openai.chat.completions.parse(model="gpt-4.1", messages=MESSAGES, response_format=Point)
    assert isinstance(answer.choices[0].message.parsed, Point)
    return answer


async def chat_logprobs(ask: Any) -> Any:
    answer = await ask.openai.chat.completions.create(
        model="gpt-4.1", messages=MESSAGES, logprobs=True, top_logprobs=5, extra_body={"guided_choice": ["a", "b"]}
    )
    assert len(answer.choices[0].logprobs.content[0].top_logprobs) == 5
    return answer


async def completions(ask: Any) -> Any:
    return await ask.openai.completions.create(model="base", prompt="Once", logprobs=2)


async def completions_stream(ask: Any) -> Any:
    stream = await ask.openai.completions.create(model="base", prompt=["a", "b"], stream=True)
    return [chunk async for chunk in stream]


async def embeddings(ask: Any) -> Any:
    return await ask.openai.embeddings.create(model="text-embedding-3-small", input=["one", "two"], dimensions=8)


async def embeddings_as_floats(ask: Any) -> Any:
    return await ask.openai.embeddings.create(model="text-embedding-3-small", input="one", encoding_format="float")


async def responses(ask: Any) -> Any:
    answer = await ask.openai.responses.create(model="gpt-4.1", input="Why?", instructions="Be short.")
    assert answer.status == "completed"
    return answer


async def responses_incomplete(ask: Any) -> Any:
    answer = await ask.openai.responses.create(model="gpt-4.1", input="Why?", max_output_tokens=3)
    assert answer.status == "incomplete"
    return answer


async def responses_stream(ask: Any) -> Any:
    stream = await ask.openai.responses.create(model="gpt-4.1", input="Why?", stream=True)
    events = [event async for event in stream]
    assert events[-1].type == "response.completed"
    return events


async def responses_parsed(ask: Any) -> Any:
    answer = await ask.openai.responses.parse(model="gpt-4.1", input="Why?", text_format=Point)
    assert isinstance(answer.output_parsed, Point)
    return answer


async def responses_follow_up(ask: Any) -> Any:
    """A follow-up to a stored response is a question like any other."""
    first = await ask.openai.responses.create(model="gpt-4.1", input="Why?")
    return await ask.openai.responses.create(model="gpt-4.1", input="And then?", previous_response_id=first.id)


async def moderations(ask: Any) -> Any:
    return await ask.openai.moderations.create(input="Is this harmless?")


async def speech(ask: Any) -> Any:
    answer = await ask.openai.audio.speech.create(model="gpt-4o-mini-tts", voice="alloy", input="Hello.")
    assert len(answer.content) > 1_000
    return answer.content


async def speech_as_it_comes(ask: Any) -> Any:
    async with ask.openai.audio.speech.with_streaming_response.create(
        model="gpt-4o-mini-tts", voice="alloy", input="Hello.", response_format="wav"
    ) as answer:
        return answer.headers["content-type"], await answer.read()


async def transcription(ask: Any) -> Any:
    return await ask.openai.audio.transcriptions.create(model="whisper-1", file=("a.wav", b"RIFF" + bytes(range(256))))


async def transcription_as_text(ask: Any) -> Any:
    return await ask.openai.audio.transcriptions.create(
        model="whisper-1", file=("a.wav", b"RIFF\r\n--x"), response_format="srt"
    )


async def translation(ask: Any) -> Any:
    return await ask.openai.audio.translations.create(model="whisper-1", file=("a.wav", b"RIFFRIFF"))


async def image(ask: Any) -> Any:
    answer = await ask.openai.images.generate(model="dall-e-3", prompt="A cat", response_format="b64_json")
    assert base64.b64decode(answer.data[0].b64_json).startswith(b"\x89PNG")
    return answer


async def image_of_a_gpt(ask: Any) -> Any:
    return await ask.openai.images.generate(model="gpt-image-1", prompt="A cat")


ASKS: tuple[Callable[[Any], Awaitable[Any]], ...] = (
    *(chat, chat_sync, chat_stream, chat_stream_sync, chat_stream_with_usage, chat_stream_helper),
    *(chat_tools, chat_tools_stream, chat_parsed, chat_logprobs),
    *(completions, completions_stream, embeddings, embeddings_as_floats),
    *(responses, responses_incomplete, responses_stream, responses_parsed, responses_follow_up),
    *(moderations, speech, speech_as_it_comes, transcription, transcription_as_text, translation),
    *(image, image_of_a_gpt),
)


async def test_every_call_is_bought_once(teacher: ScriptedTeacher, tmp_path: Path, assert_bought_once: Any) -> None:
    await assert_bought_once(teacher, teacher, tmp_path, ASKS)


async def test_files_and_batches_pass_through(teacher: ScriptedTeacher, proxy: RunningProxy, clients_of: Any) -> None:
    row = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions"}
    lines = json.dumps({**row, "body": {"model": "gpt-4.1", "messages": MESSAGES}}).encode()
    async with clients_of(proxy) as ask:
        file = await ask.openai.files.create(file=("in.jsonl", lines), purpose="batch")
        again = await ask.openai.files.create(file=("in.jsonl", lines), purpose="batch")
        assert file.id != again.id
        assert (await ask.openai.files.content(file.id)).content == lines
        batch = await ask.openai.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        done = await ask.openai.batches.retrieve(batch.id)
        output = (await ask.openai.files.content(done.output_file_id)).content
        assert json.loads(output)["custom_id"] == "a"
        assert (await ask.openai.files.delete(file.id)).deleted
        with pytest.raises(openai.NotFoundError):
            await ask.openai.files.retrieve(file.id)
    assert teacher.count() == 8


async def test_models_pass_and_are_asked_each_time(
    teacher: ScriptedTeacher, proxy: RunningProxy, clients_of: Any
) -> None:
    async with clients_of(proxy) as ask:
        names = [model.id async for model in ask.openai.models.list()]
        assert names == [model.id async for model in ask.openai.models.list()]
    assert teacher.count("/models") == 2


async def test_errors_reach_the_client_as_the_providers(
    teacher: ScriptedTeacher, proxy: RunningProxy, clients_of: Any
) -> None:
    async with clients_of(proxy) as ask:
        with pytest.raises(openai.BadRequestError, match="Missing required parameter: 'messages'"):
            await ask.openai.chat.completions.create(model="gpt-4.1", messages=[])
        teacher.script(ServerError(501))
        with pytest.raises(openai.InternalServerError, match="The server had an error"):
            await ask.openai.chat.completions.create(model="gpt-4.1", messages=MESSAGES)
        assert (await chat(ask)).choices


async def test_the_clients_own_retry_is_not_needed(
    teacher: ScriptedTeacher, proxy: RunningProxy, clients_of: Any
) -> None:
    """With max_retries=0 a 500 is the script's problem; the proxy makes it its own."""
    teacher.script(ServerError(500))
    async with clients_of(proxy) as ask:
        await chat(ask)
    assert teacher.count() == 2
