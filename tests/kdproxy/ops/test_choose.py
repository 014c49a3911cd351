"""Which answers a wish means, and that exactly those are withdrawn."""

from typing import Any

import orjson
import pytest

from kdproxy.core import record
from kdproxy.core.models import Form, Upstream
from kdproxy.core.ports import Intent
from kdproxy.errors import KdproxyError
from kdproxy.ops.export import ExportArguments
from kdproxy.ops.forget.choose import Wish, choose, not_kept
from kdproxy.ops.forget.withdraw import WithdrawArguments
from tests.kdproxy.sample import keep_all


def chat(content: str | None, reason: str = "stop", **message: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": reason}
    return orjson.dumps({"choices": [choice]})


def stream(*contents: str, reason: str = "stop") -> bytes:
    deltas = [{"index": 0, "delta": {"content": text}, "finish_reason": None} for text in contents]
    deltas.append({"index": 0, "delta": {}, "finish_reason": reason})
    events = [b"data: " + orjson.dumps({"choices": [delta]}) + b"\n\n" for delta in deltas]
    return b"".join(events) + b"data: [DONE]\n\n"


JSON_ASKED = {"model": "m", "messages": [{"role": "user", "content": "q"}], "response_format": {"type": "json_object"}}


@pytest.fixture
def found(entry: Any) -> Any:
    """Tell which of some named entries a wish finds."""

    def found(wish: Wish, **entries: Any) -> set[str]:
        made = {name: entry(name, **members) for name, members in entries.items()}
        keys = {made[name].address.key: name for name in made}
        return {keys[chosen.key] for chosen in choose([record.encode(one) for one in made.values()], wish)}

    return found


def test_finish_reasons_are_known_in_every_dialect_and_form(found: Any) -> None:
    responses = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "output": []}
    anthropic = {"provider": "anthropic", "endpoint": "messages"}
    gemini = {"provider": "gemini", "endpoint": "generateContent"}
    cut = found(
        Wish(finish_reason="length"),
        whole={"body": chat("a")},
        cut={"body": chat("a", "length")},
        cut_stream={"body": stream("a", "b", reason="length"), "form": Form.SSE},
        anthropic={"body": orjson.dumps({"content": [], "stop_reason": "max_tokens"}), **anthropic},
        gemini={"body": orjson.dumps({"candidates": [{"finishReason": "MAX_TOKENS"}]}), **gemini},
        responses={"body": orjson.dumps(responses), "endpoint": "responses"},
        embedding={"body": b'{"data":[]}', "endpoint": "embeddings"},
    )
    assert cut == {"cut", "cut_stream", "anthropic", "gemini", "responses"}
    assert found(Wish(finish_reason="max_tokens"), a={"body": orjson.dumps({"stop_reason": "max_tokens"}), **anthropic})


def test_invalid_json_counts_only_where_json_was_asked_for(found: Any) -> None:
    asked = {"request": JSON_ASKED}
    responses = {
        "body": orjson.dumps(
            {"status": "completed", "output": [{"type": "message", "content": [{"type": "output_text", "text": "{"}]}]}
        ),
        "endpoint": "responses",
        "request": {"input": "q", "text": {"format": {"type": "json_schema"}}},
    }
    gemini = {
        "body": orjson.dumps({"candidates": [{"content": {"parts": [{"text": "{"}]}, "finishReason": "STOP"}]}),
        "provider": "gemini",
        "endpoint": "generateContent",
        "request": {"contents": [], "generationConfig": {"responseMimeType": "application/json"}},
    }
    bad = found(
        Wish(invalid_json=True),
        valid={"body": chat('{"a":1}'), **asked},
        fenced={"body": chat('```json\n{"a":1}\n```'), **asked},
        cut_stream={"body": stream('{"a', '":'), "form": Form.SSE, **asked},
        valid_stream={"body": stream('{"a', '":1}'), "form": Form.SSE, **asked},
        refused={"body": chat(None, refusal="no"), **asked},
        tool={"body": chat(None, "tool_calls", tool_calls=[{"id": "1", "function": {"name": "f"}}]), **asked},
        free_text={"body": chat("hello")},
        responses=responses,
        gemini=gemini,
        rest={**gemini, "request": {"contents": [], "generation_config": {"response_mime_type": "application/json"}}},
    )
    assert bad == {"fenced", "cut_stream", "responses", "gemini", "rest"}


def test_a_match_looks_at_questions_and_answers(found: Any) -> None:
    entries: dict[str, Any] = {
        "asked": {"request": {"messages": [{"role": "user", "content": [{"type": "text", "text": "Ünïque?"}]}]}},
        "answered": {"body": chat("I am Ünïque")},
        "streamed": {"body": stream("I am Ün", "ïque"), "form": Form.SSE},
        "called": {"body": chat(None, "tool_calls", tool_calls=[{"function": {"arguments": '"Ünïque"'}}])},
        "other": {"body": chat("nothing of it")},
        "model_name": {"request": {"model": "Ünïque", "messages": []}},
    }
    assert found(Wish(match="Ünï.ue"), **entries) == {"asked", "answered", "streamed", "called"}
    assert found(Wish(match="^(?i:NOTHING)"), **entries) == {"other"}
    assert found(Wish(match="^user$"), **entries) == set()


