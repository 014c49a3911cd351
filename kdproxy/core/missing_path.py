"""Whether a 404 or 405 says that there is no such path, and not that a model or object is unknown. Pure.

A server that knows the endpoint names what it misses, in its API's own error. Web frameworks and gateways answer for a
path that nobody handles, in words of their own; read on 2026-11-30: FastAPI (vLLM, SGLang) `{"detail":"Not Found"}`,
llama.cpp `File Not Found`, Go (Ollama) `404 page not found`, Express `Cannot POST /x`, Kong `no Route matched with
those values`, Azure `Resource not found`, nginx and Google an HTML page.
"""

import re
from typing import Any

import orjson

from kdproxy.core.sniff import is_html

STATUSES = frozenset({404, 405})
_LONGEST_WORDS = 120
_WORDS = re.compile(
    r"(?:40[45][ :]*)?(?:(?:file|page|resource|route|path|url|endpoint)? ?not[ _]found|method[ _]not[ _]allowed"
    r"|no route matched with those values|cannot (?:get|post) \S+)[.!]?",
    re.IGNORECASE,
)


def missing_path(status: int, body: bytes) -> str | None:
    """Return a server's words for a path that nobody handles; None: it says something else, or another status."""
    if status not in STATUSES:
        return None
    if is_html(body):
        return "a web page"
    text = body.strip()
    if not text:
        return "an empty answer"
    try:
        said = _said(orjson.loads(text))
    except orjson.JSONDecodeError:
        said = text.decode("utf-8", "replace")
    if said is None or len(said) > _LONGEST_WORDS or _WORDS.fullmatch(said.strip()) is None:
        return None
    return f'"{said.strip()}"'


def _said(members: Any) -> str | None:
    """Return the one text of an error; None where there is none, or it has members that say more."""
    if isinstance(members, str):
        return members
    if not isinstance(members, dict):
        return None
    found = next((members[name] for name in ("error", "detail", "message", "msg") if name in members), None)
    return _said(found) if isinstance(found, dict | str) else None
