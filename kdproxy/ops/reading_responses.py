"""OpenAI's Responses, read from the object or from the events of a stream."""

from typing import Any

from kdproxy.ops.choice import Choice, as_text, call, object_of, objects
from kdproxy.providers.base import integer

_ENDED = ("completed", "incomplete")


def read_responses(parts: list[dict[str, Any]]) -> list[Choice]:
    """Return the answer of a response; what its last event leaves out is taken from earlier events.

    vLLM, SGLang and gateways end with an empty `output`, or with empty items.
    """
    whole = [object_of(part.get("response")) or part for part in parts]
    final = next((part for part in reversed(whole) if part.get("status") in _ENDED), None)
    if final is None:
        return []
    choice = _choice_of(objects(final.get("output")))
    if len(parts) > 1:
        from_items = _choice_of(_items(parts))
        choice.text = choice.text or from_items.text
        choice.reasoning = choice.reasoning or from_items.reasoning
        choice.refusal = choice.refusal or from_items.refusal
        choice.tool_calls = choice.tool_calls or from_items.tool_calls
    choice.native_reason = object_of(final.get("incomplete_details")).get("reason") or final["status"]
    return [choice]


def _choice_of(items: Any) -> Choice:
    choice = Choice()
    for item in items:
        match item.get("type"):
            case "message":
                for block in objects(item.get("content")):
                    choice.add_text(block.get("text"))
                    choice.add_refusal(block.get("refusal"))
            case "reasoning":
                thoughts = list(objects(item.get("content"))) or list(objects(item.get("summary")))
                for block in thoughts:
                    choice.add_reasoning(block.get("text"))
            case "function_call":
                choice.tool_calls.append(call(item.get("call_id"), item.get("name"), as_text(item.get("arguments"))))
            case "custom_tool_call":
                given = as_text(item.get("input"))
                choice.tool_calls.append(call(item.get("call_id"), item.get("name"), given, kind="custom"))
    return choice


_TEXTS = {
    "output_text": ("content", "output_text", "text"),
    "refusal": ("content", "refusal", "refusal"),
    "reasoning_text": ("content", "reasoning_text", "text"),
    "reasoning_summary_text": ("summary", "summary_text", "text"),
}
"""Event names without `response.` and `.delta` or `.done`: the item's list, and the type and member of its part."""
_ARGUMENTS = {"function_call_arguments": "arguments", "custom_tool_call_input": "input"}
_ITEMS = {
    "output_text": "message",
    "refusal": "message",
    "reasoning_text": "reasoning",
    "reasoning_summary_text": "reasoning",
    "function_call_arguments": "function_call",
    "custom_tool_call_input": "custom_tool_call",
}


def _items(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Assemble the items from events: whole ones, or their beginnings and deltas."""
    items: list[dict[str, Any]] = []
    places: dict[int | str, int] = {}
    for part in parts:
        name = part.get("type")
        if not isinstance(name, str):
            continue
        kind, _, ending = name.removeprefix("response.").rpartition(".")
        if kind not in ("output_item", *_TEXTS, *_ARGUMENTS):
            continue
        given = dict(object_of(part.get("item")))
        kind_of_item = _ITEMS.get(kind) or given.get("type")
        item = _item(items, places, _names(part, given), kind_of_item, begins=ending == "added")
        if kind == "output_item":
            if ending == "added" or _says_more(given, item):
                item.clear()
                item.update(given)
        elif kind in _TEXTS:
            item.setdefault("type", kind_of_item)
            _grow_text(item, part, kind=kind, is_done=ending == "done")
        else:
            item.setdefault("type", kind_of_item)
            _grow_arguments(item, part, member=_ARGUMENTS[kind], is_done=ending == "done")
    return items


def _names(event: dict[str, Any], item: dict[str, Any]) -> list[int | str]:
    """Return the names by which an event refers to its item: gateways leave out one or both."""
    names = [event.get("output_index"), event.get("item_id") or item.get("id")]
    return [name for name in names if isinstance(name, int | str)]


def _item(
    items: list[dict[str, Any]], places: dict[int | str, int], names: list[int | str], kind: Any, *, begins: bool
) -> dict[str, Any]:
    """Return the item that an event refers to: by name, else the last of its kind, else a new one."""
    found = next((places[name] for name in names if name in places), None)
    if found is None and not names and not begins:
        found = next((place for place in reversed(range(len(items))) if items[place].get("type") == kind), None)
    if found is None:
        items.append({})
        found = len(items) - 1
    places.update(dict.fromkeys(names, found))
    return items[found]


def _grow_arguments(item: dict[str, Any], event: dict[str, Any], *, member: str, is_done: bool) -> None:
    if event.get("name"):
        item.setdefault("name", event["name"])
    if not is_done:
        item[member] = as_text(item.get(member)) + as_text(event.get("delta"))
    elif isinstance(event.get(member), str):
        item[member] = event[member]


def _grow_text(item: dict[str, Any], event: dict[str, Any], *, kind: str, is_done: bool) -> None:
    listing, part_type, member = _TEXTS[kind]
    place = integer(event.get("summary_index" if listing == "summary" else "content_index")) or 0
    blocks = list(objects(item.get(listing)))
    while len(blocks) <= min(place, 1_000):
        blocks.append({"type": part_type})
    item[listing] = blocks
    block = blocks[min(place, 1_000)] = dict(blocks[min(place, 1_000)])
    if is_done and isinstance(event.get(member), str):
        block[member] = event[member]
    elif not is_done:
        block[member] = as_text(block.get(member)) + as_text(event.get("delta"))


def _says_more(item: dict[str, Any], known: dict[str, Any]) -> bool:
    """Whether a finished item contains the content of its deltas."""
    return _choice_of([item]).says_something or not _choice_of([known]).says_something
