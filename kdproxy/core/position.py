"""Positions in a JSON value, such as `messages[].content[].cache_control`: exact paths, never a name at any depth.

A tool's schema may have a property of any name, so only the places that a provider documents are named.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

EACH = "[]"
"""In a position: every item of a list."""

CREDENTIAL = "*credential*"
"""In a position: every member of an object whose name is a credential's."""

_STEP = re.compile(r"\[\]|[^.\[\]]+")
_MARKS: Mapping[str, Any] = {EACH: object(), CREDENTIAL: object()}
"""Their placeholders in a tree; they cannot be names of members."""
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


@lru_cache(maxsize=4_096)
def is_credential(name: str) -> bool:
    """Whether a member or header of this name holds a credential, by the names that providers and gateways use."""
    plain = name.lower().replace("-", "_")
    return plain.endswith(CREDENTIAL_ENDS) or plain in CREDENTIAL_NAMES


@dataclass(frozen=True, slots=True, kw_only=True)
class Positions:
    """A set of positions, compiled for use on many values."""

    tree: Mapping[Any, Any]
    """Nested mappings with None as leaves."""
    outer: Mapping[Any, Any]
    """The part of the tree that concerns top-level members only."""
    inner_names: re.Pattern[bytes] | None
    """Matches names as JSON texts: a value with a match below its top level contains at least one; None: no names."""
    guarded: frozenset[str]
    """Top-level members that may hold a credential, of any name, further inside."""

    def may_reach_in(self, members: Mapping[str, Any], text: bytes) -> bool:
        """Whether a value may have a match below its top level, judged by its canonical text."""
        if self.inner_names is not None and self.inner_names.search(text) is not None:
            return True
        return not self.guarded.isdisjoint(members)


def tree(positions: Iterable[str]) -> Positions:
    """Compile positions; a position inside another is part of it."""
    root: dict[Any, Any] = {}
    inner: set[str] = set()
    guarded: set[str] = set()
    for position in sorted(positions, key=len):
        node = root
        *way, last = [_MARKS.get(step, step) for step in _STEP.findall(position)]
        for step in way:
            if step in node and node[step] is None:
                break
            node = node.setdefault(step, {})
        else:
            node[last] = None
        if way and isinstance(last, str):
            inner.add(last)
        elif way and isinstance(way[0], str):
            guarded.add(way[0])
    return Positions(
        tree=root,
        outer={step: None for step, below in root.items() if below is None},
        inner_names=_any_of(inner),
        guarded=frozenset(guarded),
    )


def _any_of(names: Iterable[str]) -> re.Pattern[bytes] | None:
    """Return one pattern: looking for each name on its own takes twice as long."""
    texts = [re.escape(json.dumps(name, ensure_ascii=False)[1:].encode()) for name in sorted(names)]
    return re.compile(b'"(?:' + b"|".join(texts) + b")") if texts else None


def without(value: Any, positions: Positions) -> Any:
    """Return the value without what is at the positions; the same object if nothing is there."""
    return _replaced(value, positions.tree, _gone)


def without_outer(value: Any, positions: Positions) -> Any:
    """Return the value without the named top-level members; the same object if it has none of them."""
    if type(value) is dict and _lacks(value, positions.outer):
        return value
    return _replaced(value, positions.outer, _gone)


def replaced(value: Any, positions: Positions, replace: Callable[[Any], Any]) -> Any:
    """Return the value with what is at the positions replaced; the same object if nothing is there."""
    if type(value) is dict and _lacks(value, positions.tree):
        return value
    return _replaced(value, positions.tree, replace)


def found(value: Any, position: str) -> Iterator[Any]:
    """Yield what is at a position."""
    level = [value]
    for step in _steps(position):
        if step == EACH:
            level = [item for node in level if isinstance(node, list) for item in node]
        else:
            level = [node[step] for node in level if isinstance(node, dict) and step in node]
    yield from level


@lru_cache(maxsize=1_024)
def _steps(position: str) -> tuple[str, ...]:
    return tuple(_STEP.findall(position))


_GONE = object()


def _gone(_: Any) -> Any:
    return _GONE


def _replaced(value: Any, tree: Mapping[Any, Any], replace: Callable[[Any], Any]) -> Any:
    if type(value) is dict:
        return _changed(value, tree, replace)
    if type(value) is list:
        return _list(value, tree, replace)
    return value


def _changed(value: dict[str, Any], tree: Mapping[Any, Any], replace: Callable[[Any], Any]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if _lacks(value, tree):
        return value
    for name in tree.keys() & value.keys():  # the shorter of the two is walked
        member, inner = value[name], tree[name]
        if inner is None:
            changes[name] = replace(member)
        elif (new := _replaced(member, inner, replace)) is not member:
            changes[name] = new
    if _CREDENTIAL in tree:
        for name in filter(is_credential, value):
            changes[name] = replace(value[name])
    if not changes:
        return value
    # in the order in which it was written
    return {name: new for name, member in value.items() if (new := changes.get(name, member)) is not _GONE}


def _lacks(value: dict[str, Any], tree: Mapping[Any, Any]) -> bool:
    """Whether an object has no member that a tree names: nearly always, so it is asked first."""
    return tree.keys().isdisjoint(value) and not (_CREDENTIAL in tree and any(map(is_credential, value)))


def _list(value: list[Any], tree: Mapping[Any, Any], replace: Callable[[Any], Any]) -> list[Any]:
    if _EACH not in tree:
        return value
    inner = tree[_EACH]
    items = [replace(item) if inner is None else _replaced(item, inner, replace) for item in value]
    return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
