"""What `kdproxy serve` says once it listens: where, which upstreams, whose keys go where, and what to export."""

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
        click.echo("Nothing goes to an upstream: what is not stored is refused.", err=True)
    elif not upstreams:
        named = ", ".join(f"{upstream.name} ({upstream.url})" for upstream in BUILT_IN)
        click.echo(f"Upstreams, told by the path of a request: {named}.", err=True)
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
    """Say which API keys go where."""
    upstreams = settings.upstream_models()
    if settings.token is None:
        if not upstreams:
            return ["Your API keys stay as they are: each passes through to the provider that its request is for."]
        if len(upstreams) == 1:
            return [f"The API key of a request passes through to {_named(upstreams[0])}, and to nobody else."]
        return [
            "The API key of a request passes through to the upstream that the request names, and to nobody else: "
            + ", ".join(map(_named, upstreams))
        ]
    told = ["Give the proxy's token as the API key; the proxy puts the upstream's own in its place."]
    if upstreams:
        told += [
            f"No API key will be sent to {_named(upstream)}: set credential_env for it if it wants one."
            for upstream in upstreams
            if upstream.name not in settings.credentials
        ]
    elif without := [upstream.name for upstream in BUILT_IN if upstream.name not in settings.credentials]:
        variables = ", ".join(f"{name.upper()}_API_KEY" for name in without)
        told.append(f"No API key will be sent to {', '.join(without)} (not set: {variables}).")
    return told


def client_proxy() -> str | None:
    """Warn where a client with this environment would ask a web proxy for this one."""
    proxies = getproxies_environment()
    if not (proxies.get("http") or proxies.get("all")) or proxy_bypass_environment("127.0.0.1", proxies):
        return None
    return (
        "HTTP_PROXY is set: clients would look for this proxy behind that one, and fail. "
        "For them: export NO_PROXY=127.0.0.1,localhost"
    )


def told(finding: Finding, via: str | None, unused_proxy: str | None) -> str:
    """Return the line of an upstream.

    Args:
        via: the environment's proxy that the look went through.
        unused_proxy: the environment's proxy that it did not go through.
    """
    mark = "" if finding.reach is Reach.REACHED else "Warning: "
    way = "" if via is None else f" through the environment's proxy {via}"
    line = f"{mark}upstream {_named(finding.upstream)}{way}: {finding.text}"
    if finding.reach is not Reach.REACHED and unused_proxy is not None:
        line += f" The environment's proxy {unused_proxy} is not used: if it is the way out, set use_environment_proxy."
    return line


def _named(upstream: Upstream) -> str:
    return f"{upstream.name} ({upstream.url})"
