"""Self-hosted servers that rank, score, pool, classify and tokenize texts (docs.vllm.ai, online serving, read
2026-11-30; rerank of Cohere and Jina has the same format).
"""

import re
from typing import Any

from kdproxy.core.models import Form
from kdproxy.providers import members_openai
from kdproxy.providers.base import Ask, Endpoint, Facts, NotAQuestion, integer, no_stream
from kdproxy.providers.judge_scores import judge_scores, judge_tokens
from kdproxy.providers.openai import PROVIDER, inputs_of, text_member


def _read_rerank(ask: Ask) -> Facts | NotAQuestion:
    documents = ask.members.get("documents")
    rows = _length(documents)
    top = ask.members.get("top_n", ask.members.get("top_k"))
    if top is not None and rows is not None:
        # 0 means all, like an absent member
        rows = min(integer(top) or rows, rows)
    return _facts(ask, rows)


def _read_score(ask: Ask) -> Facts | NotAQuestion:
    """Read a request for one score per pair: one text against many, or many against as many."""
    members = ask.members
    pairs = [
        _length(members.get(name))
        for names in (("text_1", "queries", "data_1", "query"), ("text_2", "documents", "data_2", "items"))
        for name in names
        if name in members
    ]
    known = [length for length in pairs if length is not None]
    return _facts(ask, max(known) if len(pairs) == 2 and len(known) == 2 else None)


def _read_rows(ask: Ask) -> Facts | NotAQuestion:
    members = ask.members
    return _facts(ask, 1 if members.get("messages") is not None else inputs_of(members.get("input")))


def _read_tokens(ask: Ask) -> Facts | NotAQuestion:
    return _facts(ask, None)


def _facts(ask: Ask, rows: int | None) -> Facts:
    return Facts(form=Form.JSON, model=text_member(ask.members, "model"), choices=rows)


def _length(value: Any) -> int | None:
    """Return the number of texts; None for an object, which holds content parts."""
    return 1 if isinstance(value, str) else len(value) if isinstance(value, list) else None


ENDPOINTS = tuple(
    Endpoint(
        provider=PROVIDER,
        name=name,
        path=re.compile(rf"(?:^|/v\d+|/api)/{name}$"),
        read=read,
        judge=judge,
        judge_stream=no_stream,
        members=members_openai.SCORING,
    )
    for name, read, judge in (
        ("rerank", _read_rerank, judge_scores("relevance_score", "results", "data")),
        ("score", _read_score, judge_scores("score", "data", "scores")),
        ("pooling", _read_rows, judge_scores("data", "data")),
        ("classify", _read_rows, judge_scores("probs", "data")),
        ("tokenize", _read_tokens, judge_tokens),
    )
)
