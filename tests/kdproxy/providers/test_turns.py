"""Which questions a recorded prompt may answer: those that ask for one text and nothing else."""

from typing import Any

import pytest

from kdproxy.core.models import Turn
from kdproxy.providers.base import Ask
from kdproxy.providers.question import endpoint_named

WHY = (Turn(role="user", text="Why?"),)


@pytest.mark.parametrize(
    ("config", "is_plain"),
    [
        ({}, True),
        ({"temperature": 0, "maxOutputTokens": 9, "thinkingConfig": {"thinkingBudget": 0}}, True),
        ({"responseMimeType": "text/plain", "responseModalities": ["TEXT"], "candidateCount": 1}, True),
        ({"responseMimeType": "application/json"}, False),
        ({"response_mime_type": "text/x.enum"}, False),
        ({"responseSchema": {}}, False),
        ({"response_schema": {"type": "OBJECT"}}, False),
        ({"responseSchema": None}, True),
        ({"responseModalities": ["AUDIO"], "speechConfig": {}}, False),
        ({"candidateCount": 2}, False),
        ({"candidate_count": 2}, False),
        ({"responseLogprobs": True}, False),
        ({"logprobs": 3}, False),
    ],
)
@pytest.mark.parametrize("name", ["generationConfig", "generation_config"])
def test_gemini(name: str, config: dict[str, Any], is_plain: bool) -> None:
    members = {"contents": [{"parts": [{"text": "Why?"}]}], name: config}
    ask = Ask(path="/v1beta/models/m:generateContent", query="", members=members)
    assert endpoint_named("gemini", "generateContent").turns(ask) == (WHY if is_plain else None)


@pytest.mark.parametrize(
    ("more", "is_plain"),
    [
        ({}, True),
        ({"text": {"format": {"type": "text"}}}, True),
        ({"text": {"format": {"type": "json_object"}}}, False),
        ({"prompt": {"id": "pmpt_1", "version": "2"}}, False),
        ({"top_logprobs": 2}, False),
        ({"include": ["message.output_text.logprobs"]}, False),
        ({"previous_response_id": "resp_1"}, False),
    ],
)
def test_responses(more: dict[str, Any], is_plain: bool) -> None:
    ask = Ask(path="/v1/responses", query="", members={"input": "Why?", **more})
    assert endpoint_named("openai", "responses").turns(ask) == (WHY if is_plain else None)
