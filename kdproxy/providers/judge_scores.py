"""Judges answers of servers that score, pool and count texts: as many rows as requested, none empty. Pure."""

from typing import Any

from kdproxy.providers.answer import members_of
from kdproxy.providers.base import ONE_ANSWER, Broken, Complete, Criteria, Judge, Judgement
from kdproxy.providers.tally import SETTING_CHOICES
from kdproxy.providers.usage import read_openai
from kdproxy.providers.vectors import VECTORS_DIFFER, have_one_dimension


def judge_scores(item: str, *lists: str) -> Judge:
    """Make the judge of a list, under one of these names, of rows that each hold a number or numbers as their item.

    Rows may come in any order (as in a ranking), each index once.
    """

    def judge(body: bytes, criteria: Criteria = ONE_ANSWER) -> Judgement:
        members = members_of(body)
        if isinstance(members, Broken):
            return members
        rows = next((members[name] for name in lists if isinstance(members.get(name), list)), None)
        if not rows:
            return Broken(f"it has no {lists[0]}")
        if criteria.choices is not None and len(rows) != criteria.choices:
            return Broken(f"{criteria.choices} rows were requested, but {len(rows)} came", SETTING_CHOICES)
        indexes = [row.get("index") for row in rows if isinstance(row, dict)]
        if len({index for index in indexes if isinstance(index, int)}) < sum(index is not None for index in indexes):
            return Broken("two rows have the same index")
        if not all(_holds(row.get(item) if isinstance(row, dict) else row) for row in rows):
            return Broken(f"a row has no {item}")
        # Other items, such as one score for each token, may differ in length.
        vectors = [row[item] for row in rows if isinstance(row, dict) and (item == "probs" or _is_nested(row[item]))]
        if not have_one_dimension(vectors):
            return VECTORS_DIFFER
        return Complete(usage=read_openai(members))

    return judge


def _holds(value: Any) -> bool:
    """Whether an item is a number, text, or a list of these without null."""
    if isinstance(value, list):
        return bool(value) and all(_holds(part) for part in value)
    return isinstance(value, int | float | str) and value != "" and not isinstance(value, bool)


def _is_nested(value: Any) -> bool:
    return isinstance(value, list) and isinstance(value[0], list)


def judge_tokens(body: bytes, criteria: Criteria = ONE_ANSWER) -> Judgement:
    """Judge the tokens of a text: there must be as many as the answer's count."""
    members = members_of(body)
    if isinstance(members, Broken):
        return members
    tokens, count = members.get("tokens"), members.get("count")
    if not isinstance(tokens, list) or any(token is None for token in tokens):
        return Broken("it has no tokens")
    if isinstance(count, int) and count != len(tokens):
        return Broken(f"its count is {count}, but {len(tokens)} tokens came")
    return Complete()


def judge_embedding(body: bytes, criteria: Criteria = ONE_ANSWER) -> Judgement:
    """Judge Gemini's answer of one vector."""
    members = members_of(body)
    if isinstance(members, Broken):
        return members
    embedding = members.get("embedding")
    values = embedding.get("values") if isinstance(embedding, dict) else None
    is_vector = isinstance(values, list) and any(values) and _holds(values)
    return Complete() if is_vector else Broken("it has no vector")
