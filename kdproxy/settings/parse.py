"""Readers of setting values: each takes a TOML value or the text of a flag or variable.

They raise ValueError with what they want; who calls them adds what was given and where.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kdproxy.core import ignore
from kdproxy.core.ignore import Ignore
from kdproxy.core.key import CREDENTIAL_HEADERS
from kdproxy.core.limits import QUOTAS
from kdproxy.core.policy import Mode
from kdproxy.core.routing import name_of
from kdproxy.providers.rules import TABLES
from kdproxy.settings.base_url import base_of

PROVIDERS = ("openai", "anthropic", "gemini")

_NAME = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}|[A-Za-z0-9._:-]{1,255}:\d{1,5}(?:/[\w.~%!$&'()*+,;@:-]+)*", re.ASCII
)
"""A word, or what `name_of` makes of a URL: with it answers that were bought under that name are found again."""
_BARE = re.compile(
    r"(?:(?P<near>localhost|[\d.]+)|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9-]+(?=:\d))(?::\d+)?(?:/[\w./-]*)?"
)
"""A host and perhaps a path, without `https://`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamSettings:
    """One `[upstreams.NAME]` table."""

    name: str
    url: str
    provider: str | None = None
    credential_env: tuple[str, ...] = ()
    """Environment variables with the upstream's credentials, used where the proxy has a token of its own."""
    policy: str | None = None
    """What to do when its quota is spent: `fail` or `park`; None: as `spent_policy` says."""
    limits: Mapping[str, float] = field(default_factory=dict)
    """Limits of our own, such as `requests_per_minute`, under what the provider allows."""
    max_in_flight: int | None = None
    """Calls at once; None: as the setting of that name says."""
    rules: str | None = None
    """Name of the table of limits and errors that holds for it; None: told from its host."""
    billed: bool | None = None
    """Whether its calls cost money; None: they do, unless its server is recognised as one of one's own."""
    end: str = "finish"
    """What proves that an answer ended: `finish` reasons, or `done`, where its server sends none."""
    choices: str = "as-asked"
    """How many choices, rows and vectors a whole answer has: `as-asked`, or `as-served`, where `n` is ignored."""
    keep_empty: bool = False
    """Whether answers are kept in which nothing was generated and nothing is said."""
    key_headers: tuple[str, ...] = ()
    """Request headers that choose who answers: they are in the key, by their hash."""
    ignore: tuple[Ignore, ...] = ()
    """Texts of requests that the key leaves out."""


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
    """Whether DNS can be asked for it (RFC 1035 section 2.3.4): who asks for another gets no answer but a crash."""
    try:
        return bool(name.encode("idna"))
    except UnicodeError:
        return False


def path(value: Any) -> Path:
    """A file or directory; `~` is the home directory."""
    return _expanded(text(str(value)))


def optional_path(value: Any) -> Path | None:
    """The same, or nothing."""
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
        raise ValueError(f"must be one of {', '.join(Mode)}") from None


def choice(*names: str) -> Callable[[Any], str]:
    """Make the parser of one of some words."""

    def parse(value: Any) -> str:
        name = str(value).strip().lower()
        if name not in names:
            raise ValueError(f"must be one of {', '.join(names)}")
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
        raise ValueError("names the home of a user that is not there") from None


def upstreams(value: Any) -> tuple[UpstreamSettings, ...]:
    """Take a TOML table of tables, or the texts of --upstream and KDPROXY_UPSTREAM."""
    if isinstance(value, str):
        value = [part for part in value.split(",") if part.strip()]
    if isinstance(value, list | tuple):
        return _distinct([_upstream_of_text(text(part)) for part in value])
    if not isinstance(value, dict):
        raise ValueError("must be tables like [upstreams.teacher] with a url")
    return _distinct([_upstream_of_table(name, table) for name, table in value.items()])


def _distinct(upstreams: list[UpstreamSettings]) -> tuple[UpstreamSettings, ...]:
    names = [upstream.name for upstream in upstreams]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two upstreams are named {name!r}")
    return tuple(upstreams)


def _upstream_of_text(text: str) -> UpstreamSettings:
    head, equals, tail = text.strip().partition("=")
    if equals and "://" not in head:
        return UpstreamSettings(name=_upstream_name(head), url=_url(tail))
    url = _url(text.strip())
    return UpstreamSettings(name=name_of(url), url=url)


