"""Readers of setting values: each takes a TOML value or the text of a flag or variable.

They raise ValueError with what is expected; the caller adds the value and its origin.
"""

import difflib
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kdproxy.core.policy import Mode
from kdproxy.settings.base_url import base_of, misspelt

_NAME = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}|[A-Za-z0-9._:-]{1,255}:\d{1,5}(?:/[\w.~%!$&'()*+,;@:-]+)*", re.ASCII
)
"""A word, or the name that `name_of` makes of a URL, so that answers bought under that name are still found."""
_BARE = re.compile(
    r"(?:(?P<near>localhost|[\d.]+)|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9-]+(?=:\d))(?::\d+)?(?:/[\w./-]*)?"
)
"""A host and an optional path, without `https://`."""

_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")


def near(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean NAME?` if a known name is similar, else an empty text."""
    name, names = name.strip().lower(), list(known)
    close = difflib.get_close_matches(name, names, n=1) or [each for each in names if name.startswith(each)]
    return f"; did you mean {close[0]}?" if close else ""


def text(value: Any) -> str:
    """Non-empty text."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be text")
    return value.strip()


def host(value: Any) -> str:
    """An address to listen on, or a name that has one."""
    name = text(value)
    if not _is_name(name):
        raise ValueError("must be an address or a host name")
    return name


def _is_name(name: str) -> bool:
    """Whether it is a valid DNS name (RFC 1035 section 2.3.4): looking up any other raises UnicodeError."""
    try:
        return bool(name.encode("idna"))
    except UnicodeError:
        return False


def path(value: Any) -> Path:
    """A file or directory; `~` is the home directory."""
    return _expanded(text(str(value)))


def optional_path(value: Any) -> Path | None:
    """A file or directory, or None."""
    return None if value is None else path(value)


def flag(value: Any) -> bool:
    """true or false, and their usual spellings."""
    if isinstance(value, bool):
        return value
    match str(value).strip().lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off":
            return False
    raise ValueError("must be true or false")


def number(low: float, high: float) -> Callable[[Any], float]:
    """Make the parser of a number in a range."""

    def parse(value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise ValueError(f"must be a number from {low:g} to {high:g}") from None
        if isinstance(value, bool) or not low <= number <= high:
            raise ValueError(f"must be a number from {low:g} to {high:g}")
        return number

    return parse


def integer(low: int, high: int) -> Callable[[Any], int]:
    """Make the parser of a whole number in a range."""

    def parse(value: Any) -> int:
        try:
            number = int(str(value))
        except ValueError:
            raise ValueError(f"must be a whole number from {low} to {high}") from None
        if isinstance(value, bool) or not low <= number <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return number

    return parse


def mode(value: Any) -> Mode:
    """One of the modes."""
    try:
        return Mode(str(value).strip().lower())
    except ValueError:
        raise ValueError(f"must be one of {', '.join(Mode)}{near(str(value), Mode)}") from None


def choice(*names: str) -> Callable[[Any], str]:
    """Make the parser of one of some words."""

    def parse(value: Any) -> str:
        name = str(value).strip().lower()
        if name not in names:
            raise ValueError(f"must be one of {', '.join(names)}{near(name, names)}")
        return name

    return parse


def text_list(value: Any) -> tuple[str, ...]:
    """A list of texts, or one text with commas."""
    if isinstance(value, str):
        value = [part for part in value.split(",") if part.strip()]
    if not isinstance(value, list | tuple) or not all(isinstance(part, str) for part in value):
        raise ValueError("must be a list of texts")
    return tuple(part.strip() for part in value)


def paths(value: Any) -> tuple[Path, ...]:
    """A list of files."""
    if isinstance(value, list | tuple):
        value = [str(part) if isinstance(part, Path) else part for part in value]
    return tuple(_expanded(part) for part in text_list(value))


def _expanded(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise ValueError("names the home of a user that does not exist") from None


def origins(value: Any) -> tuple[str, ...]:
    """Origins as a browser sends them (RFC 6454 section 6.1)."""
    found = text_list(value)
    for each in found:
        if _ORIGIN.fullmatch(each) is None:
            raise ValueError(f"must be origins like https://host:port, without path and without *; {each!r} is none")
    return found


def upstream_name(name: str) -> str:
    """A word, or host:port with a path."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"the upstream name {name!r} must be 1-64 of letters, digits, '.', '_' and '-', or host:port/path"
        )
    return name


def url(url: Any) -> str:
    """A URL of an upstream."""
    wanted = "an upstream URL must look like https://host/v1 (http or https, no query, no credentials)"
    if isinstance(url, str) and (problem := misspelt(url)) is not None:
        raise ValueError(f"{wanted}; this one {problem}")
    if isinstance(url, str) and (bare := _BARE.fullmatch(url)) is not None:
        scheme = "http" if bare["near"] else "https"
        raise ValueError(f"{wanted}; {url} has no scheme: did you mean {scheme}://{url}?")
    refusal = ValueError(wanted)
    if not isinstance(url, str):
        raise refusal
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.port != 0 and _is_name(parts.hostname or "")
    except ValueError:
        raise refusal from None
    base = base_of(url) if valid and parts.username is None else None
    if base is not None:
        raise ValueError(
            f"an upstream URL is the base of all endpoints, as an SDK's base_url: did you mean {base}? The client adds "
            "the rest"
        )
    if not valid or parts.query or parts.fragment or parts.username is not None or re.search(r"\s", url):
        raise refusal
    return url
