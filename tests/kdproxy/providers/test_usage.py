"""Usage: which counts hold in a stream, which tier served, and what nonsense comes to. test_bills.py has the shapes."""

from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdproxy.core import sse
from kdproxy.core.models import Usage
from kdproxy.core.price import Price
from kdproxy.providers.anthropic import MessageStream
from kdproxy.providers.base import ONE_ANSWER, Complete
from kdproxy.providers.question import endpoint_named
from kdproxy.providers.usage import UsageMeter, as_served, read_anthropic, read_gemini, read_openai
from kdproxy.providers.usage_count import count

# -- streams --------------------------------------------------------------------------------------------------------


def test_the_last_usage_of_a_stream_holds_and_a_chunk_of_zeros_takes_nothing_back() -> None:
    meter = UsageMeter()
    for output in (1, 2, 3, 0):
        meter.take_openai({"usage": {"prompt_tokens": 5 if output else 0, "completion_tokens": output}})
    assert meter.usage == Usage(input_tokens=5, output_tokens=3)


def test_the_tier_may_be_in_another_chunk_than_the_usage() -> None:
    meter = UsageMeter()
    meter.take_openai({"choices": [], "service_tier": "flex"})
    meter.take_openai({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 1}})
    assert meter.usage is not None
    assert meter.usage.tier == "flex"


def test_choices_that_each_report_usage_have_no_price() -> None:
    meter = UsageMeter()
    for index in (0, 1):
        own = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
        meter.take_openai({"choices": [{"index": index, "finish_reason": "stop", "usage": own}]})
    assert meter.usage is not None
    assert meter.usage.unpriced
    meter.take_openai({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}})
    assert meter.usage == Usage(input_tokens=5, output_tokens=2)


def _anthropic_stream(start: dict[str, Any], delta: dict[str, Any]) -> Usage | None:
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"type": "message", "content": [], "usage": start}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": delta},
        {"type": "message_stop"},
    ]
    judge = MessageStream(ONE_ANSWER)
    body = b"".join(b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event)) for event in events)
    for piece in sse.pieces(body):
        judge.take(piece)
    verdict = judge.finish()
    assert isinstance(verdict, Complete)
    return verdict.usage


@pytest.mark.parametrize(
    ("start", "delta"),
    [
        # Anthropic: the first event tells the input, the last adds the output up.
        ({"input_tokens": 10, "cache_read_input_tokens": 90, "output_tokens": 2}, {"output_tokens": 7}),
        # Anthropic since 2025: the last event repeats all.
        (
            {"input_tokens": 10, "cache_read_input_tokens": 90, "output_tokens": 2},
            {"input_tokens": 10, "cache_read_input_tokens": 90, "output_tokens": 7},
        ),
        # Compatible servers: only the last event knows the input.
        (
            {"input_tokens": 0, "output_tokens": 0},
            {"input_tokens": 10, "cache_read_input_tokens": 90, "output_tokens": 7},
        ),
        # Gateways: the last event's input is 0.
        (
            {"input_tokens": 10, "cache_read_input_tokens": 90, "output_tokens": 2},
            {"input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 7},
        ),
    ],
)
def test_an_anthropic_stream_reports_its_usage_at_both_ends(start: dict[str, Any], delta: dict[str, Any]) -> None:
    assert _anthropic_stream(start, delta) == Usage(input_tokens=100, output_tokens=7, cached_input_tokens=90)


def test_a_gemini_stream_adds_up_in_its_chunks() -> None:
    meter = UsageMeter()
    meter.take_gemini({"promptTokenCount": 5, "thoughtsTokenCount": 3, "totalTokenCount": 8})
    meter.take_gemini({"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 10})
    assert meter.usage == Usage(input_tokens=5, output_tokens=5, reasoning_tokens=3)


# -- the tier as served ---------------------------------------------------------------------------------------------

PLAIN = Usage(input_tokens=1, output_tokens=1)


@pytest.mark.parametrize(
    ("told", "asked", "headers", "tier"),
    [
        (None, {}, (), None),
        (None, {"service_tier": "auto"}, (), None),
        (None, {"service_tier": "default"}, (), None),
        (None, {"service_tier": "standard_only"}, (), None),
        (None, {"service_tier": "flex"}, (), "unknown"),
        (None, {"serviceTier": "SERVICE_TIER_PRIORITY"}, (), "unknown"),
        ("standard", {"service_tier": "priority"}, (), "standard"),
        ("flex", {}, (), "flex"),
        # Gemini serves priority as standard where its limit is met, and says so in a header.
        (None, {"service_tier": "priority"}, (("X-Gemini-Service-Tier", "standard"),), "standard"),
        (None, None, (("x-gemini-service-tier", "flex"),), "flex"),
    ],
)
def test_the_tier_is_the_one_that_served(told: Any, asked: Any, headers: Any, tier: str | None) -> None:
    found = as_served(PLAIN._replace(tier=told), asked=asked, headers=headers)
    assert found is not None
    assert found.tier == tier


def test_no_usage_stays_none() -> None:
    assert as_served(None, asked={"service_tier": "flex"}, headers=()) is None
    for members in ({}, {"usage": None}, {"usage": {}}, {"usage": {"type": "duration", "seconds": 3}}):
        assert read_openai(members) is None


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        ({"cost_in_usd_ticks": 232_856_000}, "0.0232856"),
        ({"cost": 0.0031, "is_byok": False}, "0.0031"),
        ({"cost": 0}, "0"),
        ({"cost": 1e-7}, "0.0000001"),
        ({"cost": 0.0001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.002}}, "0.0021"),
        ({"cost": 0.0001, "is_byok": True}, None),
        ({"cost": {"total_cost": 1}}, None),
        ({"cost": "free"}, None),
        ({"cost": float("nan")}, None),
        ({"cost": True}, None),
        ({"cost": -1}, None),
        ({}, None),
    ],
)
def test_the_bill_that_an_answer_holds(usage: dict[str, Any], told: str | None) -> None:
    found = read_openai({"usage": {"prompt_tokens": 1, "completion_tokens": 1, **usage}})
    assert found is not None
    assert found.told_usd == told


