"""What an answer cost in Anthropic's and Gemini's own dialects, worked out by hand. test_bills.py has OpenAI's."""

from decimal import Decimal
from typing import Any

import pytest

from kdproxy.core.pricing import PriceTable
from kdproxy.providers.usage import read_anthropic, read_gemini, read_interaction

TABLE = PriceTable.load()

ANTHROPIC = {
    "cache read and written": (
        {
            "input_tokens": 100,
            "cache_creation_input_tokens": 300,
            "cache_read_input_tokens": 600,
            "cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 100},
            "output_tokens": 10,
            "service_tier": "standard",
            "inference_geo": "not_available",
        },
        (1000, 10),
        # Opus 4.8: 100 x 5 + 600 x 0.5 + 200 x 6.25 + 100 x 10 + 10 x 25 = 500 + 300 + 1250 + 1000 + 250
        "0.0033",
    ),
    "priority capacity is paid for ahead": (
        {"input_tokens": 1, "output_tokens": 1, "service_tier": "priority"},
        (1, 1),
        None,
    ),
    "a batch": ({"input_tokens": 1, "output_tokens": 1, "service_tier": "batch"}, (1, 1), None),
    "fast mode": ({"input_tokens": 1, "output_tokens": 1, "speed": "fast"}, (1, 1), None),
    "inference in one country": ({"input_tokens": 1, "output_tokens": 1, "inference_geo": "us"}, (1, 1), None),
    "web searches": (
        {"input_tokens": 1, "output_tokens": 1, "server_tool_use": {"web_search_requests": 1}},
        (1, 1),
        None,
    ),
    "compaction": (
        {"input_tokens": 1, "output_tokens": 1, "iterations": [{"type": "compaction"}, {"type": "message"}]},
        (1, 1),
        None,
    ),
    "one plain iteration": (
        {"input_tokens": 1, "output_tokens": 1, "iterations": [{"type": "message"}], "speed": "standard"},
        (1, 1),
        "0.00003",  # 5 + 25
    ),
}


@pytest.mark.parametrize("case", ANTHROPIC.values(), ids=ANTHROPIC)
def test_the_bill_of_anthropic(case: Any) -> None:
    members, counts, bill = case
    usage = read_anthropic(members)
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == counts
    assert TABLE.price("anthropic", "claude-opus-4-8", usage) == (None if bill is None else Decimal(bill))


GEMINI = {
    "thoughts beside candidates": (
        {
            "promptTokenCount": 100,
            "candidatesTokenCount": 20,
            "thoughtsTokenCount": 1000,
            "totalTokenCount": 1120,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 100}],
        },
        (100, 1020),
        "0.00258",  # 100 x 0.30 + 1020 x 2.50
    ),
    "the budget went into thoughts: no candidates": (
        {"promptTokenCount": 100, "thoughtsTokenCount": 50, "totalTokenCount": 150},
        (100, 50),
        "0.000155",  # 30 + 125
    ),
    "thoughts that are not told apart": (
        {"promptTokenCount": 100, "candidatesTokenCount": 20, "totalTokenCount": 1120},
        (100, 1020),
        "0.00258",
    ),
    "a gateway that counts thoughts as candidates": (
        {"promptTokenCount": 100, "candidatesTokenCount": 1020, "thoughtsTokenCount": 1000, "totalTokenCount": 1120},
        (100, 1020),
        "0.00258",
    ),
    "results of tools, and a cache": (
        {
            "promptTokenCount": 100,
            "toolUsePromptTokenCount": 50,
            "cachedContentTokenCount": 60,
            "candidatesTokenCount": 20,
            "totalTokenCount": 170,
        },
        (150, 20),
        "0.0000788",  # 90 x 0.30 + 60 x 0.03 + 20 x 2.50 = 27 + 1.8 + 50
    ),
    "a blocked prompt": ({"promptTokenCount": 100, "totalTokenCount": 100}, (100, 0), "0.00003"),
    "audio in": (
        {
            "promptTokenCount": 100,
            "candidatesTokenCount": 20,
            "totalTokenCount": 120,
            "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 90}, {"modality": "TEXT", "tokenCount": 10}],
        },
        (100, 20),
        None,
    ),
    "flex": (
        {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2, "serviceTier": "flex"},
        (1, 1),
        None,
    ),
    "Vertex: on demand": (
        {"promptTokenCount": 10, "candidatesTokenCount": 1, "totalTokenCount": 11, "trafficType": "ON_DEMAND"},
        (10, 1),
        "0.0000055",  # 3 + 2.5
    ),
    "Vertex: throughput that is paid for ahead": (
        {
            "promptTokenCount": 1,
            "candidatesTokenCount": 1,
            "totalTokenCount": 2,
            "trafficType": "PROVISIONED_THROUGHPUT",
        },
        (1, 1),
        None,
    ),
}


@pytest.mark.parametrize("case", GEMINI.values(), ids=GEMINI)
def test_the_bill_of_gemini(case: Any) -> None:
    members, counts, bill = case
    usage = read_gemini(members)
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == counts
    assert TABLE.price("gemini", "gemini-2.5-flash", usage) == (None if bill is None else Decimal(bill))


def test_the_bill_of_an_interaction() -> None:
    usage = {
        "total_input_tokens": 100,
        "total_output_tokens": 20,
        "total_thought_tokens": 1000,
        "total_tokens": 1120,
        "input_tokens_by_modality": [{"modality": "text", "tokens": 100}],
    }
    found = read_interaction({"usage": usage, "service_tier": "standard"})
    assert found is not None
    # 100 x 0.30 + 1020 x 2.50
    assert TABLE.price("gemini", "gemini-2.5-flash", found) == Decimal("0.00258")
    for more in ({"grounding_tool_count": [{"type": "google_search", "count": 1}]}, {"total_tokens": 50}):
        told = read_interaction({"usage": {**usage, **more}})
        assert told is not None
        assert TABLE.price("gemini", "gemini-2.5-flash", told) is None
    flex = read_interaction({"usage": usage, "service_tier": "flex"})
    assert flex is not None
    assert TABLE.price("gemini", "gemini-2.5-flash", flex) is None
