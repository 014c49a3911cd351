"""Prices: a golden set that no later price change touches, and every way in which a price stays unknown."""

import tomllib
from datetime import date
from decimal import Decimal, localcontext
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdproxy.core.models import Upstream, Usage
from kdproxy.core.pricefile import read_prices
from kdproxy.core.pricing import PriceTable
from kdproxy.errors import ConfigError

MILLION = Usage(input_tokens=1_000_000, output_tokens=1_000_000)

# Closed rows (`until`) or days in the past: history does not change.
GOLDEN = [
    ("openai", "o3", date(2025, 6, 1), MILLION, "50.00"),
    ("openai", "o3-2025-04-16", date(2025, 6, 10), MILLION, "10.00"),
    ("openai", "gpt-4o-mini", date(2025, 1, 1), MILLION, "0.75"),
    (
        "openai",
        "gpt-4o-mini-2024-07-18",
        date(2025, 1, 1),
        Usage(input_tokens=1, output_tokens=0),
        "0.00000015",
    ),
    ("anthropic", "claude-3-5-sonnet-20241022", date(2025, 1, 1), MILLION, "18.00"),
    ("anthropic", "claude-3-5-sonnet-latest", date(2025, 1, 1), MILLION, "18.00"),
    ("anthropic", "claude-opus-4-1-20250805", date(2025, 9, 1), MILLION, "90.00"),
    ("gemini", "gemini-1.5-pro-002", date(2025, 1, 1), Usage(input_tokens=128_000, output_tokens=0), "0.16"),
    (
        "gemini",
        "gemini-1.5-pro-002",
        date(2025, 1, 1),
        Usage(input_tokens=128_001, output_tokens=0),
        "0.3200025",
    ),
    ("deepseek", "deepseek-chat", date(2025, 12, 1), MILLION, "0.70"),
    ("deepseek", "deepseek-chat", date(2026, 4, 25), MILLION, None),
    ("groq", "llama-3.1-8b-instant", date(2025, 9, 1), MILLION, "0.13"),
    (
        "openai",
        "text-embedding-3-small",
        date(2025, 9, 1),
        Usage(input_tokens=5, output_tokens=None),
        "0.0000001",
    ),
]


TABLE = PriceTable.load()


@pytest.mark.parametrize(("seller", "model", "day", "usage", "expected"), GOLDEN)
def test_golden_prices(seller: str, model: str, day: date, usage: Usage, expected: str | None) -> None:
    found = TABLE.price(seller, model, usage, at_date=day)
    assert found == (None if expected is None else Decimal(expected))


def test_every_built_in_row_names_its_page_and_its_day() -> None:
    prices, sellers = read_prices(
        tomllib.loads(files("kdproxy.core").joinpath("prices.toml").read_text(encoding="utf-8"))
    )
    assert all(price.source and price.read_on for price in prices)
    telling = {seller.name for seller in sellers if seller.tells_cost}
    assert {price.seller for price in prices} | telling == {seller.name for seller in sellers}


@pytest.mark.parametrize(
    ("seller", "model"),
    [
        ("openai", "gpt-4o-mini-foo"),
        ("openai", "gpt-4o-minimal"),
        ("openai", "gpt-4"),
        ("openai", "gpt-4o-2024-13-01"),
        ("openai", "gpt-4o-20240806"),
        ("openai", "gpt-4o-latest"),
        ("openai", "gpt-4o-audio-preview-2024-12-17"),
        ("openai", "ft:gpt-4o-mini-2024-07-18:org::id"),
        ("openai", "GPT-4o"),
        ("openai", ""),
        ("anthropic", "claude-opus-4-9"),
        ("anthropic", "claude-sonnet-4-2025-05-14"),
        ("gemini", "gemini-2.5-flash-preview-05-20"),
        ("gemini", "gemini-2.5-flash-image"),
        ("mistral", "mistral-large-latest"),
        ("nobody", "gpt-4o"),
        ("groq", "gpt-4o"),
    ],
)
def test_resemblance_is_not_a_price(seller: str, model: str) -> None:
    assert TABLE.price(seller, model, MILLION) is None


@given(ending=st.text(min_size=1, max_size=12))
def test_only_a_documented_ending_continues_a_name(ending: str) -> None:
    row = TABLE.find("openai", "gpt-4o" + ending)
    assert row is None or row.model == "gpt-4o" + ending or ending.startswith("-20")