# -- counts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *[(5, 5), (5.0, 5), ("5", 5), ("5.0", 5), (0, 0), ("", None), ("many", None), ("nan", None), ("inf", None)],
        *[(value, None) for value in (5.5, -1, "-1", True, None, [], {}, float("nan"), 2**60, "1e400")],
    ],
)
def test_a_count_is_a_whole_number(value: Any, expected: int | None) -> None:
    assert count(value) == expected


COUNTS = st.integers(0, 10**6)


@given(prompt=COUNTS, answer=COUNTS, reasoning=COUNTS)
def test_no_token_that_the_total_holds_is_given_away(prompt: int, answer: int, reasoning: int) -> None:
    total = prompt + answer + reasoning
    details = {"reasoning_tokens": reasoning}
    inside = {"prompt_tokens": prompt, "completion_tokens": answer + reasoning, "total_tokens": total}
    beside = {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": total}
    for usage in (inside, beside):
        found = read_openai({"usage": {**usage, "completion_tokens_details": details}})
        assert found is not None
        assert (found.input_tokens, found.output_tokens) == (prompt, answer + reasoning)
        assert found.unpriced is None


PRICE = Price(seller="own", model="m", input=Decimal(2), cached_input=Decimal(1), output=Decimal(10))
VALUES = st.one_of(st.none(), st.integers(-5, 2**60), st.floats(), st.text(max_size=5), st.booleans(), st.just({}))
NAMES = st.sampled_from(
    [
        *("prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens", "cached_tokens"),
        *("prompt_tokens_details", "completion_tokens_details", "cache_creation", "iterations", "reasoning_tokens"),
        *("promptTokenCount", "candidatesTokenCount", "totalTokenCount", "thoughtsTokenCount", "serviceTier", "speed"),
    ]
)


@given(usage=st.dictionaries(NAMES, VALUES))
def test_nonsense_is_never_a_negative_bill(usage: dict[str, Any]) -> None:
    for found in (read_openai({"usage": usage}), read_anthropic(usage), read_gemini(usage)):
        if found is not None:
            price = PRICE.cost(found)
            assert price is None or price >= 0


@pytest.mark.parametrize("name", ["chat.completions", "completions"])
def test_both_forms_report_the_same(name: str) -> None:
    endpoint = endpoint_named("openai", name)
    usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 9}
    text = {"message": {"role": "assistant", "content": "hi"}} if name == "chat.completions" else {"text": "hi"}
    delta = {"delta": {"role": "assistant", "content": "hi"}} if name == "chat.completions" else {"text": "hi"}
    choice = {"index": 0, "finish_reason": "stop"}
    plain = endpoint.judge(orjson.dumps({"choices": [{**choice, **text}], "usage": usage, "service_tier": "flex"}))
    stream = endpoint.judge_stream(ONE_ANSWER)
    for event in ({"choices": [{**choice, **delta}], "service_tier": "flex"}, {"choices": [], "usage": usage}):
        stream.take(sse.piece(b"data: " + orjson.dumps(event) + b"\n\n"))
    stream.take(sse.piece(b"data: [DONE]\n\n"))
    streamed = stream.finish()
    assert isinstance(plain, Complete)
    assert isinstance(streamed, Complete)
    assert plain.usage == streamed.usage == Usage(input_tokens=5, output_tokens=4, tier="flex")
