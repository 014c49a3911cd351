"""The configuration of a run as it is stored and compared: plain JSON, credentials starred, one fingerprint."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from trainhooks.errors import ConfigInvalid

_SECRET = re.compile(
    r"api_?key|secret|passw(or)?d|credential|authorization|^((hf|hub|access|auth|api|bearer|refresh|wandb|github)_?)?token$",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
STARS = "***"


def validate(config: Any, total_steps: Any) -> dict[str, Any]:
    """Return the configuration as plain JSON values, credentials starred.

    Objects that JSON lacks (paths, dtypes) are kept as their text.

    Raises:
        ConfigInvalid: every problem at once.
    """
    problems: list[str] = []
    if isinstance(total_steps, bool) or not isinstance(total_steps, int) or total_steps < 1:
        problems.append(f"total_steps is {total_steps!r} and must be a whole number from 1 on")
    plain: dict[str, Any] = {}
    members = config if isinstance(config, Mapping) else getattr(config, "__dict__", None)
    if isinstance(members, Mapping):
        plain = _plain(dict(members), "config", problems)
    else:
        problems.append(f"config is a {type(config).__name__} and must be a dict or an object with attributes")
    if problems:
        raise ConfigInvalid("; ".join(problems) + ".", hint="Mend these and start again; nothing was written.")
    return plain


def fingerprint(plain: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hex, of a validated configuration; the order of its members does not matter."""
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any, path: str, problems: list[str]) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else repr(value)
        case Mapping():
            return {str(name): _member(name, item, f"{path}.{name}", problems) for name, item in value.items()}
        case list() | tuple():
            return [_plain(item, f"{path}[{at}]", problems) for at, item in enumerate(value)]
        case set() | frozenset():
            return sorted((_plain(item, path, problems) for item in value), key=repr)
        case _:
            text = str(value)
            if _ADDRESS.search(text):
                problems.append(f"{path} is a {type(value).__qualname__}, whose text differs from run to run")
            return text


def _member(name: Any, value: Any, path: str, problems: list[str]) -> Any:
    if isinstance(value, str) and _SECRET.search(str(name)):
        return STARS
    return _plain(value, path, problems)
