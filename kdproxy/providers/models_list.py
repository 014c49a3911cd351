"""Compares lists of models. Many servers put the current time and new ids into each answer."""

from typing import Any

import orjson

_STAMPS = frozenset({"created", "created_at", "createdAt", "modified_at", "permission", "request_id"})
"""Members that a server generates for each answer (vLLM: `created` and the ids within `permission`; Ollama:
`modified_at`)."""


def same_models(one: bytes, other: bytes) -> bool:
    """Whether two lists name the same models with the same facts, in any order."""
    if one == other:
        return True
    try:
        return bool(_facts(orjson.loads(one)) == _facts(orjson.loads(other)))
    except orjson.JSONDecodeError:
        return False


def _facts(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _facts(member) for name, member in value.items() if name not in _STAMPS}
    if isinstance(value, list):
        return sorted(
            (_facts(member) for member in value), key=lambda member: orjson.dumps(member, option=orjson.OPT_SORT_KEYS)
        )
    return value
