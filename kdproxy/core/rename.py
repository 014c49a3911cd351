"""Finds stored answers whose upstream has been renamed: the name is in the key, so none of them would be found.

An upstream without a configured name is named by its host and port, so `localhost` and `127.0.0.1` differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from kdproxy.core.models import Upstream

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Renamed:
    """A name with stored answers, and the configured upstream that is most likely the same server."""

    name: str
    url: str | None
    """The name's URL when the answers were bought; None: not recorded."""
    answers: int
    upstream: Upstream | None
    """None: several upstreams are possible."""


def renamed(answers: Mapping[str, int], remembered: Mapping[str, str], upstreams: Sequence[Upstream]) -> list[Renamed]:
    """Return the names whose answers no request would find, most answers first.

    If no configured upstream has an answer: all names. Otherwise only those that are certainly the same server: the
    same host (all names of this machine count as one), port and path, while the present name has fewer answers.

    Args:
        answers: stored answers by upstream name.
        remembered: name to URL, from the data directory.
        upstreams: the configured upstreams.
    """
    configured = {upstream.name for upstream in upstreams}
    others = {name: count for name, count in answers.items() if count > 0 and name not in configured}
    is_any_found = any(answers.get(name, 0) > 0 for name in configured)
    found = []
    for name, count in sorted(others.items(), key=lambda each: (-each[1], each[0])):
        url = remembered.get(name)
        same = None if url is None else next((each for each in upstreams if _server(each.url) == _server(url)), None)
        if is_any_found:
            if same is not None and answers.get(same.name, 0) < count:
                found.append(Renamed(name=name, url=url, answers=count, upstream=same))
            continue
        likely = same or _alike(url, upstreams) or (upstreams[0] if len(upstreams) == len(others) == 1 else None)
        found.append(Renamed(name=name, url=url, answers=count, upstream=likely))
    return found


def _alike(url: str | None, upstreams: Sequence[Upstream]) -> Upstream | None:
    """Return the one upstream at the same host, on another port or path."""
    if url is None:
        return None
    alike = [each for each in upstreams if _server(each.url)[0] == _server(url)[0]]
    return alike[0] if len(alike) == 1 else None


def _server(url: str) -> tuple[str, int, str]:
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return ("localhost" if host in _LOOPBACK else host, port, parts.path.rstrip("/"))
