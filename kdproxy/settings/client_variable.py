"""Environment variables that clients and frameworks read a base URL from, and what `kdproxy run` sets them to. Pure.

Read from the sources of the OpenAI SDK 2, Anthropic SDK, google-genai, LiteLLM, LangChain, LlamaIndex (autumn 2026);
DSPy and curator call LiteLLM, instructor and distilabel the SDKs. docs/cli.md has the table.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import urlsplit

from kdproxy.core.models import Upstream
from kdproxy.core.routing import BUILT_IN, PREFIX, Router, name_of
from kdproxy.errors import ConfigError, RequestRefused
from kdproxy.settings import parse
from kdproxy.web.guard import is_loopback


class ClientVariable(NamedTuple):
    """One variable."""

    name: str
    dialect: str
    form: str
    """What its readers expect after the host: `/v1`, or nothing where they add the version themselves."""
    is_set_always: bool = True
    """Whether it is set also where it was not: its readers have a provider that kdproxy knows."""


VARIABLES = (
    ClientVariable("OPENAI_BASE_URL", "openai", "/v1"),
    ClientVariable("OPENAI_API_BASE", "openai", "/v1"),
    ClientVariable("OPENAI_API_BASE_URL", "openai", "/v1"),
    ClientVariable("ANTHROPIC_BASE_URL", "anthropic", ""),
    ClientVariable("ANTHROPIC_API_BASE", "anthropic", ""),
    ClientVariable("ANTHROPIC_API_URL", "anthropic", ""),
    ClientVariable("GOOGLE_GEMINI_BASE_URL", "gemini", ""),
    ClientVariable("GEMINI_API_BASE", "gemini", ""),
    *(
        ClientVariable(name, "openai", "/v1", is_set_always=False)
        for name in (
            "DEEPSEEK_API_BASE",
            "FIREWORKS_API_BASE",
            "GROQ_API_BASE",
            "HOSTED_VLLM_API_BASE",
            "MISTRAL_API_BASE",
            "OPENROUTER_API_BASE",
            "TOGETHER_AI_API_BASE",
            "XAI_API_BASE",
        )
    ),
    ClientVariable("AZURE_OPENAI_ENDPOINT", "openai", "", is_set_always=False),
    ClientVariable("AZURE_API_BASE", "openai", "", is_set_always=False),
)

_SAMPLE_PATHS = {
    "openai": "/v1/chat/completions",
    "anthropic": "/v1/messages",
    "gemini": "/v1beta/models/m:generateContent",
}
_OWN_UPSTREAM = re.compile(rf"{PREFIX}(.+?)(?:/v1)?/?$")
_VERSION = re.compile(r"/v\d+[a-z0-9]*(?:/|$)")
_ELSEWHERE = ("CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX", "GOOGLE_GENAI_USE_VERTEXAI")


@dataclass(slots=True)
class Given:
    """What the environment said before it was changed."""

    urls: dict[str, str] = field(default_factory=dict)
    """Upstream URLs by variable."""
    named: dict[str, str] = field(default_factory=dict)
    """By variable: the upstream that a base URL of kdproxy itself names."""
    own: list[str] = field(default_factory=list)
    """Variables that held a base URL of kdproxy itself."""


def given_by(environment: Mapping[str, str], own_ports: Iterable[int]) -> Given:
    """Read the variables. An empty one is not set: a template that was not filled in.

    Args:
        own_ports: loopback ports where kdproxy itself listens.

    Raises:
        ConfigError: one holds no base URL.
    """
    found, problems, ports = Given(), [], frozenset(own_ports)
    for variable in VARIABLES:
        value = environment.get(variable.name, "").strip()
        if not value:
            continue
        try:
            url = parse.url(value).rstrip("/")
        except ValueError as error:
            problems.append(f"{variable.name}: {error}")
            continue
        parts = urlsplit(url)
        if parts.port in ports and is_loopback(parts.hostname or ""):
            found.own.append(variable.name)
            if (match := _OWN_UPSTREAM.search(parts.path)) is not None:
                found.named[variable.name] = match[1]
        else:
            found.urls[variable.name] = url
    if problems:
        raise ConfigError(
            problems, hint="Nothing was started. Unset the variable, or set it to the base URL of the teacher."
        )
    return found


def needed_upstreams(given: Given) -> dict[str, dict[str, str]]:
    """Return the upstreams, as tables of kdproxy.toml, that a proxy needs for the variables; {}: the built-in ones."""
    if not given.urls:
        return {}
    dialects = {variable.name: variable.dialect for variable in VARIABLES}
    tables: dict[str, dict[str, str]] = {}
    for name, url in given.urls.items():
        tables.setdefault(name_of(url), {"url": url, "provider": dialects[name]})
    served = {dialects[name] for name in given.urls}
    for built in BUILT_IN:
        if built.name not in served:
            tables.setdefault(built.name, {"url": built.url})
    return tables


def settings_for(given: Given, upstreams: tuple[Upstream, ...], address: str) -> dict[str, str]:
    """Return what the variables are set to, so that each leads to its upstream by way of an attempt's port.

    Args:
        upstreams: those of the proxy.
        address: of the attempt's port.

    Raises:
        ConfigError: the proxy has no upstream that a variable names.
    """
    router = Router(upstreams)
    by_name = {upstream.name: upstream for upstream in router.upstreams}
    by_place = {name_of(upstream.url): upstream for upstream in router.upstreams}
    first: dict[str, Upstream] = {}
    bare: set[str] = set()
    """Dialects whose base URL has no version: its clients send none, and the upstream expects none."""
    found: dict[str, str] = {}
    problems: list[str] = []
    for variable in sorted(VARIABLES, key=lambda each: each.name not in given.urls):  # set ones first, else in order
        upstream, is_bare = first.get(variable.dialect), variable.dialect in bare
        if variable.name in given.urls:
            url = given.urls[variable.name]
            upstream = by_place.get(name_of(url))
            if upstream is None:
                problems.append(
                    f"{variable.name} is {url}, which is none of the proxy's upstreams: {', '.join(by_name)}"
                )
                continue
            is_bare = _VERSION.search(urlsplit(url).path) is None
            if variable.is_set_always and variable.dialect not in first:
                first[variable.dialect] = upstream
                if is_bare:
                    bare.add(variable.dialect)
        elif variable.name in given.named:
            upstream = by_name.get(given.named[variable.name])
        elif not variable.is_set_always and variable.name not in given.own:
            continue
        form = "" if is_bare else variable.form
        found[variable.name] = address + _prefix(router, variable.dialect, upstream) + form
    if problems:
        raise ConfigError(
            problems,
            hint="Nothing was started, and nothing was sent. Name the upstream with --upstream (or in kdproxy.toml; a "
            "proxy that runs reads it at its start), or unset the variable.",
        )
    return found


def _prefix(router: Router, dialect: str, upstream: Upstream | None) -> str:
    """Return what a path needs in front, so that it goes to an upstream."""
    if upstream is None:
        return ""
    try:
        routed = router.route(_SAMPLE_PATHS[dialect], speaks_anthropic=dialect == "anthropic").upstream
    except RequestRefused:
        return PREFIX + upstream.name
    return "" if routed.name == upstream.name else PREFIX + upstream.name


def leads_elsewhere(environment: Mapping[str, str]) -> list[str]:
    """Return variables that make a client ignore its base URL."""
    return [name for name in _ELSEWHERE if environment.get(name, "").strip().lower() not in ("", "0", "false")]


def without_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what keeps clients from calling a loopback port through HTTP_PROXY; {}: nothing is needed."""
    if not any(environment.get(name) for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")):
        return {}
    known = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    listed = [part.strip() for part in known.split(",") if part.strip()]
    listed += [host for host in ("127.0.0.1", "localhost") if host not in listed and "*" not in listed]
    return {"NO_PROXY": ",".join(listed), "no_proxy": ",".join(listed)}
