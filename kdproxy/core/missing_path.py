"""Whether a 404 or 405 means that the path does not exist, and not that a model or object is unknown. Pure.

A server that has the endpoint names the missing thing, in its API's error format. For a path without a handler, web
frameworks and gateways answer in their own words; read on 2026-11-30: FastAPI (vLLM, SGLang) `{"detail":"Not Found"}`,
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
    """Return the server's words for a path without a handler; None for any other words or status."""
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
    """Return the only text of an error; None if there is no text, or if other members say more."""
    if isinstance(members, str):
        return members
    if not isinstance(members, dict):
        return None
    found = next((members[name] for name in ("error", "detail", "message", "msg") if name in members), None)
    return _said(found) if isinstance(found, dict | str) else None
