"""Settings from flags over KDPROXY_* over kdproxy.toml over defaults. All problems are reported together."""

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kdproxy.core.ignore import Ignore
from kdproxy.core.routing import BUILT_IN, built_in_at
from kdproxy.errors import ConfigError
from kdproxy.secret import Secret
from kdproxy.settings import toml
from kdproxy.settings.parse import near
from kdproxy.settings.tree import Settings
from kdproxy.settings.upstream import UpstreamSettings, Wrong
from kdproxy.web.guard import is_loopback

CONFIG_NAME = "kdproxy.toml"
ENV_PREFIX = "KDPROXY_"
RUN_URL = "KDPROXY_RUN_URL"
"""Set by `kdproxy run` for its command: where the API of its run is; no setting."""

_BUILT_IN_CREDENTIALS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY", "gemini": "GEMINI_API_KEY"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Settings, and where each came from."""

    settings: Settings
    origins: Mapping[str, str]
    """Setting name to `default`, `kdproxy.toml`, the variable's name, or `flag`."""


_PARSED = {found.name: found for found in fields(Settings) if found.metadata["parse"] is not None}
_VARIABLES = {ENV_PREFIX + ("UPSTREAM" if name == "upstreams" else name.upper()): name for name in _PARSED}
_ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound


def load(
    flags: Mapping[str, Any],
    *,
    environment: Mapping[str, str] = os.environ,
    config: Path | None = None,
) -> Loaded:
    """Build the settings.

    Args:
        flags: by setting name; None where the flag was not given.
        config: TOML file; None: `kdproxy.toml` in the working directory, if it exists.

    Raises:
        ConfigError: with all problems.
    """
    loaded, problems = survey(flags, environment=environment, config=config)
    if problems:
        raise ConfigError(problems, hint="Fix them all and start again; `kdproxy config` shows the effective settings.")
    return loaded


def survey(
    flags: Mapping[str, Any],
    *,
    environment: Mapping[str, str] = os.environ,
    config: Path | None = None,
) -> tuple[Loaded, list[str]]:
    """Return the settings, without those that have a problem, and all problems. Arguments as for `load`."""
    if RUN_URL in environment:
        # Within `kdproxy run` the token is the key of an attempt, for trainhooks; no proxy's.
        environment = {name: value for name, value in environment.items() if name != f"{ENV_PREFIX}TOKEN"}
    problems: list[str] = []
    given: dict[str, tuple[Any, str]] = {}
    config = config or _path_or_none(environment.get(f"{ENV_PREFIX}CONFIG"))
    members, lines = _read_toml(config, problems)
    given.update({name: (value, str(config or CONFIG_NAME)) for name, value in members.items()})
    for variable, name in _VARIABLES.items():
        if variable in environment:
            given[name] = (environment[variable], variable)
    given.update({name: (value, "flag") for name, value in flags.items() if value is not None})

    values: dict[str, Any] = {}
    origins = dict.fromkeys(_PARSED, "default")
    for name, (value, origin) in given.items():
        try:
            values[name] = _PARSED[name].metadata["parse"](value)
            origins[name] = origin
        except Wrong as error:
            problems += [f"{member} ({_at(origin, lines, member)}): {what}" for member, what in error.mistakes]
        except ValueError as error:
            problems.append(f"{name} ({_at(origin, lines, name)}): {error}{_instead(value)}")
    values["token"], origins["token"] = _token(values.get("token_file"), environment, problems)
    settings = Settings(**values)
    credentials = _credentials(settings, environment, problems)
    origins["credentials"] = "environment" if credentials else "default"
    _check_variables(_named_variables(given.get("upstreams")), environment, problems)
    _check_door(settings, problems)
    _check_loop(settings, problems)
    return Loaded(settings=Settings(**{**values, "credentials": credentials}), origins=origins), problems


def describe(loaded: Loaded) -> list[dict[str, Any]]:
    """Return each setting with its value, origin and sentence; secrets are stars."""
    rows = []
    for found in fields(Settings):
        value = getattr(loaded.settings, found.name)
        rows.append(
            {
                "name": found.name,
                "value": _plain(value),
                "origin": loaded.origins[found.name],
                "sentence": found.metadata["sentence"],
            }
        )
    return rows


def _plain(value: Any) -> Any:
    match value:
        case Secret():
            return "*****"
        case Path() | Ignore():
            return str(value)
        case UpstreamSettings():
            return {found.name: _plain(getattr(value, found.name)) for found in fields(value)}
        case tuple():
            return [_plain(item) for item in value]
        case Mapping():
            return {name: _plain(item) for name, item in value.items()}
        case _:
            return value


def _read_toml(config: Path | None, problems: list[str]) -> tuple[dict[str, Any], Mapping[str, int]]:
    path = config or Path(CONFIG_NAME)
    if config is None and not path.exists():
        return {}, {}
    try:
        members, lines = toml.read(path)
    except toml.Unreadable as error:
        problems.append(str(error))
        return {}, {}
    for name in sorted(set(members) - set(_PARSED)):
        del members[name]
        where = _at(str(path), lines, name)
        if name == "token":
            problems.append(f"token ({where}): a secret does not belong in the config; use token_file or KDPROXY_TOKEN")
        else:
            problems.append(f"{name} ({where}): no such setting{near(name, _PARSED)}")
    return members, lines


