"""Which rows are understood, under which names, and why the others are not."""

import hashlib
from typing import Any

import pytest

from kdproxy.core.models import Turn
from kdproxy.ops.warm import tracker
from kdproxy.ops.warm.row import RowUnusable


def turns(*pairs: tuple[str, str]) -> tuple[Turn, ...]:
    return tuple(Turn(role=role, text=text) for role, text in pairs)


@pytest.mark.parametrize("name", ["prompt", "prompt_text", "user_prompt", "question", "query", "instruction", "input"])
def test_a_prompt_is_found_under_its_usual_names(name: str) -> None:
    row = tracker.read({name: "why?", "response": "so", "model": "m"})
    assert row.turns == turns(("user", "why?"))


@pytest.mark.parametrize(
    "name",
    [
        "response",
        "teacher_response",
        "api_response",
        "response_text",
        "completion",
        "output",
        "answer",
        "generation",
        "generated_text",
        "model_response",
    ],
)
def test_an_answer_is_found_under_its_usual_names(name: str) -> None:
    assert tracker.read({"prompt": "why?", name: "so", "model": "m"}).response == "so"


@pytest.mark.parametrize("name", ["model", "teacher", "teacher_model", "model_name", "model_id"])
def test_a_model_is_found_under_its_usual_names(name: str) -> None:
    assert tracker.read({"prompt": "why?", "response": "so", name: "m"}, model="other").model == "m"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"system": "be kind", "prompt": "q"}, turns(("system", "be kind"), ("user", "q"))),
        ({"system_prompt": "be kind", "prompt": "q"}, turns(("system", "be kind"), ("user", "q"))),
        ({"instruction": "sum", "input": "1 2"}, turns(("user", "sum\n\n1 2"))),
        ({"instruction": "sum", "input": ""}, turns(("user", "sum"))),
        (
            {"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]},
            turns(("system", "s"), ("user", "q")),
        ),
        (
            {"messages": [{"role": "developer", "content": "s"}, {"role": "user", "content": "q"}]},
            turns(("system", "s"), ("user", "q")),
        ),
    ],
)
def test_a_question_is_put_together(row: dict[str, Any], expected: tuple[Turn, ...]) -> None:
    assert tracker.read({**row, "response": "so", "model": "m"}).turns == expected


def test_what_stands_before_the_last_assistant_message_is_the_question() -> None:
    messages = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    row = tracker.read({"messages": [{"role": r, "content": t} for r, t in messages]}, model="m")
    assert row.turns == turns(*messages[:3])
    assert row.response == "d"


def test_conversations_with_from_and_value_are_messages() -> None:
    row = tracker.read({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, model="m")
    assert (row.turns, row.response) == (turns(("user", "q")), "a")


@pytest.mark.parametrize(
    "value",
    [
        {"choices": [{"index": 0, "message": {"role": "assistant", "content": "so"}, "finish_reason": "stop"}]},
        {"content": [{"type": "text", "text": "so"}], "stop_reason": "end_turn", "type": "message"},
        {"candidates": [{"content": {"parts": [{"text": "so"}]}, "finishReason": "STOP"}]},
        {
            "output": [{"type": "message", "content": [{"type": "output_text", "text": "so"}]}],
            "status": "completed",
        },
        [{"role": "assistant", "content": "so"}],
        ["so"],
    ],
)
def test_a_whole_reply_is_read_for_its_text(value: Any) -> None:
    assert tracker.read({"prompt": "why?", "api_response": value, "model": "m"}).response == "so"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1_700_000_000, 1_700_000_000.0),
        (1_700_000_000_123, 1_700_000_000.123),
        ("2023-11-14T22:13:20Z", 1_700_000_000.0),
        ("2023-11-14T22:13:20", 1_700_000_000.0),
        ("2023-11-15T00:13:20+02:00", 1_700_000_000.0),
        ("yesterday", None),
        (True, None),
        (-5, None),
        (1_700_000_000_123_456_789, None),
        (1e30, None),
    ],
)
def test_a_time_counts_where_it_is_clear(value: Any, expected: float | None) -> None:
    assert tracker.read({"prompt": "q", "response": "a", "model": "m", "timestamp": value}).created_at == expected


def test_a_right_prompt_hash_is_no_obstacle() -> None:
    digest = hashlib.sha256("naïve?".encode()).hexdigest()
    row = tracker.read({"prompt": "naïve?", "prompt_hash": digest.upper(), "response": "a", "model": "m"})
    assert row.prompt_hash == digest


def test_a_hash_of_another_kind_is_no_claim() -> None:
    assert tracker.read({"prompt": "q", "prompt_hash": "d41d8cd9", "response": "a", "model": "m"}).response == "a"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "q", "response": "a"}, "--model"),
        ({"prompt_hash": "0" * 64, "response": "a", "model": "m"}, "hash but not its text"),
        ({"prompt": "q", "prompt_hash": "0" * 64, "response": "a", "model": "m"}, "not the SHA-256"),
        ({"response": "a", "model": "m"}, "no prompt"),
        ({"prompt": "q", "model": "m"}, "no answer"),
        ({"prompt": "q", "response": None, "model": "m"}, "no answer"),
        ({"prompt": "q", "response": "", "model": "m"}, "empty"),
        ({"prompt": "", "response": "a", "model": "m"}, "empty"),
        ({"prompt": 5, "response": "a", "model": "m"}, "neither text nor"),
        ({"prompt": "q", "response": {"a": 1}, "model": "m"}, "neither text nor"),
        ({"prompt": "q", "response": "a", "model": "m", "finish_reason": "length"}, "its answer is incomplete"),
        ({"prompt": "q", "response": "a", "model": "m", "error": "timeout"}, "error"),
        ({"prompt": "q", "response": "a", "model": "m", "tools": [{"type": "function"}]}, "tools"),
        ({"prompt": "q", "response": "a", "model": "m", "system": ["s"]}, "system"),
        ({"messages": [], "model": "m"}, "no messages"),
        ({"messages": [{"role": "user", "content": "q"}], "model": "m"}, "none of its messages"),
        ({"messages": [{"role": "assistant", "content": "q"}], "model": "m"}, "so the question is missing"),
        ({"messages": ["q"], "model": "m"}, "not an object"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]},
                    {"role": "assistant", "content": "a"},
                ],
                "model": "m",
            },
            "more than text",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": "q"},
                    {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]},
                ],
                "model": "m",
            },
            "more than text",
        ),
        (
            {
                "prompt": "q",
                "model": "m",
                "api_response": {"choices": [{"message": {"content": "a"}, "finish_reason": "length"}]},
            },
            "its answer is incomplete",
        ),
    ],
)
def test_an_unusable_row_is_reported_with_its_reason(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowUnusable, match=reason):
        tracker.read(row)
