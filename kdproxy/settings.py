"""One tree of settings: flags over KDPROXY_* over kdproxy.toml over defaults, validated whole, problems all at once."""

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kdproxy.core.models import Upstream
from kdproxy.core.policy import Mode
from kdproxy.core.routing import BUILT_IN, name_of
from kdproxy.errors import ConfigError
from kdproxy.secret import Secret
from kdproxy.web.guard import is_loopback

CONFIG_NAME = "kdproxy.toml"
ENV_PREFIX = "KDPROXY_"
PROVIDERS = ("openai", "anthropic", "gemini")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DEFAULT_CREDENTIALS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY", "gemini": "GEMINI_API_KEY"}


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamSettings:
    """One `[upstreams.NAME]` table."""

    name: str
    url: str
    provider: str | None = None
    credential_env: str | None = None
    """Environment variable with the upstream's credential, used where the proxy has a token of its own."""


def _setting(default: Any, sentence: str, parse: Callable[[Any], Any]) -> Any:
    metadata = {"sentence": sentence, "parse": parse}
    if isinstance(default, tuple):
        return field(default_factory=lambda: default, metadata=metadata)
    return field(default=default, metadata=metadata)


# -- parsers: each takes a TOML value or the text of a flag or variable, and raises ValueError with what it wants ------


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be text")
    return value.strip()


def _path(value: Any) -> Path:
    return Path(_text(str(value))).expanduser()


def _optional_path(value: Any) -> Path | None:
    return None if value is None else _path(value)


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    match str(value).strip().lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off":
            return False
    raise ValueError("must be true or false")


