"""Training rows from answers as servers really send them: each row of public reports, and its neighbours."""

from typing import Any

import orjson
import pytest

from kdproxy.core.models import Form
from kdproxy.ops.training import TrainingRows, rows
from tests.kdproxy.ops.chunks import CITY, call, sse, stream


def message(given: Any, entry: Any, form: Form = Form.SSE, **members: Any) -> dict[str, Any]:
    (row,) = rows(entry("x", given, form=form, **members))
    found: dict[str, Any] = row["messages"][-1]
    return found


THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": "Well. "}, {"type": "text", "text": "So."}]}


def test_content_as_a_list_of_parts(entry: Any) -> None:
    parts = [THINKING, {"type": "text", "text": "It is "}, {"type": "text", "text": "four."}]
    said = {"role": "assistant", "content": "It is four.", "reasoning_content": "Well. So."}
    whole = {"choices": [{"index": 0, "message": {"role": "assistant", "content": parts}, "finish_reason": "stop"}]}
    assert message(orjson.dumps(whole), entry, Form.JSON) == said
    deltas = [{"content": [part]} for part in parts[:2]]
    assert message(stream({"role": "assistant", "content": ""}, *deltas, {"content": "four."}), entry) == said
    # Gateways before Anthropic: thinking is text.
    plain = [{"content": [{"type": "thinking", "thinking": "Well. So."}]}, {"content": "It is four."}]
    assert message(stream(*plain), entry) == said


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_thoughts_are_kept_under_one_name(name: str, entry: Any) -> None:
    found = message(stream({name: "Hm"}, {name: "m."}, {"content": "Yes."}), entry)
    assert found == {"role": "assistant", "content": "Yes.", "reasoning_content": "Hmm."}
    both = message(stream({"reasoning": "Hm.", "reasoning_content": "Hm."}, {"content": "Yes."}), entry)
    assert both["reasoning_content"] == "Hm."
    details = [{"type": "reasoning.text", "text": "Hm."}]
    told = message(stream({"reasoning_details": details}, {"content": "Yes."}), entry)
    assert told["reasoning_content"] == "Hm."


SAID = {"role": "assistant", "content": "Four, surely.", "reasoning_content": "2 + 2"}


def test_a_last_chunk_that_repeats_the_whole_message(entry: Any) -> None:
    deltas = [{"reasoning_content": "2 +"}, {"reasoning_content": " 2"}, {"content": "Four, "}, {"content": "surely."}]
    assert message(stream(*deltas, SAID), entry) == SAID
    # after the finish reason, and as a message in place of a delta
    repeated = {"index": 0, "delta": SAID, "finish_reason": None}
    late = stream(*deltas).removesuffix(b"data: [DONE]\n\n") + sse({"choices": [repeated]})
    assert message(late, entry) == SAID
    whole = {"choices": [{"index": 0, "message": SAID, "finish_reason": "stop"}]}
    assert message(stream(*deltas).removesuffix(b"data: [DONE]\n\n") + sse(whole), entry) == SAID


@pytest.mark.parametrize("pieces", [["ha", "ha"], ["4", "4"], ["no", " ", "no", " "]])
def test_text_that_repeats_itself_is_text(pieces: list[str], entry: Any) -> None:
    assert message(stream(*({"content": each} for each in pieces)), entry)["content"] == "".join(pieces)


def test_what_stands_behind_done_is_no_part_of_the_answer(entry: Any) -> None:
    first = stream({"role": "assistant", "content": ""}, {"content": "Four."})
    assert first.endswith(b"data: [DONE]\n\n")
    for behind in (stream({"content": "Five."}), sse({"choices": [{"index": 0, "delta": {"content": " Or five."}}]})):
        assert message(first + behind, entry)["content"] == "Four."


def answers_in_a_row(dialect: str) -> bytes:
    """Two whole answers in one stream: "Four." and "Five.", as earlier releases stored them."""
    parts = []
    for text in ("Four.", "Five."):
        output = [{"type": "message", "content": [{"type": "output_text", "text": text}]}]
        block = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
        parts.append(
            {
                "messages": sse(
                    {"type": "message_start", "message": {"type": "message", "content": []}},
                    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
                    block,
                    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
                    {"type": "message_stop"},
                ),
                "responses": sse(
                    {"type": "response.output_text.delta", "output_index": 0, "delta": text},
                    {"type": "response.completed", "response": {"status": "completed", "output": output}},
                ),
                "interactions": sse(
                    {"event_type": "step.start", "index": 0, "step": {"type": "model_output"}},
                    {"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": text}},
                    {"event_type": "interaction.completed", "interaction": {"status": "completed"}},
                ),
            }[dialect]
        )
    return b"".join(parts)


