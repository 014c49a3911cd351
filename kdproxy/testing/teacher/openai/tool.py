"""Tool calls: when the teacher makes one, and how chat shows it."""

from kdproxy.testing.teacher.answer import Json, dump
from kdproxy.testing.teacher.schema import example_of
from kdproxy.testing.teacher.stamp import Stamp, asks_for_tool


def calls_of(body: Json, stamp: Stamp, index: int = 0) -> list[Json]:
    """Return the calls as {id, name, arguments}: one if forced or asked for, none otherwise."""
    # Chat nests a function's name and parameters, Responses does not.
    tools = [tool.get("function", tool) for tool in body.get("tools") or () if tool.get("type") == "function"]
    choice = body.get("tool_choice")
    if not tools or choice == "none":
        return []
    forced = choice.get("function", choice).get("name") if isinstance(choice, dict) else None
    turns = body.get("messages", body.get("input"))
    if forced is None and choice != "required" and not asks_for_tool(turns):
        return []
    tool = next((tool for tool in tools if tool["name"] == forced), tools[0])
    value = example_of(tool.get("parameters") or {}, "".join(stamp.text(index)))
    suffix = f"{stamp.token}{index or ''}"
    return [{"id": f"call_{suffix}", "name": tool["name"], "arguments": dump(value or {}).decode()}]


def chat_call(call: Json) -> Json:
    function = {"name": call["name"], "arguments": call["arguments"]}
    return {"id": call["id"], "type": "function", "function": function}