def test_a_key_may_be_cut_to_eight_digits_and_wishes_add_up(found: Any, entry: Any) -> None:
    key = entry("a").address.key
    entries: dict[str, Any] = {"a": {"body": chat("x")}, "b": {"body": chat("x")}}
    assert found(Wish(key=key[:8].upper()), **entries) == {"a"}
    assert found(Wish(key=key, match="nowhere"), **entries) == set()


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (Wish(), "No condition says"),
        (Wish(key="abc"), "hexadecimal, or it is too short"),
        (Wish(key="not hexadecimal"), "hexadecimal, or it is too short"),
        (Wish(match="("), "cannot be read"),
    ],
)
def test_a_wish_without_sense_is_a_clear_error(wish: Wish, message: str) -> None:
    with pytest.raises(KdproxyError, match=message):
        choose([], wish)


def test_exactly_the_chosen_are_withdrawn_and_their_lines_stay(shelf: Any, entry: Any) -> None:
    both = [entry("both", chat("bad")), entry("both", stream("bad"), form=Form.SSE)]
    keep_all(shelf.archive, [*both, entry("good", chat("good"))])
    before = shelf.journal()
    (chosen,) = choose(shelf.run(ExportArguments()).lines, Wish(match="bad"))
    assert (chosen.asked, chosen.answered, len(chosen.seals)) == ("both", "bad", 2)
    result = shelf.run(WithdrawArguments(samples=(chosen.sample,), reason="bad")).result
    assert result == {"withdrawn": 1, "changed": 0}
    assert [shelf.answer("both", form) for form in (Form.JSON, Form.SSE)] == [None, None]
    assert shelf.answer("good") is not None
    assert shelf.journal().startswith(before)
    assert choose(shelf.run(ExportArguments()).lines, Wish(match="bad")) == []


def test_an_answer_that_was_replaced_since_it_was_looked_at_is_left_alone(shelf: Any, entry: Any) -> None:
    keep_all(shelf.archive, [entry("a", chat("bad"))])
    (chosen,) = choose(shelf.run(ExportArguments()).lines, Wish(match="bad"))
    keep_all(shelf.archive, [entry("a", chat("better"))], intent=Intent.REFRESH)
    arguments = WithdrawArguments(samples=(chosen.sample,), reason="bad")
    assert shelf.run(arguments).result == {"withdrawn": 0, "changed": 1}
    assert b"better" in (shelf.answer("a") or b"")


EMPTY = orjson.dumps(
    {
        "choices": [{"index": 0, "message": {"content": None}, "finish_reason": "stop"}],
        "usage": {"completion_tokens": 0},
    }
)


def test_empty_answers_are_found_by_their_name_and_by_an_empty_match(found: Any) -> None:
    entries: dict[str, Any] = {
        "empty": {"body": EMPTY},
        "stream": {"body": stream("", ""), "form": Form.SSE},
        "said": {"body": chat("a")},
        "called": {"body": chat(None, tool_calls=[{"id": "1", "function": {"name": "f", "arguments": "{}"}}])},
        "refused": {"body": chat(None, refusal="No.")},
    }
    assert found(Wish(empty=True), **entries) == {"empty", "stream"}
    assert found(Wish(match="^$"), **entries) == {"empty", "stream"}


CUT = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\ndata: [DONE]\n\n'


def test_broken_is_what_todays_rules_would_not_keep_with_the_settings_of_the_upstream(found: Any) -> None:
    entries: dict[str, Any] = {
        "whole": {"body": chat("a")},
        "null": {"body": chat("a", None)},  # type: ignore[arg-type]
        "cut": {"body": CUT, "form": Form.SSE},
        "failed": {"body": stream("a", reason="network_error"), "form": Form.SSE},
        "fewer": {"body": chat("a"), "request": {"messages": [], "n": 2}},
        "empty": {"body": EMPTY},
        "vector": {"body": b'{"data":[{"embedding":[null]}]}', "endpoint": "embeddings"},
        "unknown": {"body": b"?", "endpoint": "of.another.release"},
    }
    assert found(Wish(broken=True), **entries) == {"null", "cut", "failed", "fewer", "empty", "vector"}
    names = ("openai", "teacher", "u")
    differing = {name: Upstream(name=name, url="", end="done", choices="as-served", keep_empty=True) for name in names}
    assert found(Wish(broken=True, upstreams=differing), **entries) == {"failed", "vector"}


def test_verify_names_them_with_the_reason(entry: Any) -> None:
    lines = [record.encode(entry("a", body=chat("a"))), record.encode(entry("b", body=chat("a", "abort")))]
    (told,) = not_kept(lines, {})
    assert told["reason"] == "a choice ended with 'abort'"
    assert told["answered"] == "a"