def _number(low: float, high: float) -> Callable[[Any], float]:
    def parse(value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise ValueError(f"must be a number from {low:g} to {high:g}") from None
        if isinstance(value, bool) or not low <= number <= high:
            raise ValueError(f"must be a number from {low:g} to {high:g}")
        return number

    return parse


def _integer(low: int, high: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        try:
            number = int(str(value))
        except ValueError:
            raise ValueError(f"must be a whole number from {low} to {high}") from None
        if isinstance(value, bool) or not low <= number <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return number

    return parse


def _mode(value: Any) -> Mode:
    try:
        return Mode(str(value).strip().lower())
    except ValueError:
        raise ValueError(f"must be one of {', '.join(Mode)}") from None


def _choice(*names: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        name = str(value).strip().lower()
        if name not in names:
            raise ValueError(f"must be one of {', '.join(names)}")
        return name

    return parse


def _list(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [part for part in value.split(",") if part.strip()]
    if not isinstance(value, list | tuple) or not all(isinstance(part, str) for part in value):
        raise ValueError("must be a list of texts")
    return tuple(part.strip() for part in value)


def _paths(value: Any) -> tuple[Path, ...]:
    return tuple(Path(part).expanduser() for part in _list([str(p) for p in value] if not isinstance(value, str) else value))


def _upstreams(value: Any) -> tuple[UpstreamSettings, ...]:
    """Take a TOML table of tables, or the texts of --upstream and KDPROXY_UPSTREAM."""
    if isinstance(value, str):
        value = [part for part in value.split(",") if part.strip()]
    if isinstance(value, list | tuple):
        return _distinct([_upstream_of_text(part) for part in value])
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
    unknown = set(table) - {"url", "provider", "credential_env"}
    if unknown:
        raise ValueError(f"upstreams.{name} has unknown members: {', '.join(sorted(unknown))}")
    provider = table.get("provider")
    if provider is not None and provider not in PROVIDERS:
        raise ValueError(f"upstreams.{name}.provider must be one of {', '.join(PROVIDERS)}")
    return UpstreamSettings(
        name=_upstream_name(name),
        url=_url(table.get("url", "")),
        provider=provider,
        credential_env=table.get("credential_env"),
    )


def _upstream_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"the upstream name {name!r} must be 1-64 of letters, digits, '.', '_' and '-'")
    return name


def _url(url: Any) -> str:
    problem = ValueError("an upstream URL must look like https://host/v1 (http or https, no query, no credentials)")
    if not isinstance(url, str):
        raise problem
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        raise problem from None
    if not valid or parts.query or parts.fragment or parts.username is not None or re.search(r"\s", url):
        raise problem
    return url


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set. Names are the TOML keys; `KDPROXY_` and the name in capitals is the variable."""

    host: str = _setting("127.0.0.1", "Address to listen on; another than loopback needs a token.", _text)
    port: int = _setting(8400, "Port to listen on; 0 takes a free one.", _integer(0, 65_535))
    data_dir: Path = _setting(Path("kdproxy-data"), "Where the journal and its index lie.", _path)
    mode: Mode = _setting(Mode.CACHE, "What to do with cacheable requests.", _mode)
    upstreams: tuple[UpstreamSettings, ...] = _setting((), "Teacher APIs; none: the built-in ones.", _upstreams)
    warm: tuple[Path, ...] = _setting((), "Files to fill the cache from at start.", _paths)
    allowed_hosts: tuple[str, ...] = _setting((), "Host names, beside loopback's, that requests may carry.", _list)
    token_file: Path | None = _setting(None, "File with the proxy's token (or KDPROXY_TOKEN).", _optional_path)
    prices: Path | None = _setting(None, "TOML file with prices that go before the built-in ones.", _optional_path)
    match_prompts: bool = _setting(True, "Whether recorded prompts answer requests with the same text.", _flag)
    allow_hosted_tools: bool = _setting(False, "Whether to cache answers of tools that run at the provider.", _flag)
    body_limit_bytes: int = _setting(64 << 20, "Largest body on cacheable paths, bytes.", _integer(1_024, 1 << 30))
    answer_limit_bytes: int = _setting(64 << 20, "Largest answer that is stored, bytes.", _integer(1_024, 1 << 30))
    memory_bytes: int = _setting(16 << 20, "Memory for recent answers, bytes.", _integer(0, 1 << 40))
    segment_bytes: int = _setting(256 << 20, "Size at which a journal file is sealed, bytes.", _integer(4_096, 1 << 40))
    connect_seconds: float = _setting(10.0, "Longest wait for a connection to the upstream.", _number(0.1, 3_600))
    read_seconds: float = _setting(600.0, "Longest wait for the upstream's next byte.", _number(0.1, 86_400))
    retry_seconds: float = _setting(600.0, "Longest time over all attempts at one call.", _number(0, 604_800))
    retry_attempts: int = _setting(6, "Attempts at one call; rate limits do not count.", _integer(1, 1_000))
    patience_seconds: float = _setting(
        540.0, "How long an unsent request is held for a client that does not say its own limit.", _number(1, 604_800)
    )
    detached_max_seconds: float = _setting(
        900.0, "How long a sent call is finished after its last client left.", _number(0, 86_400)
    )
    drain_seconds: float = _setting(60.0, "How long running calls may take to finish at shutdown.", _number(0, 3_600))
    use_environment_proxy: bool = _setting(False, "Whether upstream calls obey HTTPS_PROXY and NO_PROXY.", _flag)
    log_level: str = _setting("info", "Least severe log lines shown.", _choice("debug", "info", "warning", "error"))
    token: Secret | None = field(default=None, metadata={"sentence": "The proxy's token.", "parse": None})
    credentials: Mapping[str, Secret] = field(
        default_factory=dict, metadata={"sentence": "Upstream credentials, by name.", "parse": None}
    )

    def upstream_models(self) -> tuple[Upstream, ...]:
        """Return the configured upstreams as the router takes them."""
        return tuple(
            Upstream(name=upstream.name, url=upstream.url, provider=upstream.provider) for upstream in self.upstreams
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Settings, and where each came from."""

    settings: Settings
    origins: Mapping[str, str]
    """Setting name to `default`, `kdproxy.toml`, the variable's name, or `flag`."""


_PARSED = {found.name: found for found in fields(Settings) if found.metadata["parse"] is not None}


def load(
    flags: Mapping[str, Any],
    *,
    environment: Mapping[str, str] = os.environ,
    config: Path | None = None,
) -> Loaded:
    """Build the settings.

    Args:
        flags: by setting name; None where the flag was not given.
        config: TOML file; None: `kdproxy.toml` in the working directory, if there is one.

    Raises:
        ConfigError: with all problems.
    """
    problems: list[str] = []
    given: dict[str, tuple[Any, str]] = {}
    config = config or _path_or_none(environment.get(f"{ENV_PREFIX}CONFIG"))
    for name, value in _read_toml(config, problems).items():
        given[name] = (value, str(config or CONFIG_NAME))
    for name in _PARSED:
        variable = ENV_PREFIX + ("UPSTREAM" if name == "upstreams" else name.upper())
        if variable in environment:
            given[name] = (environment[variable], variable)
    given.update({name: (value, "flag") for name, value in flags.items() if value is not None})

    values: dict[str, Any] = {}
    origins = dict.fromkeys(_PARSED, "default")
    for name, (value, origin) in given.items():
        try:
            values[name] = _PARSED[name].metadata["parse"](value)
            origins[name] = origin
        except ValueError as error:
            problems.append(f"{name} ({origin}): {error}, not {value!r}")
    values["token"], origins["token"] = _token(values.get("token_file"), environment, problems)
    settings = Settings(**values)
    credentials = _credentials(settings, environment, problems)
    origins["credentials"] = "environment" if credentials else "default"
    _check_door(settings, problems)
    if problems:
        raise ConfigError(problems, hint="Mend them all and start again; `kdproxy config` shows the effective settings.")
    return Loaded(
        settings=Settings(**{**values, "credentials": credentials}),
        origins=origins,
    )


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
        case Path():
            return str(value)
        case UpstreamSettings():
            members = {"name": value.name, "url": value.url, "provider": value.provider}
            return {**members, "credential_env": value.credential_env}
        case tuple():
            return [_plain(item) for item in value]
        case Mapping():
            return {name: _plain(item) for name, item in value.items()}
        case _:
            return value


def _read_toml(config: Path | None, problems: list[str]) -> dict[str, Any]:
    path = config or Path(CONFIG_NAME)
    if config is None and not path.exists():
        return {}
    try:
        members = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        problems.append(f"the config file {path} cannot be read ({error.strerror})")
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(f"the config file {path} is not TOML: {error}")
        return {}
    for name in sorted(set(members) - set(_PARSED)):
        del members[name]
        if name == "token":
            problems.append(f"token ({path}): a secret does not belong in the config; use token_file or KDPROXY_TOKEN")
            continue
        close = difflib.get_close_matches(name, _PARSED, n=1)
        problems.append(f"{name} ({path}): no such setting" + (f"; did you mean {close[0]}?" if close else ""))
    return members


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
) -> dict[str, Secret]:
    """Find the upstreams' credentials; only a proxy with a token of its own puts them in."""
    if settings.token is None:
        return {}
    found: dict[str, Secret] = {}
    upstreams = settings.upstreams or tuple(
        UpstreamSettings(name=upstream.name, url=upstream.url, provider=upstream.provider) for upstream in BUILT_IN
    )
    for upstream in upstreams:
        variable = upstream.credential_env or _DEFAULT_CREDENTIALS.get(upstream.provider or upstream.name)
        if variable is None:
            continue
        value = environment.get(variable)
        if value:
            found[upstream.name] = Secret(value.strip())
        elif upstream.credential_env is not None:
            problems.append(f"upstreams.{upstream.name}.credential_env: the variable {variable} is not set")
    return found


def _check_door(settings: Settings, problems: list[str]) -> None:
    if not is_loopback(settings.host) and settings.token is None:
        problems.append(
            f"host: {settings.host} can be reached from outside this machine, which needs a token: "
            "set KDPROXY_TOKEN or token_file"
        )


def _path_or_none(text: str | None) -> Path | None:
    return Path(text).expanduser() if text else None