def _at(origin: str, lines: Mapping[str, int], name: str) -> str:
    """Return where a value comes from; for the file also the line (the table's, if the member has none)."""
    if origin == "flag" or origin.startswith(ENV_PREFIX):
        return origin
    while name and name not in lines:
        name = name.rpartition(".")[0]
    return f"{origin}, line {lines[name]}" if name else origin


def _token(path: Path | None, environment: Mapping[str, str], problems: list[str]) -> tuple[Secret | None, str]:
    text = environment.get(f"{ENV_PREFIX}TOKEN")
    origin = f"{ENV_PREFIX}TOKEN"
    if text is None and path is not None:
        origin = "token_file"
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"token_file: {path} cannot be read ({error})")
            return None, origin
    if text is None:
        return None, "default"
    text = text.strip()
    if len(text) < 16 or not text.isascii() or not text.isprintable() or " " in text:
        problems.append(f"the token ({origin}) must be at least 16 printable ASCII characters without spaces")
        return None, origin
    return Secret(text), origin


def _credentials(
    settings: Settings, environment: Mapping[str, str], problems: list[str]
) -> dict[str, tuple[Secret, ...]]:
    """Return the upstreams' credentials; only a proxy with its own token inserts them."""
    if settings.token is None:
        return {}
    found: dict[str, tuple[Secret, ...]] = {}
    upstreams = settings.upstreams or tuple(UpstreamSettings(name=built.name, url=built.url) for built in BUILT_IN)
    for upstream in upstreams:
        # The well-known variables are for the built-in hosts only: no other gets an OpenAI key.
        well_known = _BUILT_IN_CREDENTIALS.get(built_in_at(upstream.url) or "")
        variables = upstream.credential_env or ((well_known,) if well_known else ())
        values = {variable: environment.get(variable, "").strip() for variable in variables}
        problems += [
            f"upstreams.{upstream.name}: the value of {variable} cannot be sent in a header (a line break in it?)"
            for variable, value in values.items()
            if not (value.isascii() and value.isprintable())
        ]
        if any(values.values()):
            # The same key twice has one limit, not two.
            found[upstream.name] = tuple(Secret(value) for value in dict.fromkeys(values.values()) if value)
        problems += [
            f"upstreams.{upstream.name}.credential_env: the variable {variable} is not set"
            for variable in upstream.credential_env
            if not values[variable]
        ]
    return found


def _check_door(settings: Settings, problems: list[str]) -> None:
    if not is_loopback(settings.host) and settings.token is None:
        problems.append(
            f"host: {settings.host} can be reached from other machines, which requires a token: "
            "set KDPROXY_TOKEN or token_file"
        )


def _named_variables(given: tuple[Any, str] | None) -> set[str]:
    """Return the variables that upstreams name, including those of tables with mistakes."""
    tables = given[0].values() if given is not None and isinstance(given[0], dict) else ()
    named = [table.get("credential_env") for table in tables if isinstance(table, dict)]
    lists = [[each] if isinstance(each, str) else each for each in named if isinstance(each, str | list)]
    return {variable for each in lists for variable in each if isinstance(variable, str)}


def _check_variables(named: set[str], environment: Mapping[str, str], problems: list[str]) -> None:
    """Report misspelt variables, like misspelt keys of the file. Values are not shown: they may be secrets."""
    known = {*_VARIABLES, f"{ENV_PREFIX}CONFIG", f"{ENV_PREFIX}TOKEN", RUN_URL, *named}
    for variable in sorted(environment.keys() - known):
        if variable.startswith(ENV_PREFIX):
            close = difflib.get_close_matches(variable, known, n=1)
            problems.append(
                f"{variable} (environment): no such setting" + (f"; did you mean {close[0]}?" if close else "")
            )


def _check_loop(settings: Settings, problems: list[str]) -> None:
    """Report an upstream that is this proxy, if its address shows it; other loops are detected by the first request."""
    for upstream in settings.upstreams:
        parts = urlsplit(upstream.url)
        if settings.port and parts.port == settings.port and _is_here(parts.hostname or "", settings.host):
            problems.append(
                f"upstreams: {upstream.url} is the address of this proxy itself; give the teacher's, or another --port"
            )


def _is_here(host: str, bound: str) -> bool:
    if bound in _ANY_ADDRESS or "localhost" in (host, bound):
        return is_loopback(host) and (bound in _ANY_ADDRESS or is_loopback(bound))
    return host == bound


def _instead(value: Any) -> str:
    """Return the given value, without possible credentials in a URL; a table is too long to quote."""
    match value:
        case dict():
            return ""
        case list() | tuple():
            given = ", ".join(map(repr, value))
        case _:
            given = repr(value)
    # A possible user:password@ or query is left out, with and without a scheme.
    return ", not " + re.sub(r"\?[^\s'\",]*", "?...", re.sub(r"(//|['=])[^\s'\"/]*@", r"\1...@", given))


def _path_or_none(text: str | None) -> Path | None:
    return Path(text).expanduser() if text else None
