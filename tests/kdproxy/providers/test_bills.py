"""What an answer cost in OpenAI's dialect: usage in the shapes of the providers, and the bill worked out by hand.

Shapes as public reports and reference pages show them (read 2026-11-30); the numbers are our own.
"""

from decimal import Decimal
from typing import Any

import pytest

from kdproxy.core.pricing import PriceTable
from kdproxy.providers.usage import read_openai

TABLE = PriceTable.load(
    {
        "price": [
            # Of our own, for sellers that the built-in table does not price: $2 in, $0.50 cached, $3 written, $10 out.
            {
                "seller": "own",
                "model": "m",
                "input": "2",
                "cached_input": "0.5",
                "cache_write": "3",
                "output": "10",
            },
            {"seller": "own", "model": "m", "tier": "flex", "input": "1", "cached_input": "0.25", "output": "5"},
            {"seller": "own", "model": "no-cache", "input": "2", "output": "10"},
        ]
    }
)

OPENAI = {
    # (seller, model): usage, tier; expected input, output, cached; the bill
    "OpenAI: cached and reasoning lie inside (API reference, chat object)": (
        ("openai", "gpt-5"),
        {
            "usage": {
                "prompt_tokens": 2000,
                "completion_tokens": 500,
                "total_tokens": 2500,
                "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
                "completion_tokens_details": {
                    "reasoning_tokens": 320,
                    "audio_tokens": 0,
                    "accepted_prediction_tokens": 0,
                    "rejected_prediction_tokens": 0,
                },
            },
            "service_tier": "default",
        },
        (2000, 500, 1024),
        "0.006348",  # 976 x 1.25 + 1024 x 0.125 + 500 x 10 = 1220 + 128 + 5000 = 6348 millionths
    ),
    "OpenAI Responses: input and output": (
        ("openai", "gpt-5"),
        {
            "usage": {
                "input_tokens": 100,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": 900,
                "output_tokens_details": {"reasoning_tokens": 896},
                "total_tokens": 1000,
            },
        },
        (100, 900, 0),
        "0.009125",  # 100 x 1.25 + 900 x 10
    ),
    "OpenAI embeddings: no output": (
        ("openai", "text-embedding-3-small"),
        {"usage": {"prompt_tokens": 50, "total_tokens": 50}},
        (50, None, None),
        "0.000001",  # 50 x 0.02
    ),
    "OpenAI flex: half of nothing that we know": (
        ("openai", "gpt-5"),
        {"usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}, "service_tier": "flex"},
        (100, 10, None),
        None,
    ),
    "OpenAI priority": (
        ("openai", "gpt-5"),
        {"usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}, "service_tier": "priority"},
        (100, 10, None),
        None,
    ),
    "OpenAI audio in and out: a rate of its own": (
        ("openai", "gpt-4o"),
        {
            "usage": {
                "prompt_tokens": 100,
                "completion_tokens": 10,
                "total_tokens": 110,
                "prompt_tokens_details": {"audio_tokens": 80},
            }
        },
        (100, 10, None),
        None,
    ),
    "xAI: reasoning beside completion, the total says so": (
        ("own", "m"),
        {
            "usage": {
                "prompt_tokens": 1000,
                "completion_tokens": 10,
                "total_tokens": 1210,
                "prompt_tokens_details": {"text_tokens": 1000, "audio_tokens": 0, "cached_tokens": 128},
                "completion_tokens_details": {"reasoning_tokens": 200, "audio_tokens": 0},
                "num_sources_used": 0,
            }
        },
        (1000, 210, 128),
        "0.003908",  # 872 x 2 + 128 x 0.5 + 210 x 10 = 1744 + 64 + 2100
    ),
    "xAI: live search is billed by source": (
        ("own", "m"),
        {"usage": {"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1010, "num_sources_used": 4}},
        (1000, 10, None),
        None,
    ),
    "no total, more reasoning than output: it lies beside it": (
        ("own", "m"),
        {
            "usage": {
                "prompt_tokens": 100,
                "completion_tokens": 10,
                "completion_tokens_details": {"reasoning_tokens": 200},
            }
        },
        (100, 210, None),
        "0.0023",  # 100 x 2 + 210 x 10
    ),
    "Gemini's OpenAI layer: thoughts only in the total": (
        ("gemini", "gemini-2.5-flash"),
        {"usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 1120}},
        (100, 1020, None),
        "0.00258",  # 100 x 0.30 + 1020 x 2.50 = 30 + 2550
    ),
    "Moonshot: usage inside the last choice, cached tokens beside the details": (
        ("own", "m"),
        {
            "choices": [
                {
                    "index": 0,
                    "delta": {},
                    "finish_reason": "stop",
                    "usage": {
                        "prompt_tokens": 300,
                        "completion_tokens": 40,
                        "total_tokens": 340,
                        "cached_tokens": 256,
                    },
                }
            ]
        },
        (300, 40, 256),
        "0.000616",  # 44 x 2 + 256 x 0.5 + 40 x 10 = 88 + 128 + 400
    ),
    "DeepSeek: hit and miss": (
        ("deepseek", "deepseek-v4-flash"),
        {
            "usage": {
                "prompt_tokens": 1100,
                "completion_tokens": 100,
                "total_tokens": 1200,
                "prompt_cache_hit_tokens": 1000,
                "prompt_cache_miss_tokens": 100,
                "completion_tokens_details": {"reasoning_tokens": 60},
            }
        },
        (1100, 100, 1000),
        "0.0000448",  # 100 x 0.14 + 1000 x 0.0028 + 100 x 0.28 = 14 + 2.8 + 28
    ),
    "DeepSeek behind a gateway that drops prompt_tokens": (
        ("deepseek", "deepseek-v4-flash"),
        {"usage": {"completion_tokens": 100, "prompt_cache_hit_tokens": 1000, "prompt_cache_miss_tokens": 100}},
        (1100, 100, 1000),
        "0.0000448",
    ),
    "Groq: on demand, in its own member of a stream": (
        ("groq", "llama-3.1-8b-instant"),
        {
            "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
            "x_groq": {
                "id": "req_1",
                "usage": {
                    "queue_time": 0.03,
                    "prompt_tokens": 200,
                    "prompt_time": 0.01,
                    "completion_tokens": 100,
                    "total_tokens": 300,
                },
            },
            "service_tier": "on_demand",
        },
        (200, 100, None),
        "0.000018",  # 200 x 0.05 + 100 x 0.08 = 10 + 8
    ),
    "Mistral: plain": (
        ("mistral", "mistral-small-2506"),
        {"usage": {"prompt_tokens": 10, "total_tokens": 40, "completion_tokens": 30, "prompt_audio_seconds": None}},
        (10, 30, None),
        "0.00001",  # 10 x 0.10 + 30 x 0.30
    ),
    "Mistral: audio by the second": (
        ("mistral", "mistral-small-2506"),
        {"usage": {"prompt_tokens": 10, "total_tokens": 40, "completion_tokens": 30, "prompt_audio_seconds": 12.5}},
        (10, 30, None),
        None,
    ),
    "Together: cached tokens without a rate for them": (
        ("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo"),
        {"usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "cached_tokens": 8}},
        (10, 5, 8),
        None,
    ),
    "SGLang: reasoning beside the details": (
        ("own", "m"),
        {
            "usage": {
                "prompt_tokens": 10,
                "total_tokens": 40,
                "completion_tokens": 30,
                "prompt_tokens_details": None,
                "reasoning_tokens": 20,
            }
        },
        (10, 30, None),
        "0.00032",  # 10 x 2 + 30 x 10
    ),
    "OpenRouter: writes to the cache are told": (
        ("own", "m"),
        {
            "usage": {
                "prompt_tokens": 1000,
                "completion_tokens": 10,
                "total_tokens": 1010,
                "cost": 0.0031,
                "is_byok": False,
                "prompt_tokens_details": {"cached_tokens": 500, "cache_write_tokens": 300, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 0, "image_tokens": 0},
            }
        },
        (1000, 10, 500),
        "0.00165",  # 200 x 2 + 500 x 0.5 + 300 x 3 + 10 x 10 = 400 + 250 + 900 + 100
    ),
    "a gateway that puts Anthropic's cache beside prompt_tokens, and into the total": (
        ("own", "m"),
        {
            "usage": {
                "prompt_tokens": 200,
                "completion_tokens": 10,
                "total_tokens": 710,
                "prompt_tokens_details": {"cached_tokens": 500},
            }
        },
        (700, 10, 500),
        "0.00075",  # 200 x 2 + 500 x 0.5 + 10 x 10
    ),
    "a gateway that passes Anthropic's own counts": (
        ("own", "m"),
        {"usage": {"input_tokens": 200, "output_tokens": 10, "cache_read_input_tokens": 100}},
        (300, 10, 100),
        "0.00055",  # 200 x 2 + 100 x 0.5 + 10 x 10
    ),
    "counts as floats and as text": (
        ("own", "m"),
        {"usage": {"prompt_tokens": 10.0, "completion_tokens": "5", "total_tokens": "15.0"}},
        (10, 5, None),
        "0.00007",  # 10 x 2 + 5 x 10
    ),
    "a total of 0 is none": (
        ("own", "m"),
        {"usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 0}},
        (10, 5, None),
        "0.00007",
    ),
    "a total smaller than its parts": (
        ("own", "m"),
        {"usage": {"prompt_tokens": 10, "completion_tokens": 50, "total_tokens": 20}},
        (10, 50, None),
        None,
    ),
    "more reasoning than output, and a total that leaves it out": (
        ("own", "m"),
        {
            "usage": {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 15,
                "completion_tokens_details": {"reasoning_tokens": 90},
            }
        },
        (10, 95, None),
        None,
    ),
    "a tier that the table knows": (
        ("own", "m"),
        {"usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}, "service_tier": "flex"},
        (100, 10, None),
        "0.00015",  # 100 x 1 + 10 x 5
    ),
    "vLLM: auto says nothing": (
        ("own", "m"),
        {"usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}, "service_tier": "auto"},
        (100, 10, None),
        "0.0003",  # 100 x 2 + 10 x 10
    ),
    "Perplexity: searches": (
        ("own", "m"),
        {
            "usage": {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 15,
                "num_search_queries": 3,
                "search_context_size": "low",
            }
        },
        (10, 5, None),
        None,
    ),
}


@pytest.mark.parametrize("case", OPENAI.values(), ids=OPENAI)
def test_the_bill_of_openai_s_dialect(case: Any) -> None:
    (seller, model), members, counts, bill = case
    usage = read_openai(members)
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.cached_input_tokens) == counts
    assert TABLE.price(seller, model, usage) == (None if bill is None else Decimal(bill))
