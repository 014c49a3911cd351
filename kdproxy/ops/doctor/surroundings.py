"""The environment of this shell: web proxies, and base URLs that lead past the proxy. Prints no credential."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from kdproxy.core.models import Upstream
from kdproxy.core.routing import name_of
from kdproxy.ops.doctor.check import Checks, note, ok, problem
from kdproxy.upstream.environment import EnvironmentProxy

_LOCAL = ("127.0.0.1", "localhost", "::1")


class BaseUrls(NamedTuple):
    """What the variables hold from which clients read a base URL."""

    elsewhere: Mapping[str, str]
    """Variable to URL: those that do not lead to a proxy of ours."""
    ours: Sequence[str]
    """Variables that lead to it."""
    ignored_by: Sequence[str]
    """Variables that make a client ignore its base URL."""


def check_base_urls(urls: BaseUrls, upstreams: Sequence[Upstream], *, address: str | None) -> Checks:
    """Check whether scripts of this shell reach the proxy.

    Args:
        address: of the proxy that serves the directory; None: none does. `kdproxy run` sets the variables itself and
            takes what they hold for the teacher, so a teacher's URL is right for it.
    """
    places = {name_of(upstream.url) for upstream in upstreams}
    for name, url in urls.elsewhere.items():
        is_meant = name_of(url) in places or (urlsplit(url).hostname or "") in _LOCAL
        if address is None:
            yield note("base URLs", f"{name} is {url}: scripts call it directly, except within `kdproxy run`.")
            continue
        text = f"{name} is {url}, not the proxy at {address}: calls of scripts in this shell are paid each time."
        if is_meant:
            yield problem("base URLs", text, f"export {name}={address}/..., as `kdproxy serve` printed it.")
        else:
            yield note("base URLs", text, "Right if these calls are not to be cached.")
    if address is None and urls.ours:
        yield note(
            "base URLs",
            f"{', '.join(urls.ours)} leads to a proxy, and none serves this data directory: calls fail, at no cost.",
            "Start it (kdproxy serve), or use `kdproxy run`.",
        )
    if urls.ignored_by:
        yield note("base URLs", f"{', '.join(urls.ignored_by)} is set: that client ignores its base URL.", "Unset it.")
    if address is not None and urls.ours:
        yield ok("base URLs", f"{', '.join(urls.ours)} leads to the proxy")


def check_web_proxies(
    environment: EnvironmentProxy, urls: Sequence[str], *, is_used: bool, has_base_url: bool
) -> Checks:
    """Check HTTP_PROXY, HTTPS_PROXY and NO_PROXY.

    Args:
        urls: of the upstreams.
        is_used: whether the proxy's own calls obey them.
        has_base_url: whether clients of this shell call a proxy of ours.
    """
    if (way := environment.shown("http://127.0.0.1:8400")) is not None:
        text = f"Clients call 127.0.0.1 through the web proxy {way}, which cannot reach kdproxy on this machine."
        hint = "export NO_PROXY=127.0.0.1,localhost (`kdproxy run` does it by itself)."
        yield (problem if has_base_url else note)("web proxies", text, hint)
    ways = {way: url for url in urls if (way := environment.shown(url)) is not None}
    for way, url in ways.items():
        if is_used:
            yield ok("web proxies", f"calls to {url} go through {way}")
        else:
            yield note(
                "web proxies",
                f"The environment names the web proxy {way} for {url}; kdproxy calls it directly.",
                "If it cannot be reached directly: use_environment_proxy = true in kdproxy.toml.",
            )
