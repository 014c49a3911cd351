"""JSON as every reader takes it: NaN and infinities, which JSON lacks, are written as their names. Pure."""

import json
import math
from collections.abc import Mapping
from typing import Any

_SPELLED = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def plain(value: Any) -> Any:
    """Return a value as JSON has it, at every depth; what JSON does not know becomes its text."""
    kind = type(value)
    if kind is float:
        return value if value - value == 0.0 else _name(value)
    if kind is int or kind is str or kind is bool or value is None:
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return plain(float(value))
    return str(value)


def revive(value: Any) -> Any:
    """Turn the names of NaN and the infinities back into floats, at every depth."""
    match value:
        case str():
            return _SPELLED.get(value, value)
        case dict():
            return {name: revive(member) for name, member in value.items()}
        case list():
            return [revive(item) for item in value]
        case _:
            return value


def document(members: Mapping[str, Any]) -> bytes:
    """Return members as a small file for people and programs: indented, with a line break at its end."""
    return json.dumps(plain(members), indent=1, allow_nan=False).encode() + b"\n"


def _name(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
