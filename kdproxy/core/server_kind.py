"""Recognises an inference server by what its own routes answer, never by its address. Pure.

An address proves nothing, since gateways to paid APIs are local too; nor does `Server: uvicorn`, which most gateways
send. Evidence is the server's own name: in a header, as the owner of every model, or on a route that only it has. If
two pieces of evidence disagree, or a model has another owner, the server is a gateway and is not recognised.
Read on 2026-11-30: vllm/entrypoints/openai (models: owned_by `vllm`; /metrics: `vllm:`),
sglang/srt/entrypoints (owned_by `sglang`; /get_model_info: `model_path`), llama.cpp tools/server (`Server: llama.cpp`,
owned_by `llamacpp`; /props: `total_slots`), ollama/server/routes.go (owned_by `library`; `Ollama is running`).
"""

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import orjson

from kdproxy.core.models import Headers, Upstream
from kdproxy.core.routing import join


class ServerKind(StrEnum):
    """A self-hosted inference server."""

    VLLM = "vllm"
    SGLANG = "sglang"
    LLAMA_CPP = "llama.cpp"
    OLLAMA = "ollama"

    @property
    def is_batching(self) -> bool:
        """Whether it batches as many requests as its memory holds, so more callers raise its total throughput."""
        return self in (ServerKind.VLLM, ServerKind.SGLANG)


class Recognition(NamedTuple):
    """What is known about a server."""

    kind: ServerKind
    slots: int | None = None
    """How many requests it runs concurrently, if it says so (llama.cpp: `total_slots`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One answer to a GET."""

    path: str
    status: int
    headers: Headers
    body: bytes


MODELS_PATH = "/models"
"""The OpenAI dialect's list of models, below the upstream's version segment."""

QUESTIONS = ("/props", "/metrics", "/get_model_info", "/")
"""Requested below the server's root, after the models, until one identifies the server."""

_OWNERS = {
    "vllm": ServerKind.VLLM,
    "sglang": ServerKind.SGLANG,
    "llamacpp": ServerKind.LLAMA_CPP,
    "library": ServerKind.OLLAMA,
}
_LOCAL_ENDS = (".local", ".localhost", ".internal", ".lan", ".home.arpa", ".svc", ".test")


def recognise(found: Iterable[Evidence]) -> Recognition | None:
    """Return the server that all evidence names; None if there is no evidence, or two pieces disagree."""
    kinds: set[ServerKind] = set()
    slots = None
    for evidence in found:
        owners = _owners(evidence)
        if owners is not None and not owners <= set(_OWNERS):
            return None  # a model of another owner: a gateway
        kinds |= {_OWNERS[owner] for owner in owners or ()} | _named(evidence)
        slots = _slots(evidence) or slots
    if len(kinds) != 1:
        return None
    (kind,) = kinds
    return Recognition(kind, slots if kind is ServerKind.LLAMA_CPP else None)


def is_free(found: Recognition | None, upstream: Upstream, model: str | None) -> bool:
    """Whether a call costs nothing, judged by the server alone.

    A recognised server at a public host may be part of a paid API, and Ollama's `cloud` models run at Ollama: both
    count as billed until the configuration says otherwise.
    """
    if found is None or is_public(upstream.url):
        return False
    return not (found.kind is ServerKind.OLLAMA and (model or "").endswith("cloud"))


def is_public(url: str) -> bool:
    """Whether a URL's host is public: a public address, or a name with a public suffix."""
    host = (urlsplit(url).hostname or "").rstrip(".").lower()
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return "." in host and not host.endswith(_LOCAL_ENDS)


def urls(upstream: Upstream) -> tuple[tuple[str, str], ...]:
    """Return the requests to make: the path for `Evidence`, and the URL."""
    models = models_url(upstream)
    end = f"/v1{MODELS_PATH}"
    root = models.removesuffix(end) if models.endswith(end) else upstream.url.rstrip("/")
    return ((MODELS_PATH, models), *((path, root + path) for path in QUESTIONS))


def models_url(upstream: Upstream) -> str:
    """Return where an upstream lists its models."""
    parts = urlsplit(upstream.url)
    return f"{parts.scheme}://{parts.netloc}{join(parts.path, f'/v1{MODELS_PATH}')[0]}"


def _named(evidence: Evidence) -> set[ServerKind]:
    """Return the servers that this answer alone names."""
    kinds = set()
    server = evidence.headers.get("server", "").lower()
    if server.startswith("llama.cpp"):
        kinds.add(ServerKind.LLAMA_CPP)
    if evidence.status == 200:
        kinds |= {kind for path, speaks, kind in _ROUTES if path == evidence.path and speaks(evidence.body)}
    return kinds


def _owners(evidence: Evidence) -> set[str] | None:
    """Return the owners of the models in a list; None if it is not a list of models."""
    members = _members(evidence.body) if evidence.path == MODELS_PATH and evidence.status == 200 else {}
    rows = members.get("data")
    if not isinstance(rows, list):
        return None
    # LoRA adapters are owned by the server too; Ollama names the publisher of a model, `library` for its own.
    owners = {str(row.get("owned_by", "")) if isinstance(row, dict) else "" for row in rows}
    return {"library"} if "library" in owners and not owners & _FOREIGN_TO_OLLAMA else owners


_FOREIGN_TO_OLLAMA = frozenset({"", "openai", "anthropic", "google", "system", "openai-internal", "vllm", "sglang"})


def _slots(evidence: Evidence) -> int | None:
    found = _members(evidence.body).get("total_slots") if evidence.path == "/props" else None
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else None


def _members(body: bytes) -> dict[str, Any]:
    try:
        members = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return members if isinstance(members, dict) else {}


def _is_props(body: bytes) -> bool:
    members = _members(body)
    return isinstance(members.get("total_slots"), int) and "default_generation_settings" in members


_ROUTES: tuple[tuple[str, Callable[[bytes], bool], ServerKind], ...] = (
    ("/props", _is_props, ServerKind.LLAMA_CPP),
    ("/metrics", lambda body: b"\nvllm:" in body, ServerKind.VLLM),
    ("/metrics", lambda body: b"\nsglang:" in body, ServerKind.SGLANG),
    ("/metrics", lambda body: b"\nllamacpp:" in body, ServerKind.LLAMA_CPP),
    ("/get_model_info", lambda body: "model_path" in _members(body), ServerKind.SGLANG),
    ("/", lambda body: body.strip() == b"Ollama is running", ServerKind.OLLAMA),
)
