"""What `kdproxy serve` prints once it listens: address, upstreams, where API keys go, lines to export."""

from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

import click

from kdproxy.core.models import Upstream
from kdproxy.core.policy import Mode
from kdproxy.core.routing import BUILT_IN
from kdproxy.engine.reach import Finding, Reach
from kdproxy.settings import Settings


def greet(address: str, settings: Settings) -> None:
    """Print the lines to export on stdout, and the rest on stderr."""
    click.echo(f"kdproxy listens on {address}  (mode {settings.mode}, data in {settings.data_dir})", err=True)
    upstreams = settings.upstream_models()
    if settings.mode is Mode.REPLAY:
        click.echo("Replay: no request goes to an upstream; one without a stored answer is refused.", err=True)
    elif not upstreams:
        named = ", ".join(f"{upstream.name} ({upstream.url})" for upstream in BUILT_IN)
        click.echo(f"Upstreams, chosen by the path of the request: {named}.", err=True)
    if len(upstreams) > 1:
        click.echo("Several upstreams: put /upstreams/NAME before the path to choose one.", err=True)
        for upstream in upstreams:
            click.echo(f"export OPENAI_BASE_URL={address}/upstreams/{upstream.name}/v1  # {upstream.name}")
    else:
        click.echo(f"export OPENAI_BASE_URL={address}/v1")
        click.echo(f"export ANTHROPIC_BASE_URL={address}")
        click.echo(f"export GOOGLE_GEMINI_BASE_URL={address}")
    if settings.mode is not Mode.REPLAY:
        for line in keys(settings):
            click.echo(line, err=True)
    if (warning := client_proxy()) is not None:
        click.echo(warning, err=True)


def keys(settings: Settings) -> list[str]:
    """Return the lines that say which API key goes where."""
    upstreams = settings.upstream_models()
    if settings.token is None:
        if not upstreams:
            return ["Your API keys stay as they are: each passes through to the provider that the request is for."]
        if len(upstreams) == 1:
            return [f"The API key of a request passes through to {_named(upstreams[0])} and to no other server."]
        return [
            "The API key of a request passes through to the upstream that the request names and to no other server: "
            + ", ".join(map(_named, upstreams))
        ]
    found = ["Use the proxy's token as the API key; the proxy replaces it with the upstream's own key."]
    if upstreams:
        found += [
            f"No API key will be sent to {_named(upstream)}: set credential_env if it needs one."
            for upstream in upstreams
            if upstream.name not in settings.credentials
        ]
    elif without := [upstream.name for upstream in BUILT_IN if upstream.name not in settings.credentials]:
        variables = ", ".join(f"{name.upper()}_API_KEY" for name in without)
        found.append(f"No API key will be sent to {', '.join(without)} (not set: {variables}).")
    return found


def client_proxy() -> str | None:
    """Return a warning where a client with this environment would call this proxy through another one."""
    proxies = getproxies_environment()
    if not (proxies.get("http") or proxies.get("all")) or proxy_bypass_environment("127.0.0.1", proxies):
        return None
    return (
        "HTTP_PROXY is set: clients would send requests for kdproxy through that proxy, and fail. "
        "In their environment: export NO_PROXY=127.0.0.1,localhost"
    )


def check_line(finding: Finding, via: str | None, unused_proxy: str | None) -> str:
    """Return the line that says what the check of an upstream found.

    Args:
        via: the environment's proxy that the check went through.
        unused_proxy: the environment's proxy that the check did not go through.
    """
    mark = "" if finding.reach is Reach.REACHED else "Warning: "
    way = "" if via is None else f" through the environment's proxy {via}"
    line = f"{mark}upstream {_named(finding.upstream)}{way}: {finding.text}"
    if finding.reach is not Reach.REACHED and unused_proxy is not None:
        line += (
            f" The environment's proxy {unused_proxy} is not used: if calls must go through it, set "
            "use_environment_proxy."
        )
    return line


def _named(upstream: Upstream) -> str:
    return f"{upstream.name} ({upstream.url})"