def test_an_exact_row_wins_over_its_family() -> None:
    old = TABLE.find("openai", "gpt-4o-2024-05-13")
    new = TABLE.find("openai", "gpt-4o-2024-08-06")
    assert old is not None
    assert new is not None
    assert (old.model, new.model) == ("gpt-4o-2024-05-13", "gpt-4o")


# One price with every rate, of our own, so that the arithmetic does not depend on what a provider asks.
OWN = PriceTable.load(
    {
        "price": [
            {
                "seller": "here",
                "model": "all",
                "input": "3",
                "cached_input": "0.3",
                "cache_write": "3.75",
                "output": "15",
            },
            {"seller": "here", "model": "plain", "input": "1", "output": "2"},
            {"seller": "here", "model": "free", "input": "0", "output": "0"},
            {"seller": "here", "model": "embedding", "input": "0.02"},
        ]
    }
)


def test_cached_and_written_tokens_leave_the_input_and_take_their_own_rates() -> None:
    usage = Usage(input_tokens=1000, output_tokens=10, cached_input_tokens=600, cache_write_tokens=300)
    # 100 x 3 + 600 x 0.3 + 300 x 3.75 + 10 x 15 = 1755 millionths
    assert OWN.price("here", "all", usage) == Decimal("0.001755")


def test_openai_and_anthropic_counts_of_one_call_cost_the_same_in_the_normal_form() -> None:
    openai_wire = {"prompt_tokens": 1000, "completion_tokens": 10, "cached_tokens": 600}
    anthropic_wire = {"input_tokens": 400, "output_tokens": 10, "cache_read_input_tokens": 600}
    told = Usage(
        input_tokens=openai_wire["prompt_tokens"],
        output_tokens=openai_wire["completion_tokens"],
        cached_input_tokens=openai_wire["cached_tokens"],
    )
    added = Usage(
        input_tokens=anthropic_wire["input_tokens"] + anthropic_wire["cache_read_input_tokens"],
        output_tokens=anthropic_wire["output_tokens"],
        cached_input_tokens=anthropic_wire["cache_read_input_tokens"],
        cache_write_tokens=0,
    )
    assert OWN.price("here", "all", told) == OWN.price("here", "all", added) == Decimal("0.00153")


@pytest.mark.parametrize(
    ("model", "usage"),
    [
        ("all", Usage(input_tokens=None, output_tokens=1)),
        ("all", Usage(input_tokens=1, output_tokens=None)),
        ("all", Usage(input_tokens=5, output_tokens=1, cached_input_tokens=6)),
        ("all", Usage(input_tokens=-1, output_tokens=1)),
        ("all", Usage(input_tokens=1, output_tokens=-1)),
        ("plain", Usage(input_tokens=5, output_tokens=1, cached_input_tokens=1)),
        ("plain", Usage(input_tokens=5, output_tokens=1, cache_write_tokens=1)),
        ("embedding", Usage(input_tokens=5, output_tokens=1)),
    ],
    ids=str,
)
def test_what_is_unknown_is_none_and_never_zero(model: str, usage: Usage) -> None:
    assert OWN.price("here", model, usage) is None


def test_a_model_is_free_only_where_the_override_says_so() -> None:
    zero = OWN.price("here", "free", MILLION)
    assert zero is not None
    assert zero == 0
    assert TABLE.price("here", "free", MILLION) is None


