"""Gemini's interactions, read from the object or from the events of a stream (google-genai 3.6.1, read 2026-11-30)."""

from typing import Any

from kdproxy.ops.choice import Choice, as_text, call, dumped, object_of, objects
from kdproxy.providers.base import integer


def read_interaction(parts: list[dict[str, Any]]) -> list[Choice]:
    """Return the choice of an interaction, from its own steps or from those in the events."""
    whole = [object_of(part.get("interaction")) or part for part in parts]
    final = next((part for part in reversed(whole) if isinstance(part.get("status"), str)), None)
    if final is None:
        return []
    choice = _choice_of([*objects(final.get("steps")), *objects(final.get("outputs"))])
    if not choice.says_something:
        choice = _choice_of(_steps(parts))
    choice.native_reason = "tool_use" if final["status"] == "requires_action" else final["status"]
    return [choice]


def _choice_of(steps: list[dict[str, Any]]) -> Choice:
    choice = Choice()
    for step in steps:
        match step.get("type"):
            case "model_output":
                for block in objects(step.get("content")):
                    choice.add_text(block.get("text"))
            case "text":
                choice.add_text(step.get("text"))
            case "thought":
                for block in objects(step.get("summary")):
                    choice.add_reasoning(block.get("text"))
            case "function_call":
                given = step.get("arguments")
                arguments = given if isinstance(given, str) else dumped(given or {})
                choice.tool_calls.append(call(step.get("id"), step.get("name"), arguments))
    return choice


def _steps(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Assemble the steps: each begins with `step.start` and grows by its deltas."""
    steps: list[dict[str, Any]] = []
    places: dict[int | None, dict[str, Any]] = {}
    for part in parts:
        index, delta = integer(part.get("index")), object_of(part.get("delta"))
        if part.get("event_type") == "step.start":
            steps.append(dict(object_of(part.get("step"))))
            places[index] = steps[-1]
        elif part.get("event_type") == "step.delta":
            if index not in places:
                steps.append({})
                places[index] = steps[-1]
            _grow(places[index], delta)
    return steps


def _grow(step: dict[str, Any], delta: dict[str, Any]) -> None:
    match delta.get("type"):
        case "text":
            step.setdefault("type", "model_output")
            step["content"] = [*objects(step.get("content")), {"text": delta.get("text")}]
        case "thought_summary":
            step.setdefault("type", "thought")
            step["summary"] = [*objects(step.get("summary")), object_of(delta.get("content"))]
        case "arguments_delta":
            known = step.get("arguments")
            step["arguments"] = (known if isinstance(known, str) else "") + as_text(delta.get("arguments"))
