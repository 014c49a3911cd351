"""`ignore` rules of an upstream: text at a position that is left out of the key, such as a date that a tool inserts.

A rule is `POSITION~REGEX`: `messages[0].content~Today is .*\\.`. A position names members, one item by its number
(negative: from the end) or all items with `[]`. In a list of content parts the rule applies to the texts.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

_POSITION = re.compile(r"[^.\[\]~]+(?:\[-?\d*\]|\.[^.\[\]~]+)*")
_STEP = re.compile(r"\[(-?\d*)\]|([^.\[\]]+)")


class Ignore(NamedTuple):
    """One rule."""

    position: str
    pattern: str
    """A regular expression of Python's `re`; each match is left out."""

    def __str__(self) -> str:
        return f"{self.position}~{self.pattern}"


def parse(text: str) -> Ignore:
    """Parse a rule. Raises ValueError if it is not one."""
    position, tilde, pattern = text.partition("~")
    if not tilde or not pattern or not _POSITION.fullmatch(position) or "[-]" in position:
        raise ValueError(f"{text!r} must look like messages[0].content~REGEX")
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{text!r} has no valid regular expression after the ~ ({error})") from None
    if not compiled.sub("", "Any text."):
        raise ValueError(f"{text!r} leaves out all text, so that all questions would have one key")
    return Ignore(position, pattern)


def applied(members: dict[str, Any], rules: Sequence[Ignore]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return a request without the text that the rules match, and the positions of the matches."""
    named: list[str] = []
    for rule in rules:
        found = _at(members, _steps(rule.position), _without(rule.pattern))
        if found is not members:
            members = found
            named.append(rule.position)
    return members, tuple(dict.fromkeys(named))


@lru_cache(maxsize=256)
def _steps(position: str) -> tuple[str | int | None, ...]:
    """Return member names, item numbers, and None for all items."""
    return tuple(name or (int(number) if number else None) for number, name in _STEP.findall(position))


@lru_cache(maxsize=256)
def _without(pattern: str) -> Callable[[str], str]:
    compiled = re.compile(pattern)

    def without(text: str) -> str:
        return compiled.sub("", text)

    return without


def _at(value: Any, steps: tuple[str | int | None, ...], change: Callable[[str], str]) -> Any:
    """Return a value with the text at the end of the steps changed; the same object if nothing changes."""
    if not steps:
        return _text(value, change)
    step, *rest = steps
    if isinstance(step, str):
        if not isinstance(value, dict) or step not in value:
            return value
        new = _at(value[step], tuple(rest), change)
        return value if new is value[step] else {**value, step: new}
    if not isinstance(value, list):
        return value
    chosen = range(len(value)) if step is None else [step] if -len(value) <= step < len(value) else []
    items = list(value)
    for index in chosen:
        items[index] = _at(items[index], tuple(rest), change)
    return items if any(new is not old for new, old in zip(items, value, strict=True)) else value


def _text(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        new = change(value)
        return value if new == value else new
    if isinstance(value, list):
        return _at(value, (None, "text"), change)
    return value
