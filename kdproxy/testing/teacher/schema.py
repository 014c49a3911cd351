"""The smallest value that satisfies a JSON schema, with the answer's text in its strings."""

from typing import Any

from kdproxy.testing.teacher.answer import Json

_DEPTH = 8  # recursive schemas end here, at null


def example_of(schema: Json, text: str) -> Any:
    """Return a value for a schema: what providers' strict modes allow, Gemini's upper-case types included."""
    definitions = {**schema.get("definitions", {}), **schema.get("$defs", {})}
    return _example(schema, text, definitions, _DEPTH)


def _example(schema: Any, text: str, definitions: Json, depth: int) -> Any:
    if not isinstance(schema, dict) or depth == 0:
        return None
    if "$ref" in schema:
        name = str(schema["$ref"]).rsplit("/", 1)[-1]
        return _example(definitions.get(name), text, definitions, depth - 1)
    for member in ("anyOf", "oneOf", "allOf"):
        if schema.get(member):
            return _example(schema[member][0], text, definitions, depth - 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type", "object")
    return _of_type(kind[0] if isinstance(kind, list) else kind, schema, text, definitions, depth)


def _of_type(kind: str, schema: Json, text: str, definitions: Json, depth: int) -> Any:
    match kind.lower():
        case "object":
            properties = schema.get("properties", {})
            return {name: _example(part, text, definitions, depth - 1) for name, part in properties.items()}
        case "array":
            item = _example(schema.get("items"), text, definitions, depth - 1)
            return [item] * max(1, schema.get("minItems", 1))
        case "integer":
            return int(schema.get("minimum", 7))
        case "number":
            return float(schema.get("minimum", 0.5))
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return text
