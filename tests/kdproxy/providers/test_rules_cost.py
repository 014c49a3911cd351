"""What a request is thought to cost before it is sent."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdproxy.core.limits import Cost
from kdproxy.core.models import Usage
from kdproxy.providers.base import json_object
from kdproxy.providers.rules_cost import OPAQUE_TOKENS, OutputGuess, cost_of, used_of


def _estimate(body: bytes) -> Cost:
    return cost_of(json_object(body), OutputGuess(), body_bytes=len(body))


@pytest.mark.parametrize(
    ("body", "given", "asked"),
    [
        ({"messages": [{"content": "x" * 40}], "max_tokens": 100}, 10, 100),
        ({"messages": [{"content": "x" * 40}], "max_completion_tokens": 100, "n": 3}, 10, 300),
        ({"input": "y" * 80, "max_output_tokens": 7}, 20, 7),
        ({"prompt": ["a" * 8, "b" * 8], "max_tokens": 5, "best_of": 2}, 4, 10),
        ({"contents": [{"parts": [{"text": "z" * 12}]}], "generationConfig": {"maxOutputTokens": 9}}, 3, 9),
        (
            {"messages": [{"content": [{"image_url": {"url": "data:image/png;base64," + "A" * 9}}]}]},
            OPAQUE_TOKENS,
            256,
        ),
        ({"messages": "x" * 4, "max_tokens": True}, 1, 256),
        ([], 0, 0),
    ],
)  # fmt: skip
def test_each_dialect_is_read(body: object, given: float, asked: float) -> None:
    cost = _estimate(orjson.dumps(body))
    assert cost.input_tokens == pytest.approx(given, abs=3)
    assert cost.output_tokens == asked


def test_where_no_bound_is_asked_for_answers_teach_it() -> None:
    guess = OutputGuess()
    for _ in range(200):
        guess.learn(Usage(input_tokens=1, output_tokens=1_000))
    assert cost_of({}, guess, body_bytes=2).output_tokens == pytest.approx(1_000, rel=0.01)


def test_what_was_used_is_the_providers_count() -> None:
    used = used_of(Usage(input_tokens=5, output_tokens=None))
    assert used is not None
    assert (used.input_tokens, used.output_tokens) == (5, 0)
    assert used_of(None) is None


@given(st.binary(max_size=300))
def test_no_body_breaks_it(body: bytes) -> None:
    cost = _estimate(body)
    assert cost.input_tokens >= 0
    assert cost.output_tokens >= 0


def test_no_depth_breaks_it() -> None:
    """Such bodies have no key, and pass: orjson reads 1,024 levels."""
    depth = 1_020
    body = b'{"messages":' + b"[" * depth + b'"' + b"four" * 100 + b'"' + b"]" * depth + b"}"
    assert cost_of(json_object(body), OutputGuess(), body_bytes=len(body)).input_tokens == 100
