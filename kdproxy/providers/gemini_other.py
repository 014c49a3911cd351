"""Gemini's vectors, counts and interactions (API reference v1beta and google-genai 3.6.1, read 2026-11-30)."""

import re

from kdproxy.core.models import Form
from kdproxy.providers import members_gemini
from kdproxy.providers.base import Ask, Endpoint, Facts, NotAQuestion, is_sampled, no_stream, suffix
from kdproxy.providers.gemini import PROVIDER
from kdproxy.providers.judge_interaction import INTERACTION_EVENTS, judge_interaction
from kdproxy.providers.judge_rows import judge_count, judge_list
from kdproxy.providers.judge_scores import judge_embedding
from kdproxy.providers.judge_status import status_stream
from kdproxy.providers.openai import text_member


def _method(name: str) -> re.Pattern[str]:
    return re.compile(rf"/(?:models|tunedModels)/([^/:]+):{name}$")


def _read_method(ask: Ask) -> Facts | NotAQuestion:
    model = ask.path.rpartition("/")[2].partition(":")[0]
    requests = ask.members.get("requests")
    return Facts(form=Form.JSON, model=model, choices=len(requests) if isinstance(requests, list) else 1)


def _read_interaction(ask: Ask) -> Facts | NotAQuestion:
    members = ask.members
    stream = members.get("stream")
    if not isinstance(stream, bool | None) or not isinstance(members.get("tools"), list | None):
        return NotAQuestion("stream or tools has the wrong type")
    if members.get("store") is not False:
        return NotAQuestion("store is not false: the provider keeps the interaction, so that it can be continued")
    config = members.get("generation_config")
    return Facts(
        form=Form.SSE if stream else Form.JSON,
        model=text_member(members, "model"),
        is_sampled=is_sampled(config if isinstance(config, dict) else {}),
    )


ENDPOINTS = (
    Endpoint(
        provider=PROVIDER,
        name="embedContent",
        path=_method("embedContent"),
        read=_read_method,
        judge=judge_embedding,
        judge_stream=no_stream,
        members=members_gemini.METHODS,
    ),
    Endpoint(
        provider=PROVIDER,
        name="batchEmbedContents",
        path=_method("batchEmbedContents"),
        read=_read_method,
        judge=judge_list("embeddings", "values", holds_vectors=True),
        judge_stream=no_stream,
        members=members_gemini.METHODS,
    ),
    Endpoint(
        provider=PROVIDER,
        name="countTokens",
        path=_method("countTokens"),
        read=_read_method,
        judge=judge_count("totalTokens"),
        judge_stream=no_stream,
        members=members_gemini.METHODS,
    ),
    Endpoint(
        provider=PROVIDER,
        name="interactions",
        path=suffix("/interactions"),
        read=_read_interaction,
        judge=judge_interaction,
        judge_stream=status_stream(INTERACTION_EVENTS),
        members=members_gemini.INTERACTIONS,
    ),
)
