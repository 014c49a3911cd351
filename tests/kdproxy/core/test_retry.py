"""Each provider's errors and what they mean: recorded shapes in tests/data/rate_limits, one file a provider."""

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from kdproxy.core import limits, retry
from kdproxy.core.error_body import facts_of
from kdproxy.core.limits import QUOTAS
from kdproxy.core.models import Upstream
from kdproxy.core.provider_rules import Rules
from kdproxy.core.retry import Again, Done, GiveUp, Park, Verdict
from kdproxy.providers.rules import TABLES, rules_of

DATA = Path(__file__).parents[2] / "data" / "rate_limits"
FILES = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(DATA.glob("*.json"))}
CASES = [(name, case) for name, file in FILES.items() for case in file["cases"]]
NOW = 1_790_000_000.0


def judged(rules: Rules, case: dict[str, Any]) -> Verdict:
    headers = CIMultiDict(case["headers"])
    body = case["body"].encode() if isinstance(case["body"], str) else orjson.dumps(case["body"])
    readings = limits.read(headers, rules.limits, now=NOW)
    return retry.judge(case["status"], headers, body, rules, readings, now=NOW)


@pytest.mark.parametrize(("name", "case"), CASES, ids=lambda value: value if isinstance(value, str) else value["name"])
def test_each_row_of_each_provider(name: str, case: dict[str, Any]) -> None:
    expected = case["expect"]
    match judged(TABLES[name], case):
        case Again() as again:
            found = {"verdict": "again", "rate_limit": again.is_rate_limit, "seconds": again.floor_seconds}
        case Park() as park:
            found = {"verdict": "park", "seconds": park.wait_seconds}
        case GiveUp() as given_up:
            found = {"verdict": "give_up", "credential": given_up.is_credential}
        case Done():
            found = {"verdict": "done"}
    for key in ("verdict", "rate_limit", "credential"):
        if key in expected:
            assert found[key] == expected[key], key
    if "seconds" in expected:
        assert found["seconds"] == (None if expected["seconds"] is None else pytest.approx(expected["seconds"]))


@pytest.mark.parametrize(
    ("name", "case"),
    [(name, case) for name, case in CASES if "limits" in case["expect"]],
    ids=lambda value: value if isinstance(value, str) else value["name"],
)
def test_limits_are_read_by_dimension(name: str, case: dict[str, Any]) -> None:
    readings = limits.read(CIMultiDict(case["headers"]), TABLES[name].limits, now=NOW)
    found = {each.quota.name: [each.limit, each.remaining, each.reset_seconds] for each in readings}
    assert found == {quota: pytest.approx(values) for quota, values in case["expect"]["limits"].items()}
    assert set(found) <= set(QUOTAS)


def test_every_table_has_its_recordings_and_every_row_its_source() -> None:
    assert set(FILES) == set(TABLES)
    for name, rules in TABLES.items():
        assert FILES[name]["source"]
        for row in rules.rows:
            assert row.source
        host = FILES[name]["host"]
        if host is not None:
            assert rules_of(Upstream(name="u", url=f"https://{host}/v1")) is rules


def test_unknown_hosts_get_the_dialects_table_and_names_win() -> None:
    local = Upstream(name="u", url="http://127.0.0.1:8000/v1")
    assert rules_of(local).name == "general"
    assert rules_of(local, dialect="anthropic").name == "anthropic"
    assert rules_of(local, dialect="gemini").name == "gemini"
    assert rules_of(local, named="vllm", dialect="gemini").name == "vllm"
    # The end of a name, not a part of it: nobody else's host is OpenAI's.
    assert rules_of(Upstream(name="u", url="https://api.openai.com.example/v1")).name == "general"


@pytest.mark.parametrize("status", [200, 201, 204, 302, 304])
def test_what_is_no_error_is_done(status: int) -> None:
    assert retry.judge(status, {}, b"", TABLES["general"], now=NOW) == Done()


@pytest.mark.parametrize(
    ("table", "data", "expected"),
    [
        ("anthropic", b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}', Again),
        ("anthropic", b'{"type":"error","error":{"type":"api_error","message":"x"}}', Again),
        ("anthropic", b'{"type":"error","error":{"type":"invalid_request_error","message":"x"}}', GiveUp),
        ("anthropic", b'{"type":"message_start","message":{}}', Done),
        ("openai", b'{"error":{"message":"x","type":"server_error","code":null}}', Again),
        ("openai", b'{"id":"chatcmpl-1","choices":[]}', Done),
        ("openrouter", b'{"error":{"code":502,"message":"x"}}', Again),
        ("openrouter", b'{"error":{"code":402,"message":"x"}}', Park),
        ("gemini", b'{"error":{"code":503,"status":"UNAVAILABLE"}}', Again),
        # What nobody knows is a failure of the attempt, bounded like all that may have been billed.
        ("general", b'{"error":"something"}', Again),
        ("openai", b'{"error":{"message":"x","type":"invalid_request_error"}}', GiveUp),
        ("general", b"[DONE]", Done),
    ],
)
def test_an_error_inside_a_200_is_judged_by_its_own_words(table: str, data: bytes, expected: type) -> None:
    assert isinstance(retry.judge_event(data, TABLES[table], now=NOW), expected)


def test_jitter_is_above_the_floor_and_bounded() -> None:
    again = Again(floor_seconds=10.0)
    assert retry.wait_seconds(again, 1, jitter=0.0) == 10.0
    assert retry.wait_seconds(again, 60, jitter=0.999) <= 10.0 + retry.LONGEST_DELAY_SECONDS
    assert retry.backoff_seconds(1, jitter=0.999) <= 0.1
    spread = {retry.backoff_seconds(5, jitter=share / 10) for share in range(10)}
    assert len(spread) == 10


def test_labels_never_quote_the_message() -> None:
    body = orjson.dumps({"error": {"message": "secret prompt", "type": "requests", "code": "rate_limit_exceeded"}})
    assert facts_of(body).label == "rate_limit_exceeded, requests"


@given(
    status=st.integers(400, 599),
    headers=st.dictionaries(
        st.sampled_from(["retry-after", "retry-after-ms", "x-ratelimit-reset-requests", "x-ratelimit-limit-requests"]),
        st.text(max_size=40) | st.floats().map(str) | st.integers().map(str),
    ),
    body=st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["error", "type", "code", "message", "details", "violations"]), inner)
        ),
    ).map(orjson.dumps),
    name=st.sampled_from(sorted(TABLES)),
)
def test_no_answer_breaks_the_judge(status: int, headers: dict[str, str], body: bytes, name: str) -> None:
    rules = TABLES[name]
    readings = limits.read(CIMultiDict(headers), rules.limits, now=NOW)
    verdict = retry.judge(status, CIMultiDict(headers), body, rules, readings, now=NOW)
    assert not isinstance(verdict, Done)
    if isinstance(verdict, Again) and verdict.is_rate_limit and verdict.floor_seconds is not None:
        assert 0 <= verdict.floor_seconds <= retry.LONGEST_WAIT_SECONDS
    retry.judge_event(body, rules, now=NOW)
