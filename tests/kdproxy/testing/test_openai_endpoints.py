"""OpenAI's other endpoints through the official client."""

import base64
import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from kdproxy.testing.teacher import TOOL_MARKER, ScriptedTeacher

pytestmark = pytest.mark.asyncio

LOOK_UP: Any = {
    "type": "function",
    "name": "look_up",
    "parameters": {"type": "object", "properties": {"term": {"type": "string"}}},
    "strict": False,
}


class Point(BaseModel):
    x: int
    y: int


async def test_completions_in_both_forms(ask_openai: openai.AsyncOpenAI) -> None:
    answer = await ask_openai.completions.create(model="base", prompt="Once", max_tokens=4, logprobs=2)
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].logprobs is not None
    assert "".join(answer.choices[0].logprobs.tokens or []) == answer.choices[0].text
    stream = await ask_openai.completions.create(model="base", prompt=["a", "b"], stream=True, max_tokens=50)
    chunks = [chunk async for chunk in stream]
    assert {chunk.choices[0].index for chunk in chunks} == {0, 1}
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:]] == ["stop", "stop"]


async def test_embeddings_are_equal_in_both_encodings(ask_openai: openai.AsyncOpenAI) -> None:
    ask: dict[str, Any] = {"model": "text-embedding-3-small", "input": ["one", "two"], "dimensions": 8}
    floats = await ask_openai.embeddings.create(**ask, encoding_format="float")
    # Left alone, the client asks for base64 and unpacks it.
    unpacked = await ask_openai.embeddings.create(**ask)
    assert [item.embedding for item in unpacked.data] == [item.embedding for item in floats.data]
    assert [len(item.embedding) for item in floats.data] == [8, 8]
    assert floats.data[0].embedding != floats.data[1].embedding


async def test_responses_whole_and_chained(ask_openai: openai.AsyncOpenAI) -> None:
    first = await ask_openai.responses.create(model="gpt-5", input="Hello")
    second = await ask_openai.responses.create(model="gpt-5", input="And?", previous_response_id=first.id)
    assert first.status == "completed"
    assert first.output_text.startswith("Answer 1 to")
    assert second.previous_response_id == first.id
    assert await ask_openai.responses.retrieve(first.id) == first


async def test_responses_cut_by_their_limit_are_incomplete(ask_openai: openai.AsyncOpenAI) -> None:
    answer = await ask_openai.responses.create(model="gpt-5", input="Hello", max_output_tokens=2)
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    stream = await ask_openai.responses.create(model="gpt-5", input="x", max_output_tokens=2, stream=True)
    assert [event.type async for event in stream][-1] == "response.incomplete"


async def test_responses_stream_is_numbered_and_adds_up(ask_openai: openai.AsyncOpenAI) -> None:
    async with ask_openai.responses.stream(model="gpt-5", input="Hello") as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == final.output_text


async def test_responses_parse_tools_and_background(ask_openai: openai.AsyncOpenAI) -> None:
    parsed = await ask_openai.responses.parse(model="gpt-5", input="Where?", text_format=Point)
    assert parsed.output_parsed == Point(x=7, y=7)
    called = await ask_openai.responses.create(model="gpt-5", input=TOOL_MARKER, tools=[LOOK_UP])
    assert called.output[0].type == "function_call"
    stream = await ask_openai.responses.create(model="gpt-5", input=TOOL_MARKER, tools=[LOOK_UP], stream=True)
    assert "response.function_call_arguments.done" in [event.type async for event in stream]
    queued = await ask_openai.responses.create(model="gpt-5", input="Later", background=True)
    assert (queued.status, queued.output) == ("queued", [])
    assert (await ask_openai.responses.retrieve(queued.id)).status == "completed"


async def test_moderations_count_their_inputs(ask_openai: openai.AsyncOpenAI) -> None:
    answer = await ask_openai.moderations.create(input=["one", "two"])
    assert [result.flagged for result in answer.results] == [False, False]


async def test_speech_is_binary_and_unlike_the_last(ask_openai: openai.AsyncOpenAI) -> None:
    ask: dict[str, Any] = {"model": "tts-1", "voice": "alloy", "input": "Hello"}
    first = await ask_openai.audio.speech.create(**ask)
    second = await ask_openai.audio.speech.create(**ask)
    assert first.content.startswith(b"\xff\xfb")
    assert first.content != second.content
    assert first.response.headers["content-type"] == "audio/mpeg"


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # the client's word on translations
async def test_transcriptions_take_a_form_and_give_every_format(
    teacher: ScriptedTeacher, ask_openai: openai.AsyncOpenAI
) -> None:
    sound = b"RIFF\r\n--\r\nnot a boundary\x00\xff"
    ask: dict[str, Any] = {"model": "whisper-1", "file": ("a.wav", sound)}
    plain = await ask_openai.audio.transcriptions.create(**ask)
    assert plain.text.startswith("Answer 1 to")
    form = teacher.calls[0].form
    assert form is not None
    assert (form["file"], form["file.filename"], form["model"]) == (sound, b"a.wav", b"whisper-1")
    assert "Answer 2" in await ask_openai.audio.transcriptions.create(**ask, response_format="text")
    verbose = await ask_openai.audio.transcriptions.create(**ask, response_format="verbose_json")
    assert verbose.segments
    stream = await ask_openai.audio.transcriptions.create(**ask, stream=True)
    events = [event async for event in stream]
    assert events[-1].type == "transcript.text.done"
    translated = await ask_openai.audio.translations.create(**ask)
    assert translated.text.startswith("Answer 5 to")


async def test_images_are_pictures(ask_openai: openai.AsyncOpenAI) -> None:
    answer = await ask_openai.images.generate(model="gpt-image-1", prompt="A cat", n=2)
    pictures = [base64.b64decode(image.b64_json or "") for image in answer.data or []]
    assert len(set(pictures)) == 2
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    stream = await ask_openai.images.generate(model="gpt-image-1", prompt="A cat", stream=True, partial_images=1)
    kinds = [event.type async for event in stream]
    assert kinds == ["image_generation.partial_image", "image_generation.completed"]


async def test_models_files_and_batches(ask_openai: openai.AsyncOpenAI) -> None:
    assert "gpt-4.1" in [model.id async for model in ask_openai.models.list()]
    assert (await ask_openai.models.retrieve("gpt-4.1")).id == "gpt-4.1"
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    lines = [{"custom_id": f"row-{i}", "method": "POST", "url": "/v1/chat/completions", "body": body} for i in (1, 2)]
    content = "\n".join(map(json.dumps, lines)).encode()
    file = await ask_openai.files.create(file=("in.jsonl", content), purpose="batch")
    assert file.bytes == len(content)
    batch = await ask_openai.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    assert batch.status == "validating"
    done = await ask_openai.batches.retrieve(batch.id)
    assert done.status == "completed"
    output = (await ask_openai.files.content(str(done.output_file_id))).content.splitlines()
    assert [json.loads(line)["custom_id"] for line in output] == ["row-1", "row-2"]
    await ask_openai.files.delete(file.id)
    with pytest.raises(openai.NotFoundError):
        await ask_openai.files.retrieve(file.id)