@pytest.mark.parametrize(
    ("provider", "endpoint"), [("anthropic", "messages"), ("openai", "responses"), ("gemini", "interactions")]
)
def test_of_two_answers_in_one_stream_the_first_is_exported(provider: str, endpoint: str, entry: Any) -> None:
    request = {"model": "m", "input": "Why?", "messages": [{"role": "user", "content": "Why?"}]}
    found = message(answers_in_a_row(endpoint), entry, provider=provider, endpoint=endpoint, request=request)
    assert found["content"] == "Four."


def test_a_legacy_completion_that_is_repeated(entry: Any) -> None:
    texts = ["One, ", "two", "One, two"]
    chunks = [{"index": 0, "text": each, "finish_reason": "stop" if each == texts[-1] else None} for each in texts]
    body = sse(*({"choices": [chunk]} for chunk in chunks))
    assert message(body, entry, endpoint="completions", request={"prompt": "Count."})["content"] == "One, two"


def test_half_an_emoji_in_each_of_two_chunks(entry: Any) -> None:
    halves = [b'{"choices":[{"index":0,"delta":{"content":"%s"}}]}' % half for half in (b"ok \\ud83d", b"\\ude00")]
    body = b"".join(b"data: " + half + b"\n\n" for half in halves) + stream({})
    assert message(body, entry)["content"] == "ok \N{GRINNING FACE}"
    lone = b'data: {"choices":[{"index":0,"delta":{"content":"\\ud83d"}}]}\n\n' + stream({})
    assert message(lone, entry)["content"] == "\N{REPLACEMENT CHARACTER}"


def test_infinity_among_log_probabilities(entry: Any) -> None:
    body = b'{"choices":[{"index":0,"message":{"content":"yes"},"logprobs":{"content":[{"logprob":-Infinity}]}}]}'
    assert message(body, entry, Form.JSON)["content"] == "yes"


def test_the_older_form_of_a_tool_call(entry: Any) -> None:
    body = stream(
        {"function_call": {"name": "weather", "arguments": ""}},
        {"function_call": {"arguments": '{"city":'}},
        {"function_call": {"arguments": '"Rome"}'}},
        reason="function_call",
    )
    assert message(body, entry)["function_call"] == {"name": "weather", "arguments": CITY}


def test_choices_that_all_say_index_0_are_several(entry: Any) -> None:
    choices = [{"index": 0, "message": {"content": text}, "finish_reason": "stop"} for text in ("one", "two")]
    found = rows(entry("x", orjson.dumps({"choices": choices})))
    assert [row["messages"][-1]["content"] for row in found] == ["one", "two"]


# -- Responses ------------------------------------------------------------------------------------------------------

RESPONSES = {"endpoint": "responses", "request": {"model": "m", "input": "Why?"}}
EMPTY: dict[str, Any] = {"type": "response.completed", "response": {"status": "completed", "output": []}}


def event(name: str, output_index: int, **members: Any) -> dict[str, Any]:
    return {"type": f"response.{name}", "output_index": output_index, **members}


DELTAS = [
    event("output_item.added", 0, item={"type": "reasoning", "id": "rs", "summary": []}),
    event("reasoning_summary_text.delta", 0, summary_index=0, delta="Hm"),
    event("reasoning_summary_text.delta", 0, summary_index=0, delta="m."),
    event("output_item.added", 1, item={"type": "message", "id": "msg", "content": []}),
    event("content_part.added", 1, content_index=0, part={"type": "output_text", "text": ""}),
    event("output_text.delta", 1, content_index=0, delta="Be"),
    event("output_text.delta", 1, content_index=0, delta="cause."),
    event("output_item.added", 2, item={"type": "function_call", "call_id": "a", "name": "weather", "arguments": ""}),
    event("function_call_arguments.delta", 2, delta='{"city":'),
    event("function_call_arguments.delta", 2, delta='"Rome"}'),
]
BECAUSE = {
    "role": "assistant",
    "content": "Because.",
    "reasoning_content": "Hmm.",
    "tool_calls": [call("a", "weather", CITY)],
}
DONE = [
    event("output_text.done", 1, content_index=0, text="Because."),
    event("output_item.done", 1, item={"type": "message", "content": [{"type": "output_text", "text": "Because."}]}),
    event("function_call_arguments.done", 2, arguments=CITY),
    event("output_item.done", 2, item={"type": "function_call", "call_id": "a", "name": "weather", "arguments": CITY}),
]


@pytest.mark.parametrize(
    "events",
    [
        [*DELTAS, EMPTY],
        [*DELTAS, *DONE, EMPTY],
        [DELTAS[0], *DELTAS[1:3], *DONE, EMPTY],
        # items without content, finished and in the last event
        [
            *DELTAS,
            event("output_item.done", 1, item={"type": "message", "content": []}),
            {
                "type": "response.completed",
                "response": {"status": "completed", "output": [{"type": "message", "content": []}]},
            },
        ],
    ],
)
def test_an_empty_output_after_deltas(events: list[dict[str, Any]], entry: Any) -> None:
    assert message(sse(*events), entry, **RESPONSES) == BECAUSE


