"""From a request to a question: which endpoint, which key, what form; or why it is none."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from kdproxy.core import canonical, key, multipart
from kdproxy.core.models import Form, Headers, Question, Turn
from kdproxy.core.multipart import Part
from kdproxy.providers import anthropic, gemini, media, openai, responses
from kdproxy.providers.base import (
    Ask,
    Broken,
    Complete,
    Endpoint,
    Facts,
    Judgement,
    NotAQuestion,
    has_error,
    json_object,
    no_stream,
)

# `/chat/completions` also ends in `/completions`: the first match wins.
ENDPOINTS: tuple[Endpoint, ...] = (
    *openai.ENDPOINTS,
    *media.ENDPOINTS,
    *responses.ENDPOINTS,
    *anthropic.ENDPOINTS,
    *gemini.ENDPOINTS,
)


def _judge_models(body: bytes) -> Judgement:
    members = json_object(body)
    return Broken("not a list of models") if members is None or has_error(members) else Complete()


MODELS = Endpoint(
    provider="generic",
    name="models",
    path=re.compile(r"/models(?:/[^:]+)?$"),
    read=lambda ask: Facts(form=Form.JSON, model=None),
    judge=_judge_models,
    judge_stream=no_stream,
)
"""A GET, so not a question to buy an answer to: its last answer is kept for replay alone."""


class Match(NamedTuple):
    """How a recorded prompt finds a question."""

    model: str = ""
    turns: tuple[Turn, ...] = ()
    """The conversation; empty where only an exact entry may answer."""

    @property
    def match_key(self) -> str | None:
        """SHA-256 of model and conversation; None where only an exact entry may answer."""
        return key.match_key(self.model, self.turns) if self.turns else None

    @property
    def prompt_hash(self) -> str | None:
        """SHA-256 of the prompt's text alone, whatever system text stands before it, where the question is one text."""
        asked = [turn for turn in self.turns if turn.role != "system"]
        return key.prompt_hash(asked[0].text) if len(asked) == 1 and asked[0].role == "user" else None


_BY_NAME = {(endpoint.provider, endpoint.name): endpoint for endpoint in (*ENDPOINTS, MODELS)}


def endpoint_of(method: str, path: str) -> Endpoint | None:
    """Return the cacheable endpoint at a path, matched by its end, or None."""
    if method != "POST":
        return None
    for endpoint in ENDPOINTS:
        if endpoint.path.search(path):
            return endpoint
    return None


def endpoint_named(provider: str, name: str) -> Endpoint:
    """Return an endpoint by its names."""
    return _BY_NAME[provider, name]


def read(
    endpoint: Endpoint,
    *,
    upstream: str,
    path: str,
    query: str,
    headers: Headers,
    body: bytes,
    allow_hosted_tools: bool = False,
) -> Question | NotAQuestion:
    """Read a request to a cacheable endpoint.

    Args:
        path: as routed, percent-encoded.
        query: raw.
        body: as it came.
    """
    content: bytes
    if endpoint.takes_form:
        parts = multipart.parse(body, headers.get("Content-Type", ""))
        if parts is None:
            return NotAQuestion("not a well-formed multipart form")
        members: dict[str, Any] = _fields(parts)
        content = key.form_body(parts, out_of_key=endpoint.out_of_key)
    else:
        if "Content-Encoding" in headers:
            return NotAQuestion("a coded body")
        try:
            value = canonical.parse(body)
            if not isinstance(value, dict):
                return NotAQuestion("not a JSON object")
            members = value
            content = key.json_body(members, out_of_key=endpoint.out_of_key)
        except canonical.NotCanonical as error:
            return NotAQuestion(str(error))
    facts = endpoint.read(Ask(path=path, query=query, members=members))
    if isinstance(facts, NotAQuestion):
        if not (allow_hosted_tools and facts.reason.startswith("hosted tool")):
            return facts
        if _has_credential(members):
            return NotAQuestion("a credential for a tool in the body, which would be stored with it")
        without = {name: member for name, member in members.items() if name not in _HOSTED_MEMBERS}
        facts = endpoint.read(Ask(path=path, query=query, members=without))
        if isinstance(facts, NotAQuestion):
            return facts
    key_path, key_query = (path, query) if endpoint.key_path is None else endpoint.key_path(path, query)
    return Question(
        key=key.request_key(
            upstream=upstream,
            method="POST",
            path=key_path,
            query=key.canonical_query(key_query),
            headers=headers,
            body=content,
        ),
        form=facts.form,
        provider=endpoint.provider,
        endpoint=endpoint.name,
        model=facts.model,
        is_sampled=facts.is_sampled,
        choices=facts.choices,
        wants_stream_usage=facts.wants_stream_usage,
        stream_options=facts.stream_options,
        previous_response_id=facts.previous_response_id,
    )


def model_of(path: str, members: Mapping[str, Any] | None) -> str | None:
    """Return the model that a call names which is no question: whose limits it counts against."""
    named = gemini.model_in(path)
    if named is not None:
        return named
    model = None if members is None else members.get("model")
    return model if isinstance(model, str) else None


def match(question: Question, *, path: str, query: str, members: Mapping[str, Any] | None) -> Match:
    """Read what a recorded prompt may answer a question by. Only a miss asks for it."""
    endpoint = endpoint_named(question.provider, question.endpoint)
    if endpoint.takes_form or question.model is None or members is None:
        return Match()
    return Match(model=question.model, turns=endpoint.turns(Ask(path=path, query=query, members=members)) or ())


def _has_credential(members: Mapping[str, Any]) -> bool:
    """Whether an MCP server is called with somebody's credential."""
    holders = [
        item for name in ("tools", "mcp_servers") if isinstance(members.get(name), list) for item in members[name]
    ]
    return any(
        isinstance(item, dict) and any(item.get(name) for name in ("authorization", "headers", "authorization_token"))
        for item in holders
    )


_HOSTED_MEMBERS = frozenset({"tools", "web_search_options", "mcp_servers", "container"})


def _fields(parts: tuple[Part, ...]) -> dict[str, Any]:
    return {part.name: part.content.decode("utf-8", "replace") for part in parts if part.filename is None}
