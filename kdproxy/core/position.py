"""Positions in a JSON value, such as `messages[].content[].cache_control`: exact places, never a name at any depth.

A tool's schema may have a property of any name: only the places that a provider documents are meant.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

EACH = "[]"
"""In a position: every item of a list."""

CREDENTIAL = "*credential*"
"""In a position: every member of an object whose name is a credential's."""

Tree = Mapping[Any, Any]
"""Positions as nested mappings, None at their ends."""

_STEP = re.compile(r"\[\]|[^.\[\]]+")
_MARKS: Mapping[str, Any] = {EACH: object(), CREDENTIAL: object()}
"""What stands for them in a tree: no member's name."""
_EACH, _CREDENTIAL = _MARKS[EACH], _MARKS[CREDENTIAL]

CREDENTIAL_NAMES = frozenset(
    {"authorization", "credential", "credentials", "password", "proxy_authorization", "secret", "cookie"}
)
"""Names of members and headers that hold a credential, in lower case, with `_` for `-`."""
CREDENTIAL_ENDS = (
    *("api_key", "apikey", "access_key", "access_key_id", "secret_key", "private_key", "subscription_key"),
    *("access_token", "ad_token", "api_token", "auth_token", "authorization_token", "bearer_token", "hf_token"),
    *("bearer_token_bedrock", "oauth_token", "refresh_token", "security_token", "session_token"),
    *("_authorization", "_credentials", "_password", "_secret", "connection_string", "connectionstring"),
    *(
        "embedding_key",
        "embeddingkey",
        "accesskey",
        "secretkey",
        "accesstoken",
        "clientsecret",
        "fallback_credit_token",
    ),
)


def is_credential(name: str) -> bool:
    """Whether a member or header of this name holds a credential, as providers and gateways name theirs."""
    plain = name.lower().replace("-", "_")
    return plain.endswith(CREDENTIAL_ENDS) or plain in CREDENTIAL_NAMES


def tree(positions: Iterable[str]) -> Tree:
    """Make a tree of positions; one that lies inside another is part of it."""
    root: dict[Any, Any] = {}
    for position in sorted(positions, key=len):
        node = root
        *way, last = [_MARKS.get(step, step) for step in _STEP.findall(position)]
        for step in way:
            if step in node and node[step] is None:
                break
            node = node.setdefault(step, {})
        else:
            node[last] = None
    return root


def without(value: Any, positions: Tree) -> Any:
    """Return the value without what stands at some positions; the value itself where nothing does."""
    if type(value) is dict:
        return _changed(value, positions, lambda _: _GONE)
    if type(value) is list:
        return _list(value, positions, lambda _: _GONE)
    return value


def replaced(value: Any, positions: Tree, replace: Callable[[Any], Any]) -> Any:
    """Return the value with what stands at some positions replaced; the value itself where nothing does."""
    if type(value) is dict:
        return _changed(value, positions, replace)
    if type(value) is list:
        return _list(value, positions, replace)
    return value


def found(value: Any, position: str) -> Iterator[Any]:
    """Yield what stands at a position."""
    level = [value]
    for step in _STEP.findall(position):
        if step == EACH:
            level = [item for node in level if isinstance(node, list) for item in node]
        else:
            level = [node[step] for node in level if isinstance(node, dict) and step in node]
    yield from level


_GONE = object()


def _changed(value: dict[str, Any], positions: Tree, replace: Callable[[Any], Any]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for name in positions.keys() & value.keys():  # the shorter of the two is walked
        member, inner = value[name], positions[name]
        if inner is None:
            changes[name] = replace(member)
        elif (new := replaced(member, inner, replace)) is not member:
            changes[name] = new
    if _CREDENTIAL in positions:
        changes.update({name: replace(member) for name, member in value.items() if is_credential(name)})
    if not changes:
        return value
    # in the order in which it was written
    return {name: new for name, member in value.items() if (new := changes.get(name, member)) is not _GONE}


def _list(value: list[Any], positions: Tree, replace: Callable[[Any], Any]) -> list[Any]:
    if _EACH not in positions:
        return value
    inner = positions[_EACH]
    items = [replace(item) if inner is None else replaced(item, inner, replace) for item in value]
    return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
