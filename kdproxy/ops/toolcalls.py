"""Assembles tool calls from a stream's pieces in OpenAI's dialect, as servers really send them (docs/export.md).

In the API reference a piece names its call by `index` alone, and only the first has `id` and `name`. Servers repeat
both in each piece, give all calls the index 0, count from 1 or leave it out; the last chunk may repeat everything.
"""

from dataclasses import dataclass, field
from typing import Any

import orjson

from kdproxy.ops.choice import as_text, call, object_of
from kdproxy.providers.base import integer

_NOTHING = "{}"
"""A text that some gateways send before the first piece of the arguments."""


@dataclass(slots=True, kw_only=True)
class _Call:
    kind: str
    id: Any = None
    index: int | None = None
    name: str = ""
    pieces: list[str] = field(default_factory=list)

    @property
    def arguments(self) -> str:
        return "".join(self.pieces)

    @property
    def is_whole(self) -> bool:
        return _value(self.arguments) is not None

    def says(self, arguments: str) -> bool:
        """Whether these are its arguments."""
        mine = _value(self.arguments)
        return arguments == self.arguments or (mine is not None and mine == _value(arguments))


class ToolCalls:
    """The tool calls of one choice."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []

    def add_whole(self, given: dict[str, Any]) -> None:
        """Add a call of a whole message: always a new call, whatever its id and index."""
        self._calls.append(_read(given))

    def add_piece(self, given: dict[str, Any], *, is_last: bool) -> None:
        """Add a piece of a call; `is_last`: its chunk ends the choice and may repeat the whole call."""
        piece = _read(given)
        found = self._find(piece, is_last=is_last)
        if found is None:
            self._calls.append(piece)
        else:
            _grow(found, piece)

    def finish(self) -> list[dict[str, Any]]:
        """Return the calls as a chat message has them: by index if all differ, else in order of arrival."""
        calls = [each for each in self._calls if each.name or each.pieces]
        indexes = [each.index for each in calls]
        if None not in indexes and len(set(indexes)) == len(indexes):
            calls.sort(key=lambda each: each.index or 0)
        return [call(each.id, each.name, _final(each), kind=each.kind) for each in calls]

    def _find(self, piece: _Call, *, is_last: bool) -> _Call | None:
        """Return the call that a piece belongs to; None: it begins a new one.

        A new id with a name begins a call, a new id without one does not: servers draw one for each piece. A name after
        whole arguments begins a call, unless the last chunk says the same call again.
        """
        named = next((each for each in self._calls if piece.id is not None and each.id == piece.id), None)
        found = named or self._current(piece.index)
        if not (piece.name or piece.id):
            # A piece without both begins no call, at any index: some servers number the parts of a call differently.
            return found or self._current(None)
        if found is None:
            return None
        is_same_call = named is not None or piece.id is None or found.id is None
        if not is_same_call:
            return None if piece.name else found
        if not (piece.name and found.name and piece.arguments.strip()):
            is_next = named is None and piece.index is None and piece.name not in ("", found.name)
            return None if is_next and found.name else found
        if found.is_whole:
            # A whole call, then a name with arguments: a repetition, or the next call.
            if piece.name == found.name and found.arguments == _NOTHING:
                return found
            is_repeat = piece.name == found.name and found.says(piece.arguments)
            return found if is_repeat and (named is not None or is_last) else None
        is_next = named is None and (bool(found.pieces) or piece.index is None) and piece.name != found.name
        return None if is_next else found

    def _current(self, index: int | None) -> _Call | None:
        """Return the latest call, at this index if one is given."""
        for each in reversed(self._calls):
            if index is None or each.index is None or each.index == index:
                return each
        return None


def _read(given: dict[str, Any]) -> _Call:
    kind = "custom" if given.get("type") == "custom" or isinstance(given.get("custom"), dict) else "function"
    body = object_of(given.get(kind))
    arguments = as_text(body.get("input" if kind == "custom" else "arguments"))
    return _Call(
        kind=kind,
        id=given.get("id") or None,
        index=integer(given.get("index")),
        name=as_text(body.get("name")),
        pieces=[arguments] if arguments else [],
    )


def _grow(found: _Call, piece: _Call) -> None:
    found.id = found.id or piece.id
    if piece.index is not None and not piece.name:
        found.index = piece.index
    if piece.name.startswith(found.name):
        found.name = piece.name  # the first, a repetition, or the whole name so far
    else:
        found.name += piece.name
    if not piece.pieces or (found.is_whole and found.says(piece.arguments)):
        return
    if found.arguments == _NOTHING:
        found.pieces.clear()
    found.pieces += piece.pieces


def _final(found: _Call) -> str:
    """Return the arguments; if each piece repeats the pieces before it, the last one."""
    last = found.pieces[-1] if found.pieces else ""
    is_cumulative = found.kind == "function" and not found.is_whole and _value(last) is not None
    return last if is_cumulative else found.arguments


def _value(arguments: str) -> dict[str, Any] | None:
    """Return whole arguments."""
    try:
        value = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
