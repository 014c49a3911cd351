"""Turns a request into a question (endpoint, key, form), or says why it is not cacheable."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from kdproxy.core import canonical, ignore, key, key_v1, multipart, position
from kdproxy.core.models import Form, HeaderPairs, Headers, Question, Upstream
from kdproxy.core.multipart import Part
from kdproxy.providers import anthropic, gemini, gemini_other, media, openai, responses, scoring
from kdproxy.providers.base import (
    ONE_ANSWER,
    Ask,
    Broken,
    Complete,
    Criteria,
    Endpoint,
    Facts,
    Judgement,
    NotAQuestion,
    json_object,
    no_stream,
)
from kdproxy.providers.ending import error_in

# `/chat/completions` also ends in `/completions`: the first match wins.
ENDPOINTS: tuple[Endpoint, ...] = (
    *openai.ENDPOINTS,
    *media.ENDPOINTS,
    *responses.ENDPOINTS,
    *scoring.ENDPOINTS,
    *anthropic.ENDPOINTS,
    *gemini.ENDPOINTS,
    *gemini_other.ENDPOINTS,
)


def _judge_models(body: bytes, criteria: Criteria = ONE_ANSWER) -> Judgement:
    members = json_object(body)
    return Broken("it is not a list of models") if members is None or error_in(members) is not None else Complete()


MODELS = Endpoint(
    provider="generic",
    name="models",
    path=re.compile(r"/models(?:/[^:]+)?$"),
    read=lambda ask: Facts(form=Form.JSON, model=None),
    judge=_judge_models,
    judge_stream=no_stream,
)
"""A GET, so nothing is bought: its last answer is kept for replay only."""


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


class Asking(NamedTuple):
    """A request to a cacheable endpoint, unchanged: everything that its key depends on."""

    upstream: Upstream
    path: str
    """As routed, percent-encoded."""
    query: str
    """Raw."""
    headers: Headers
    body: bytes
    keyed_headers: HeaderPairs | None = None
    """The result of `key.header_values`, if it is already known."""


Content = tuple[dict[str, Any], tuple[Part, ...] | None]
"""The members of a body as `canonical.parse` reads them, or a form's text fields and its parts."""


def read(endpoint: Endpoint, asking: Asking, *, allow_hosted_tools: bool = False) -> Question | NotAQuestion:
    """Read a request to a cacheable endpoint."""
    found = content(endpoint, asking)
    return found if isinstance(found, NotAQuestion) else read_content(endpoint, asking, found, allow_hosted_tools)


def read_content(
    endpoint: Endpoint, asking: Asking, found: Content, allow_hosted_tools: bool = False
) -> Question | NotAQuestion:
    """Read a request whose body has been parsed."""
    members, parts = found
    facts = endpoint.read(Ask(path=asking.path, query=asking.query, members=members))
    if isinstance(facts, NotAQuestion):
        return facts
    reason = endpoint.members.not_pure(members, allow_hosted_tools=allow_hosted_tools)
    if reason is not None:
        return NotAQuestion(reason)
    path, query = _keyed_place(endpoint, asking)
    ignored: tuple[str, ...] = ()
    try:
        if parts is None:
            keyed = members
            if asking.upstream.ignore:
                keyed, ignored = ignore.applied(members, asking.upstream.ignore)
            body = key.json_body(keyed, out=endpoint.members.out)
        else:
            body = key.form_body(parts, out_of_key=endpoint.members.out_fields)
    except canonical.NotCanonical as error:
        return NotAQuestion(str(error))
    values = asking.keyed_headers
    if values is None:
        values = key.header_values(asking.headers, asking.upstream.key_headers)
    store = members.get("store")
    return Question(
        key=key.key_of(upstream=asking.upstream.name, method="POST", path=path, query=query, values=values, body=body),
        form=facts.form,
        provider=endpoint.provider,
        endpoint=endpoint.name,
        model=facts.model,
        is_sampled=facts.is_sampled,
        choices=facts.choices,
        wants_stream_usage=facts.wants_stream_usage,
        stream_options=facts.stream_options,
        previous_response_id=facts.previous_response_id,
        ignored=ignored,
        wants_copy=store if isinstance(store, bool) else (True if endpoint.stores_unasked else None),
    )


def v1_key(endpoint: Endpoint, asking: Asking) -> str | None:
    """Return a request's key of version 1; None if that key left out what should be in it."""
    out_of_key = key_v1.OUT_OF_KEY.get((endpoint.provider, endpoint.name))
    if out_of_key is None or key.has_routing(asking.headers, asking.upstream.key_headers):
        return None
    found = content(endpoint, asking)
    if isinstance(found, NotAQuestion):
        return None
    members, parts = found
    path, query = _keyed_place(endpoint, asking)
    if parts is None:
        body = key.json_body(members, out=_v1_positions(out_of_key))
    else:
        body = key.form_body(parts, out_of_key=out_of_key)
    return key_v1.request_key(
        upstream=asking.upstream.name, method="POST", path=path, query=query, headers=asking.headers, body=body
    )


_v1_positions = lru_cache(position.tree)


def content(endpoint: Endpoint, asking: Asking) -> Content | NotAQuestion:
    """Return the members of a body, and its parts if it is a form."""
    if endpoint.takes_form:
        parts = multipart.parse(asking.body, asking.headers.get("Content-Type", ""))
        return NotAQuestion("not a well-formed multipart form") if parts is None else (_fields(parts), parts)
    if "Content-Encoding" in asking.headers:
        return NotAQuestion("a coded body")
    try:
        value = canonical.parse(asking.body)
    except canonical.NotCanonical as error:
        return NotAQuestion(str(error))
    return (value, None) if isinstance(value, dict) else NotAQuestion("not a JSON object")


def _keyed_place(endpoint: Endpoint, asking: Asking) -> tuple[str, str]:
    """Return path and canonical query as they are in the key."""
    path, query = asking.path, asking.query
    if endpoint.key_path is not None:
        path, query = endpoint.key_path(path, query)
    return path, key.canonical_query(query) if query else ""


def model_of(path: str, members: Mapping[str, Any] | None) -> str | None:
    """Return the model that an uncacheable call names, against whose limits it counts."""
    named = gemini.model_in(path)
    if named is not None:
        return named
    model = None if members is None else members.get("model")
    return model if isinstance(model, str) else None


def _fields(parts: tuple[Part, ...]) -> dict[str, Any]:
    return {part.name: part.content.decode("utf-8", "replace") for part in parts if part.filename is None}