def test_a_response_is_what_its_last_event_holds(entry: Any) -> None:
    output = [
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"type": "message", "content": [{"type": "output_text", "text": "Why not."}]},
        {"type": "custom_tool_call", "call_id": "c", "name": "run", "input": "ls"},
    ]
    final = {"status": "completed", "output": output}
    expected = {
        "role": "assistant",
        "content": "Why not.",
        "reasoning_content": "Hm.",
        "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "run", "input": "ls"}}],
    }
    body = sse(*DELTAS, {"type": "response.completed", "response": final})
    assert message(body, entry, **RESPONSES) == expected
    assert message(orjson.dumps(final), entry, Form.JSON, **RESPONSES) == expected


def test_responses_events_without_their_places(entry: Any) -> None:
    bare = [
        {key: value for key, value in each.items() if key not in ("output_index", "content_index")} for each in DELTAS
    ]
    assert message(sse(*bare, EMPTY), entry, **RESPONSES) == BECAUSE
    # only the last event of a call, and no beginning
    texts = [{"type": "response.output_text.delta", "delta": "Because."}]
    done = {"type": "response.function_call_arguments.done", "item_id": "fc", "name": "weather", "arguments": CITY}
    found = message(sse(*texts, done, EMPTY), entry, **RESPONSES)
    assert (found["content"], found["tool_calls"]) == ("Because.", [call(None, "weather", CITY)])


# -- Anthropic, Gemini ----------------------------------------------------------------------------------------------


TOOL_USE = {"type": "tool_use", "id": "a", "name": "weather"}


def test_an_anthropic_stream_with_thoughts_that_are_hidden(entry: Any) -> None:
    blocks: list[dict[str, Any]] = [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2ln"}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "redacted_thinking", "data": "eHl6"}},
        {"type": "content_block_start", "index": 2, "content_block": {"type": "text", "text": "Be"}},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": "cause."}},
        {"type": "content_block_start", "index": 3, "content_block": TOOL_USE},
        {"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": '{"city"'}},
        {"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": ': "Rome"}'}},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
        {"type": "message_stop"},
    ]
    body = sse({"type": "message_start", "message": {"type": "message", "content": []}}, *blocks)
    expected = {**BECAUSE, "reasoning_content": "Hm."}
    assert message(body, entry, provider="anthropic", endpoint="messages") == expected


def test_anthropic_blocks_that_all_say_index_0(entry: Any) -> None:
    starts: list[dict[str, Any]] = [{"type": "text", "text": "Because."}, {**TOOL_USE, "input": {"city": "Rome"}}]
    events = [{"type": "content_block_start", "index": 0, "content_block": start} for start in starts]
    body = sse(*events, {"type": "message_delta", "delta": {"stop_reason": "tool_use"}}, {"type": "message_stop"})
    found = message(body, entry, provider="anthropic", endpoint="messages")
    assert (found["content"], found["tool_calls"]) == ("Because.", BECAUSE["tool_calls"])


def test_gemini_calls_whose_arguments_come_in_pieces(entry: Any) -> None:
    pieces: list[dict[str, Any]] = [
        {"name": "plan", "willContinue": True},
        {"partialArgs": [{"jsonPath": "$.city", "stringValue": "Ro", "willContinue": True}], "willContinue": True},
        {"partialArgs": [{"jsonPath": "$.city", "stringValue": "me"}], "willContinue": True},
        {"partialArgs": [{"jsonPath": "$.days[1]", "numberValue": 3}, {"jsonPath": "$.to.by", "boolValue": True}]},
        {},
        {"name": "weather", "args": {"city": "Rome"}},
        {"args": {}},
    ]
    chunks = [{"candidates": [{"content": {"parts": [{"functionCall": piece}]}}]} for piece in pieces]
    request = {"contents": [{"parts": [{"text": "Why?"}]}]}
    found = message(sse(*chunks), entry, provider="gemini", endpoint="generateContent", request=request)
    plan = '{"city":"Rome","days":[null,3],"to":{"by":true}}'
    assert found["tool_calls"] == [call(None, "plan", plan), call(None, "weather", CITY)]


def test_a_gemini_answer_as_an_array_of_chunks(entry: Any) -> None:
    chunks = [{"candidates": [{"content": {"parts": [{"text": text}]}}]} for text in ("Be", "cause.")]
    chunks[-1]["candidates"][0]["finishReason"] = "STOP"
    request = {"contents": [{"parts": [{"text": "Why?"}]}]}
    given = {"provider": "gemini", "endpoint": "generateContent", "request": request}
    assert message(orjson.dumps(chunks), entry, Form.JSON, **given)["content"] == "Because."


