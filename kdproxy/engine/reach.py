"""The start check: does an upstream answer? A GET of its models, at no cost, and one line that says what came.

Any answer of the server counts as reached: 401, 403 and 404 too, since a key comes with a request and not every server
lists its models. After a 404 it tries the usual paths, to name the one that was meant. Event loop only.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from urllib.parse import urlsplit

import orjson

from kdproxy.core.models import HeaderPairs, Upstream
from kdproxy.core.ports import UpstreamClient, UpstreamRequest
from kdproxy.core.server_kind import models_url
from kdproxy.core.sniff import is_html
from kdproxy.engine.ledger import Ledger
from kdproxy.errors import KdproxyError, UpstreamFailed
from kdproxy.providers.rules import rules_of

CHECK_SECONDS = 15.0
_LARGEST_ANSWER = 4 << 20
_USUAL_PATHS = ("/v1", "/api/v1", "/openai/v1")
"""Where the OpenAI dialect is served: most; OpenRouter; Groq and Azure."""
_WANTS_KEY = frozenset({401, 403})
_LOOP = 508


class Reach(Enum):
    """What a start check found."""

    REACHED = auto()
    AWAY = auto()
    """It may come by itself: a server that starts, a network that is away."""
    MISTAKE = auto()
    """Waiting does not fix it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One upstream, and what to say of it."""

    upstream: Upstream
    reach: Reach
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartCheck:
    """How to check one upstream."""

    upstream: Upstream
    credentials: Sequence[HeaderPairs] = ()
    """Headers with each of the keys that are configured for it; none: it is asked without a key."""
    marks: HeaderPairs = ()
    """By which this proxy knows its own requests."""
    fails_fast: bool = False


def credential_headers(upstream: Upstream, key: str) -> HeaderPairs:
    """Return the headers that carry a key, as the official clients of that API send it."""
    match rules_of(upstream).name:
        case "anthropic":
            return (("x-api-key", key), ("anthropic-version", "2023-06-01"))
        case "gemini":
            return (("x-goog-api-key", key),)
        case "azure":
            return (("api-key", key),)
        case _:
            return (("Authorization", f"Bearer {key}"),)


async def check_upstream(client: UpstreamClient, ledger: Ledger, wanted: StartCheck) -> Finding:
    """Return what was found; raises nothing but a cancellation."""
    upstream = wanted.upstream
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            reach, text = await _check(client, ledger, wanted)
    except TimeoutError:
        reach, text = Reach.AWAY, f"no answer within {CHECK_SECONDS:g} s; {_waits(wanted)}"
    except UpstreamFailed as error:
        if error.was_sent and await _speaks_tls(client, ledger, upstream):
            secure = "https" + upstream.url.removeprefix("http")
            text = f"speaks TLS, and its URL begins with http: every call to it breaks off. Take {secure}"
            return Finding(upstream=upstream, reach=Reach.MISTAKE, text=text)
        is_away = error.retryable and not error.was_sent
        reach = Reach.AWAY if error.retryable else Reach.MISTAKE
        text = f"not reached. {error.message} {_sentence(_waits(wanted)) if is_away else error.hint}"
    except KdproxyError as error:
        reach, text = Reach.AWAY, f"not checked. {error}"
    return Finding(upstream=upstream, reach=reach, text=text)


async def _speaks_tls(client: UpstreamClient, ledger: Ledger, upstream: Upstream) -> bool:
    """Whether a server that breaks off without TLS takes a handshake: asyncio's (uvicorn) closes without a word."""
    url = models_url(upstream)
    if not url.startswith("http:"):
        return False
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await _get(client, ledger, "https" + url.removeprefix("http"), ())
    except UpstreamFailed as error:
        return error.code == "upstream_untrusted"
    except (KdproxyError, TimeoutError):
        return False
    return True


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _waits(wanted: StartCheck) -> str:
    if wanted.fails_fast:
        return "requests fail at once until it answers (fail_fast)."
    return "requests are held until it answers (--fail-fast: they fail at once)."


async def _check(client: UpstreamClient, ledger: Ledger, wanted: StartCheck) -> tuple[Reach, str]:
    refused = []
    status, body = 0, b""
    for number, credential in enumerate(wanted.credentials or ((),), 1):
        status, body = await _get(client, ledger, models_url(wanted.upstream), (*credential, *wanted.marks))
        if credential and status in _WANTS_KEY:
            refused.append(number)
    if refused:
        which = "the key" if len(wanted.credentials) == 1 else f"key {', '.join(map(str, refused))}"
        return Reach.MISTAKE, f"reached, and it refuses {which} of credential_env ({status}): check the variable."
    if status == _LOOP:
        return Reach.MISTAKE, "leads back to this proxy: give the teacher's own URL."
    if status in _WANTS_KEY:
        return Reach.REACHED, f"reached ({status} without a key, as it should be)"
    if status in (404, 405):
        return await _elsewhere(client, ledger, wanted, status)
    if status >= 500:
        return Reach.AWAY, f"answers {status}: it may be starting or loading a model; {_waits(wanted)}"
    if is_html(body):
        return (
            Reach.MISTAKE,
            "answers with a web page, not with a list of models: check that this is the URL of an API.",
        )
    models = _models(body)
    return Reach.REACHED, "reached" if models is None else f"reached, {models} model{'' if models == 1 else 's'}"


async def _elsewhere(client: UpstreamClient, ledger: Ledger, wanted: StartCheck, status: int) -> tuple[Reach, str]:
    """Try the usual paths for the list of models: the upstream's path may be mistyped."""
    parts = urlsplit(wanted.upstream.url)
    for path in _USUAL_PATHS:
        base = f"{parts.scheme}://{parts.netloc}{path}"
        url = f"{base}/models"
        if url == models_url(wanted.upstream):
            continue
        found, body = await _get(client, ledger, url, wanted.marks)
        if (found == 200 and _models(body) is not None) or found in _WANTS_KEY:
            return Reach.MISTAKE, f"wrong path: it has no {parts.path or '/v1'}/models, and {url} is there. Take {base}"
    return Reach.REACHED, f"reached ({status} for the list of models; if questions get it too, check the path)"


async def _get(client: UpstreamClient, ledger: Ledger, url: str, headers: HeaderPairs) -> tuple[int, bytes]:
    ledger.probed()
    response = await client.send(UpstreamRequest(method="GET", url=url, headers=headers, body=b""))
    try:
        return response.status, await response.read(_LARGEST_ANSWER)
    finally:
        response.close()


def _models(body: bytes) -> int | None:
    """Return how many models a list has; None: it is none."""
    try:
        members = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    rows = members if isinstance(members, list) else None
    if isinstance(members, dict):
        rows = members.get("data", members.get("models"))
    return len(rows) if isinstance(rows, list) else None