def _upstream_of_table(name: str, table: Any) -> UpstreamSettings:
    if not isinstance(table, dict):
        raise ValueError(f"upstreams.{name} must be a table with a url")
    unknown = set(table) - {found.name for found in fields(UpstreamSettings)} - {"name"}
    if unknown:
        raise ValueError(f"upstreams.{name} has unknown members: {', '.join(sorted(unknown))}")
    provider = table.get("provider")
    if provider is not None and provider not in PROVIDERS:
        raise ValueError(f"upstreams.{name}.provider must be one of {', '.join(PROVIDERS)}")
    return UpstreamSettings(
        name=_upstream_name(name),
        url=_optional(f"upstreams.{name}.url:", table.get("url", ""), _url),
        provider=provider,
        credential_env=_variables(name, table.get("credential_env")),
        policy=_optional(f"upstreams.{name}.policy", table.get("policy"), choice("fail", "park")),
        limits=_limits(name, table.get("limits", {})),
        max_in_flight=_optional(f"upstreams.{name}.max_in_flight", table.get("max_in_flight"), integer(1, 100_000)),
        rules=_optional(f"upstreams.{name}.rules", table.get("rules"), choice(*TABLES)),
        billed=_optional(f"upstreams.{name}.billed", table.get("billed"), flag),
        end=_optional(f"upstreams.{name}.end", table.get("end"), choice("finish", "done")) or "finish",
        choices=_optional(f"upstreams.{name}.choices", table.get("choices"), choice("as-asked", "as-served"))
        or "as-asked",
        keep_empty=_optional(f"upstreams.{name}.keep_empty", table.get("keep_empty"), flag) or False,
        key_headers=_key_headers(name, table.get("key_headers", [])),
        ignore=_ignore(name, table.get("ignore", [])),
    )


_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
"""A field name (RFC 9110 section 5.1)."""


def _key_headers(name: str, value: Any) -> tuple[str, ...]:
    wanted = f"upstreams.{name}.key_headers must be a list of request headers that choose who answers"
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list) or not all(isinstance(each, str) and _HEADER.fullmatch(each) for each in given):
        raise ValueError(wanted)
    names = tuple(dict.fromkeys(each.lower() for each in given))
    for each in names:
        if each in CREDENTIAL_HEADERS:
            raise ValueError(f"{wanted}; {each} is a credential: whoever asks gets the same answer")
    return names


def _ignore(name: str, value: Any) -> tuple[Ignore, ...]:
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise ValueError(f"upstreams.{name}.ignore must be a list of texts like messages[0].content~REGEX")
    return tuple(_optional(f"upstreams.{name}.ignore:", each, ignore.parse) for each in given)


def _optional(name: str, value: Any, read: Callable[[Any], Any]) -> Any:
    if value is None:
        return None
    try:
        return read(value)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None


def _variables(name: str, value: Any) -> tuple[str, ...]:
    given = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(given, list) or not all(isinstance(each, str) and each for each in given):
        raise ValueError(
            f"upstreams.{name}.credential_env must be the name of an environment variable, or a list of names"
        )
    return tuple(given)


def _limits(name: str, value: Any) -> dict[str, float]:
    if not isinstance(value, dict):
        raise ValueError(f"upstreams.{name}.limits must be a table such as {{ requests_per_minute = 500 }}")
    unknown = set(value) - set(QUOTAS)
    if unknown:
        raise ValueError(
            f"upstreams.{name}.limits has unknown members: {', '.join(sorted(unknown))}; known: {', '.join(QUOTAS)}"
        )
    return {
        quota: _optional(f"upstreams.{name}.limits.{quota}", limit, number(1, 1e12)) for quota, limit in value.items()
    }


def _upstream_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"the upstream name {name!r} must be 1-64 of letters, digits, '.', '_' and '-', or host:port/path"
        )
    return name


def _url(url: Any) -> str:
    wanted = "an upstream URL must look like https://host/v1 (http or https, no query, no credentials)"
    if isinstance(url, str) and (bare := _BARE.fullmatch(url)) is not None:
        scheme = "http" if bare["near"] else "https"
        raise ValueError(f"{wanted}; {url} has no scheme: did you mean {scheme}://{url}?")
    problem = ValueError(wanted)
    if not isinstance(url, str):
        raise problem
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.port != 0 and _is_name(parts.hostname or "")
    except ValueError:
        raise problem from None
    base = base_of(url) if valid and parts.username is None else None
    if base is not None:
        raise ValueError(
            f"an upstream URL is the base of all endpoints, as an SDK's base_url: did you mean {base}? The client adds "
            "the rest"
        )
    if not valid or parts.query or parts.fragment or parts.username is not None or re.search(r"\s", url):
        raise problem
    return url
