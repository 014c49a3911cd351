"""Readers of upstreams: from a TOML table of tables, or from the texts of --upstream and KDPROXY_UPSTREAM.

All mistakes in all tables are raised together, each with the name of its member.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from kdproxy.core import ignore
from kdproxy.core.ignore import Ignore
from kdproxy.core.key import CREDENTIAL_HEADERS
from kdproxy.core.limits import QUOTAS
from kdproxy.core.routing import name_of
from kdproxy.providers.rules import TABLES
from kdproxy.settings.parse import choice, flag, integer, near, number, text, upstream_name, url

PROVIDERS = ("openai", "anthropic", "gemini")


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamSettings:
    """One `[upstreams.NAME]` table."""

    name: str
    url: str
    provider: str | None = None
    credential_env: tuple[str, ...] = ()
    """Environment variables with the upstream's credentials, used if the proxy has its own token."""
    policy: str | None = None
    """What to do when its quota is spent: `fail` or `park`; None: as `spent_policy` says."""
    limits: Mapping[str, float] = field(default_factory=dict)
    """Own limits, such as `requests_per_minute`, below those of the provider."""
    max_in_flight: int | None = None
    """Calls at once; None: as the setting of that name says."""
    rules: str | None = None
    """Name of the table of limits and errors for it; None: chosen by its host."""
    billed: bool | None = None
    """Whether its calls cost money; None: they do, unless its server is recognised as self-hosted."""
    end: str = "finish"
    """What proves that an answer is complete: `finish` reasons, or `done` if its server sends none."""
    choices: str = "as-asked"
    """How many choices, rows and vectors a complete answer has: `as-asked`, or `as-served` if `n` is ignored."""
    keep_empty: bool = False
    """Whether answers without any generated content are stored."""
    key_headers: tuple[str, ...] = ()
    """Request headers that choose who answers: they are in the key, by their hash."""
    ignore: tuple[Ignore, ...] = ()
    """Texts of requests that the key leaves out."""


class Wrong(ValueError):
    """The mistakes in the tables: (dotted name of the member, what it must be) each."""

    def __init__(self, mistakes: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{name} {what}" for name, what in mistakes))
        self.mistakes = mistakes


def upstreams(value: Any) -> tuple[UpstreamSettings, ...]:
    """Take a TOML table of tables, or the texts of --upstream and KDPROXY_UPSTREAM."""
    if isinstance(value, str):
        value = [part for part in value.split(",") if part.strip()]
    if isinstance(value, list | tuple) and not any(isinstance(part, dict) for part in value):
        return _distinct([_of_text(part if isinstance(part, str) else text(part)) for part in value])
    if not isinstance(value, dict):
        raise ValueError("must be tables like [upstreams.teacher] with a url")
    mistakes: list[tuple[str, str]] = []
    found = [_of_table(name, table, mistakes) for name, table in value.items()]
    if mistakes:
        raise Wrong(mistakes)
    return tuple(each for each in found if each is not None)


def _distinct(upstreams: list[UpstreamSettings]) -> tuple[UpstreamSettings, ...]:
    names = [upstream.name for upstream in upstreams]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two upstreams are named {name!r}")
    return tuple(upstreams)


def _of_text(text: str) -> UpstreamSettings:
    head, equals, tail = text.strip().partition("=")
    if equals and "://" not in head:
        return UpstreamSettings(name=upstream_name(head), url=url(tail))
    address = url(text.strip())
    return UpstreamSettings(name=name_of(address), url=address)


_MEMBERS = {found.name for found in fields(UpstreamSettings)} - {"name"}


def _of_table(name: str, table: Any, mistakes: list[tuple[str, str]]) -> UpstreamSettings | None:
    """Read one table; add its mistakes to `mistakes`."""
    path = f"upstreams.{name}"
    if not isinstance(table, dict):
        mistakes.append((path, 'must be a table with a url: [upstreams.teacher] and url = "https://host/v1" below it'))
        return None
    before = len(mistakes)
    try:
        upstream_name(name)
    except ValueError as error:
        mistakes.append((path, str(error)))
    members: dict[str, Any] = {}
    for member, value in table.items():
        if member not in _READERS:
            mistakes.append((f"{path}.{member}", f"no such setting of an upstream{near(member, _MEMBERS)}"))
            continue
        try:
            members[member] = _READERS[member](value)
        except Wrong as error:
            mistakes += [(f"{path}.{member}.{inner}", what) for inner, what in error.mistakes]
        except ValueError as error:
            mistakes.append((f"{path}.{member}", str(error)))
    # A misspelt one has been reported already.
    if "url" not in table and not any(near(member, ["url"]) for member in table):
        mistakes.append((path, 'has no url; give it one, such as url = "https://host/v1"'))
    return None if len(mistakes) > before else UpstreamSettings(name=name, **members)


_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
"""A field name (RFC 9110 section 5.1)."""


def _key_headers(value: Any) -> tuple[str, ...]:
    wanted = "must be a list of request headers that choose who answers"
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list) or not all(isinstance(each, str) and _HEADER.fullmatch(each) for each in given):
        raise ValueError(wanted)
    names = tuple(dict.fromkeys(each.lower() for each in given))
    for each in names:
        if each in CREDENTIAL_HEADERS:
            raise ValueError(f"{wanted}; {each} is a credential: whoever asks gets the same answer")
    return names


def _ignore(value: Any) -> tuple[Ignore, ...]:
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise ValueError("must be a list of texts like messages[0].content~REGEX")
    return tuple(ignore.parse(each) for each in given)


def _variables(value: Any) -> tuple[str, ...]:
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list) or not all(isinstance(each, str) and each for each in given):
        raise ValueError("must be the name of an environment variable, or a list of names")
    return tuple(given)


def _limits(value: Any) -> dict[str, float]:
    if not isinstance(value, dict):
        raise ValueError("must be a table such as { requests_per_minute = 500 }")
    mistakes: list[tuple[str, str]] = []
    limits: dict[str, float] = {}
    for quota, limit in value.items():
        if quota not in QUOTAS:
            known = f"known: {', '.join(QUOTAS)}"
            mistakes.append((quota, f"no such limit{near(quota, QUOTAS) or '; ' + known}"))
            continue
        try:
            limits[quota] = number(1, 1e12)(limit)
        except ValueError as error:
            mistakes.append((quota, str(error)))
    if mistakes:
        raise Wrong(mistakes)
    return limits


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "url": url,
    "provider": choice(*PROVIDERS),
    "credential_env": _variables,
    "policy": choice("fail", "park"),
    "limits": _limits,
    "max_in_flight": integer(1, 100_000),
    "rules": choice(*TABLES),
    "billed": flag,
    "end": choice("finish", "done"),
    "choices": choice("as-asked", "as-served"),
    "keep_empty": flag,
    "key_headers": _key_headers,
    "ignore": _ignore,
}
"""The reader of each member of a table."""
