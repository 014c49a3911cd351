"""Tool calls in streams as servers really send them: rows of public reports, and their neighbours."""

from typing import Any

import pytest

from kdproxy.core.models import Form
from kdproxy.ops.training import rows
from tests.kdproxy.ops.chunks import CITY, TIME, call, piece, stream

WHOLE = [
    piece(0, "a", "weather", arguments=CITY),
    piece(1, "b", "clock", arguments=TIME),
]
CALLS = [call("a", "weather", CITY), call("b", "clock", TIME)]
TOOLS = {
    "by the reference": (
        [
            [piece(0, "a", "weather", arguments="")],
            [piece(0, arguments='{"city"')],
            [piece(0, arguments=':"Rome"}')],
            [piece(1, "b", "clock", arguments="")],
            [piece(1, arguments=TIME)],
        ],
        CALLS,
    ),
    "name and id in each chunk": (
        [
            [piece(0, "a", "weather", arguments='{"city"')],
            [piece(0, "a", "weather", arguments=':"Rome"}')],
            [piece(0, "a", "weather", arguments="")],
            [piece(1, "b", "clock", arguments=TIME)],
            [piece(1, "b", "clock", arguments=" ")],
        ],
        [CALLS[0], call("b", "clock", TIME + " ")],
    ),
    "name in each chunk, id in the first": (
        [[piece(0, "a", "weather", arguments='{"city"')], [piece(0, name="weather", arguments=':"Rome"}')]],
        CALLS[:1],
    ),
    "another id in each chunk": (
        [[piece(0, "a", "weather", arguments='{"city"')], [piece(0, "z", arguments=':"Rome"}')]],
        CALLS[:1],
    ),
    "all say index 0": (
        [
            [piece(0, "a", "weather", arguments="")],
            [piece(0, arguments='{"city"')],
            [piece(0, arguments=':"Rome"}')],
            [piece(0, "b", "clock", arguments='{"zone"')],
            [piece(0, arguments=':"UTC"}')],
        ],
        CALLS,
    ),
    "all say index 0, whole, without ids": (
        [[piece(0, name="weather", arguments=CITY)], [piece(0, name="clock", arguments=TIME)]],
        [call(None, "weather", CITY), call(None, "clock", TIME)],
    ),
    "two equal calls at index 0": (
        [[piece(0, "a", "weather", arguments=CITY)], [piece(0, "b", "weather", arguments=CITY)], []],
        [CALLS[0], call("b", "weather", CITY)],
    ),
    "all say index 0, in turns": (
        [
            [piece(0, "a", "weather", arguments='{"city"'), piece(0, "b", "clock", arguments='{"zone"')],
            [piece(0, "a", arguments=':"Rome"}'), piece(0, "b", arguments=':"UTC"}')],
        ],
        CALLS,
    ),
    "a call without arguments, then another at its index": (
        [[piece(0, "a", "now", arguments="{}")], [piece(0, "b", "weather", arguments=CITY)]],
        [call("a", "now", "{}"), call("b", "weather", CITY)],
    ),
    "indexes from 1": ([[{**given, "index": given["index"] + 1}] for given in WHOLE], CALLS),
    "indexes out of order": ([[WHOLE[1]], [WHOLE[0]]], CALLS),
    "no index": ([[{**given, "index": None}] for given in WHOLE], CALLS),
    "no index, in pieces": (
        [
            [piece(None, "a", "weather", arguments='{"city"')],
            [piece(None, arguments=':"Rome"}')],
            [piece(None, "b", "clock", arguments='{"zone"')],
            [piece(None, arguments=':"UTC"}')],
        ],
        CALLS,
    ),
    "no index and no id, a call without arguments first": (
        [[piece(None, name="now", arguments="")], [piece(None, name="weather", arguments=CITY)]],
        [call(None, "now", ""), call(None, "weather", CITY)],
    ),
    "the last chunk repeats them": ([[WHOLE[0]], [WHOLE[1]], WHOLE], CALLS),
    "the last chunk repeats them without ids": (
        [[WHOLE[0]], [WHOLE[1]], [{**given, "id": None} for given in WHOLE]],
        CALLS,
    ),
    "arguments begin as {}": (
        [[piece(0, "a", "weather", arguments="{}")], [piece(0, arguments=CITY)]],
        CALLS[:1],
    ),
    "arguments are cumulative": (
        [[piece(0, "a", "weather", arguments='{"city"')], [piece(0, arguments=CITY)]],
        CALLS[:1],
    ),
    "arguments are an object": (
        [[piece(0, "a", "weather", arguments={"city": "Rome"})]],
        CALLS[:1],
    ),
    "the id comes later": (
        [[piece(0, name="weather", arguments="")], [piece(0, "a", arguments=CITY)]],
        CALLS[:1],
    ),
    "a name in two pieces": (
        [[piece(0, "a", "wea", arguments="")], [piece(0, name="ther")], [piece(0, arguments=CITY)]],
        CALLS[:1],
    ),
    "two pieces of one call in one chunk": (
        [[piece(0, "a", "weather", arguments=""), piece(0, arguments='{"city"')], [piece(0, arguments=':"Rome"}')]],
        CALLS[:1],
    ),
    "the second call's head at index 0, its tail at 1": (
        [
            [piece(0, "a", "weather", arguments=CITY)],
            [piece(0, "b", "clock", arguments="")],
            [piece(1, arguments='{"zone"')],
            [piece(1, arguments=':"UTC"}')],
        ],
        CALLS,
    ),
    "an index on the first piece, then the id alone": (
        [
            [piece(0, "a", "weather", arguments='{"city"')],
            [piece(1, "b", "clock", arguments='{"zone"')],
            [piece(None, "a", arguments=':"Rome"}')],
            [piece(None, "b", arguments=':"UTC"}')],
        ],
        CALLS,
    ),
    "an empty call": ([[piece(0)], [piece(1, "b", "clock", arguments=TIME)]], CALLS[1:]),
}


@pytest.mark.parametrize("case", TOOLS.values(), ids=TOOLS)
def test_tool_calls_in_a_stream(case: Any, entry: Any) -> None:
    pieces, expected = case
    body = stream(
        {"role": "assistant", "content": None}, *({"tool_calls": given} for given in pieces), reason="tool_calls"
    )
    (row,) = rows(entry("x", body, form=Form.SSE))
    assert row["messages"][-1]["tool_calls"] == expected
    assert row["finish_reason"] == "tool_calls"
