"""The configuration of a run as it is stored and compared: plain JSON, credentials starred, one fingerprint."""

import dataclasses
import hashlib
import json
import math
import operator
import re
from collections.abc import Mapping
from typing import Any, SupportsIndex

from trainhooks.core import credentials
from trainhooks.errors import ConfigInvalid

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def validate(config: Any, total_steps: Any) -> dict[str, Any]:
    """Return the configuration as plain JSON values, credentials starred.

    Of an object its attributes count, and those of its class. What JSON lacks (paths, dtypes) is kept as its text.

    Raises:
        ConfigInvalid: every problem at once.
    """
    problems: list[str] = []
    if isinstance(total_steps, bool) or not isinstance(total_steps, SupportsIndex) or operator.index(total_steps) < 1:
        problems.append(f"total_steps is {total_steps!r} and must be a whole number from 1 on")
    plain: dict[str, Any] = {}
    members = config if isinstance(config, Mapping) else _attributes(config)
    if members or isinstance(config, Mapping):
        try:
            plain = _plain(dict(members), "config", problems)
        except RecursionError:
            problems.append("config holds itself, directly or through what it holds")
    else:
        problems.append(f"config is a {type(config).__name__} and must be a dict or an object with attributes")
    if problems:
        raise ConfigInvalid("; ".join(problems) + ".", hint="Fix these and start again; nothing was written.")
    return plain


def fingerprint(plain: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hex, of a validated configuration; the order of its members does not matter."""
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _attributes(config: Any) -> dict[str, Any]:
    if hasattr(config, "model_dump"):  # pydantic: its class holds more than fields
        return dict(config.model_dump())
    kind = config if isinstance(config, type) else type(config)
    found = {
        name: value
        for each in reversed(kind.__mro__[:-1])
        for name, value in vars(each).items()
        if not name.startswith("_") and not callable(value) and not hasattr(value, "__get__")
    }
    if dataclasses.is_dataclass(config):
        found |= {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return found if isinstance(config, type) else {**found, **getattr(config, "__dict__", {})}


def _plain(value: Any, path: str, problems: list[str]) -> Any:
    match value:
        case None | bool() | int():
            return value
        case str():
            return credentials.without(value)
        case float():
            return value if math.isfinite(value) else repr(value)
        case Mapping():
            return {str(name): _member(name, item, f"{path}.{name}", problems) for name, item in value.items()}
        case list() | tuple():
            return [_plain(item, f"{path}[{at}]", problems) for at, item in enumerate(value)]
        case set() | frozenset():
            return sorted((_plain(item, path, problems) for item in value), key=repr)
        case _ if hasattr(value, "item") and getattr(value, "shape", None) == ():
            return _plain(value.item(), path, problems)
        case _:
            text = credentials.without(str(value))
            if _ADDRESS.search(text):
                problems.append(f"{path} is a {type(value).__qualname__}, whose text differs from run to run")
            return text


def _member(name: Any, value: Any, path: str, problems: list[str]) -> Any:
    if credentials.is_named(str(name)) and not (value is None or isinstance(value, bool | int | float)):
        return credentials.STARS
    return _plain(value, path, problems)