@given(tokens=st.integers(0, 10**15), output=st.integers(0, 10**15), precision=st.integers(1, 40))
def test_the_sum_is_exact_in_any_decimal_context(tokens: int, output: int, precision: int) -> None:
    usage = Usage(input_tokens=tokens, output_tokens=output, cached_input_tokens=tokens // 3)
    with localcontext(prec=precision):
        found = OWN.price("here", "all", usage)
    assert found is not None
    # In whole ten-millionths of a dollar, which integers hold exactly.
    assert int(found.scaleb(7)) == (tokens - tokens // 3) * 30 + tokens // 3 * 3 + output * 150


def test_an_overridden_model_is_priced_by_the_override_alone() -> None:
    table = PriceTable.load(
        {"price": [{"seller": "openai", "model": "o3", "input": "1", "output": "1", "since": date(2026, 1, 1)}]}
    )
    assert table.price("openai", "o3", MILLION, at_date=date(2025, 6, 1)) is None
    assert table.price("openai", "o3", MILLION, at_date=date(2026, 1, 1)) == 2
    assert table.price("openai", "gpt-4o-mini", MILLION) == TABLE.price("openai", "gpt-4o-mini", MILLION)


def test_the_bill_goes_to_the_host_and_not_to_a_name() -> None:
    assert TABLE.seller_of(Upstream(name="teacher", url="https://api.openai.com/v1")) == "openai"
    assert TABLE.seller_of(Upstream(name="a", url="https://API.Together.xyz:443/v1")) == "together"
    assert TABLE.seller_of(Upstream(name="openai", url="http://127.0.0.1:8000/v1")) is None
    assert TABLE.seller_of(Upstream(name="lab", url="http://127.0.0.1:8000/v1")) == "lab"
    assert TABLE.seller_of(Upstream(name="x", url="https://api.openai.com.example.org/v1")) == "x"


def test_an_override_adds_a_host_to_a_known_seller() -> None:
    table = PriceTable.load({"sellers": {"openai": {"hosts": ["127.0.0.1:9000"]}}})
    assert table.seller_of(Upstream(name="x", url="http://127.0.0.1:9000/v1")) == "openai"
    assert table.seller_of(Upstream(name="x", url="http://127.0.0.1:9001/v1")) == "x"
    assert table.price("openai", "o3-2025-04-16", MILLION, at_date=date(2025, 6, 10)) == 10


def test_all_mistakes_of_an_override_are_reported_at_once() -> None:
    override = tomllib.loads("""
        extra = 1
        [sellers.openai]
        hosts = "api.example.org"
        suffixes = [["date"], "weekly"]
        colour = "red"
        [[price]]
        seller = "openai"
        model = "gpt-4o"
        input = 2.5
        output = "-1"
        cached_input = "NaN"
        cache_write = "a lot"
        [[price]]
        seller = ""
        input = "1"
        prize = "1"
        above_input_tokens = -1
        since = "yesterday"
        [[price]]
        seller = "x"
        model = "m"
        input = "1"
        since = 2026-02-01
        until = 2026-01-01
        [[price]]
        seller = "y"
        model = "m"
        input = "1"
        [[price]]
        seller = "y"
        model = "m"
        input = "2"
    """)
    with pytest.raises(ConfigError) as caught:
        PriceTable.load(override)
    assert caught.value.problems == [
        "prices: unknown table 'extra'",
        "prices: seller openai: unknown field 'colour'",
        "prices: seller openai: hosts must be a list of host names",
        "prices: seller openai: suffixes must be a list out of date, compact-date, version, latest",
        'prices: row 1: input must be a decimal string such as "0.15"',
        'prices: row 1: cached_input must be a decimal string such as "0.15"',
        'prices: row 1: cache_write must be a decimal string such as "0.15"',
        'prices: row 1: output must be a decimal string such as "0.15"',
        "prices: row 2: unknown field 'prize'",
        "prices: row 2: model is missing",
        "prices: row 2: seller must be text",
        "prices: row 2: above_input_tokens must be a whole number",
        "prices: row 2: since must be a date such as 2026-01-31",
        "prices: row 3: since is after until",
        "prices: two rows for y m hold on the same day",
    ]


@pytest.mark.parametrize(
    "override",
    [{"price": {"seller": "x"}}, {"price": ["x"]}, {"sellers": []}, {"sellers": {"x": 1}}],
    ids=str,
)
def test_a_file_of_another_shape_is_a_config_error(override: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="prices: write each"):
        PriceTable.load(override)


def test_a_seller_that_writes_its_bill_into_answers_is_believed() -> None:
    told = Usage(input_tokens=1, output_tokens=1, told_usd="0.0232856", tier="flex", unpriced="searches")
    assert TABLE.price("xai", "grok-4", told) == Decimal("0.0232856")
    assert TABLE.price("openrouter", "x/y", told) == Decimal("0.0232856")
    # Any other server may write anything there.
    assert TABLE.price("openai", "gpt-4o", told) is None
    assert TABLE.price("lab", "m", told) is None
    own = PriceTable.load({"price": [{"seller": "xai", "model": "grok-4", "input": "1", "output": "1"}]})
    plain = told._replace(tier=None, unpriced=None)
    assert own.price("xai", "grok-4", plain) == Decimal("0.000002")
    assert own.price("xai", "grok-3", plain) == Decimal("0.0232856")