STEPS: list[dict[str, Any]] = [
    {"type": "thought", "summary": [{"type": "text", "text": "Hmm."}]},
    {"type": "model_output", "content": [{"type": "text", "text": "Because."}]},
    {"type": "function_call", "id": "a", "name": "weather", "arguments": {"city": "Rome"}},
]


def test_an_interaction_says_the_same_in_both_forms(entry: Any) -> None:
    request = {"model": "m", "input": "Why?", "system_instruction": "Be short.", "store": False}
    given = {"provider": "gemini", "endpoint": "interactions", "request": request}
    assert message(orjson.dumps({"status": "requires_action", "steps": STEPS}), entry, Form.JSON, **given) == BECAUSE
    starts = [{"type": "thought"}, {"type": "model_output"}, {**STEPS[2], "arguments": {}}]
    deltas: list[tuple[int, dict[str, Any]]] = [
        (0, {"type": "thought_summary", "content": {"type": "text", "text": "Hmm."}}),
        (1, {"type": "text", "text": "Be"}),
        (1, {"type": "text", "text": "cause."}),
        (2, {"type": "arguments_delta", "arguments": '{"city":'}),
        (2, {"type": "arguments_delta", "arguments": '"Rome"}'}),
    ]
    body = sse(
        {"event_type": "interaction.created", "interaction": {"status": "in_progress"}},
        *({"event_type": "step.start", "index": index, "step": step} for index, step in enumerate(starts)),
        *({"event_type": "step.delta", "index": index, "delta": delta} for index, delta in deltas),
        {"event_type": "interaction.completed", "interaction": {"status": "requires_action"}},
    )
    assert message(body, entry, **given) == BECAUSE
    (row,) = rows(entry("x", body, form=Form.SSE, **given))
    assert row["messages"][:2] == [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Why?"}]
    assert row["finish_reason"] == "tool_calls"


# -- which rows there are -------------------------------------------------------------------------------------------


def test_one_question_in_two_forms_is_one_row_and_the_first_counts(entry: Any) -> None:
    made = TrainingRows()
    body = orjson.dumps({"choices": [{"index": 0, "message": {"content": "first"}, "finish_reason": "stop"}]})
    written = [
        *made.take(entry("x", body)),
        *made.take(entry("x", stream({"content": "second"}), form=Form.SSE)),
        *made.take(entry("y", stream({"content": "other"}), form=Form.SSE)),
    ]
    assert [row["messages"][-1]["content"] for row in written] == ["first", "other"]
    assert (made.repeated, made.empty, made.other) == (1, 0, 0)
    # a spare: the same sample, bought on another machine
    assert made.take(entry("x", body.replace(b"first", b"spare"))) == []
    assert made.repeated == 2
    everything = TrainingRows(everything=True)
    assert [len(everything.take(entry("x", body))) for _ in range(2)] == [1, 1]


def test_what_says_nothing_is_counted_and_no_row(entry: Any) -> None:
    made = TrainingRows()
    for number, content in enumerate((None, "")):
        choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
        assert made.take(entry(f"empty {number}", orjson.dumps({"choices": [choice]}))) == []
    assert made.take(entry("vectors", b'{"data":[]}', endpoint="embeddings")) == []
    assert (made.repeated, made.empty, made.other) == (0, 2, 1)


DECLARED = {"name": "f", "description": "d", "parameters": {"type": "object"}}


@pytest.mark.parametrize(
    ("given", "provider", "endpoint"),
    [
        ({"name": "f", "description": "d", "input_schema": {"type": "object"}}, "anthropic", "messages"),
        ({"type": "function", **DECLARED}, "openai", "responses"),
        ({"functionDeclarations": [DECLARED]}, "gemini", "generateContent"),
        ({"type": "function", "function": DECLARED}, "openai", "chat.completions"),
    ],
)
def test_tools_are_declared_as_chat_requests_do(given: Any, provider: str, endpoint: str, entry: Any) -> None:
    bodies = {
        "messages": {"type": "message", "content": [{"type": "text", "text": "hi"}], "stop_reason": "end_turn"},
        "responses": {"status": "completed", "output": [{"type": "message", "content": [{"text": "hi"}]}]},
        "generateContent": {"candidates": [{"content": {"parts": [{"text": "hi"}]}, "finishReason": "STOP"}]},
        "chat.completions": {"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]},
    }
    asked = {"messages": [{"role": "user", "content": "?"}], "input": "?", "contents": [{"parts": [{"text": "?"}]}]}
    request = {**asked, "tools": [given]}
    (row,) = rows(entry("x", orjson.dumps(bodies[endpoint]), provider=provider, endpoint=endpoint, request=request))
    assert row["tools"] == [{"type": "function", "function": DECLARED}]
