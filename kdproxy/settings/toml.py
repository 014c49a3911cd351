"""The config file: its members and their lines."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_PART = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_DOTTED = rf"{_PART}(?:\s*\.\s*{_PART})*"
_TABLE = re.compile(rf"\s*\[\[?\s*({_DOTTED})\s*\]?\]\s*(?:#.*)?")
_MEMBER = re.compile(rf"\s*({_DOTTED})\s*=")


class Unreadable(Exception):
    """The file cannot be read; the message is a sentence that begins with `the config file`."""


def read(path: Path) -> tuple[dict[str, Any], Mapping[str, int]]:
    """Return the members, and the line of each by its name with dots.

    A byte order mark, which Windows editors write, is accepted.

    Raises:
        Unreadable: it is missing, not a file, or not TOML.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise Unreadable(f"the config file {path} cannot be read ({error.strerror})") from error
    if raw.startswith(_UTF16):
        raise Unreadable(f"the config file {path} is UTF-16; save it as UTF-8")
    try:
        text = raw.decode("utf-8-sig")
        return tomllib.loads(text), lines(text)
    except UnicodeDecodeError as error:
        raise Unreadable(f"the config file {path} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise Unreadable(f"the config file {path} is not TOML: {error}") from error


def lines(text: str) -> dict[str, int]:
    """Return the line of each table and member, by its name with dots; the first one of each name counts."""
    found: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if (match := _TABLE.fullmatch(line)) is not None:
            table = _name(match[1])
            _note(found, table, number)
        elif (match := _MEMBER.match(line)) is not None:
            _note(found, f"{table}.{_name(match[1])}".removeprefix("."), number)
    return found


def _note(found: dict[str, int], name: str, line: int) -> None:
    while name:
        found.setdefault(name, line)
        name = name.rpartition(".")[0]  # [upstreams.teacher] is where upstreams begin


def _name(dotted: str) -> str:
    return ".".join(part.strip("\"'") for part in re.findall(_PART, dotted))
