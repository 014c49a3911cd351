"""When an answer is whole, where the forms of a provider leave room for doubt."""

from typing import Any

import orjson
import pytest

from kdproxy.core.models import Usage
from kdproxy.providers.base import Ask, Complete, Facts
from kdproxy.providers.question import endpoint_named


@pytest.mark.parametrize(
    ("body", "is_whole"),
    [
        (b'{"text":"Hello world"}', True),
        (b'{"text":"Hello wo', False),
        (b'{"text":', False),
        (b"Hello wo", True),
        (b"1\n00:00:00,000 --> 00:00:01,000\nHello\n", True),
        (b" \n", False),
    ],
)
def test_a_transcript(body: bytes, is_whole: bool) -> None:
    judge = endpoint_named("openai", "audio.transcriptions").judge
    assert isinstance(judge(body), Complete) == is_whole


@pytest.mark.parametrize(
    ("members", "choices"),
    [
        ({"prompt": "Why?"}, 1),
        ({"prompt": "Why?", "n": 3}, 3),
        ({"prompt": ["Why?", "How?"]}, 2),
        ({"prompt": ["Why?", "How?"], "n": 2}, 4),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": [[1, 2, 3], [4]]}, 2),
        ({"prompt": []}, 1),
        ({}, 1),
    ],
)
def test_a_completion_has_as_many_choices_as_prompts_were_asked(members: dict[str, Any], choices: int) -> None:
    facts = endpoint_named("openai", "completions").read(Ask(path="/v1/completions", query="", members=members))
    assert isinstance(facts, Facts)
    assert facts.choices == choices


@pytest.mark.parametrize("tokens", [2**64 - 1, 2**63, -1, 1.5, True, "many"])
def test_a_count_that_is_none_is_unknown_and_the_answer_is_kept(tokens: Any) -> None:
    usage = {"input_tokens": tokens, "cache_read_input_tokens": tokens, "output_tokens": 3}
    message = {"type": "message", "stop_reason": "end_turn", "content": [], "usage": usage}
    judgement = endpoint_named("anthropic", "messages").judge(orjson.dumps(message))
    assert judgement == Complete(usage=Usage(input_tokens=None, output_tokens=3), finish=("end_turn",))
