"""Judges answers of OpenAI's Responses API. Pure.

The proof is the `status` of the response, in JSON and in the terminal event: completed, or incomplete for a known
reason (API reference, read 2026-11). `response.completed` alone proves nothing.
"""

from typing import Any

from kdproxy.core.models import Usage
from kdproxy.providers.answer import bad_status, members_of
from kdproxy.providers.base import (
    ONE_ANSWER,
    Broken,
    Complete,
    Criteria,
    End,
    Judgement,
)
from kdproxy.providers.ending import RESPONSES, Ending, ending_of, says
from kdproxy.providers.judge_rows import EMPTY
from kdproxy.providers.judge_status import StatusEvents
from kdproxy.providers.tally import SETTING_END
from kdproxy.providers.usage import read_openai


def judge_response(body: bytes, criteria: Criteria = ONE_ANSWER) -> Judgement:
    """Judge a whole JSON answer."""
    members = members_of(body)
    if isinstance(members, Broken):
        return members
    return _judged(members, criteria, False)


def judge_compaction(body: bytes, criteria: Criteria = ONE_ANSWER) -> Judgement:
    """Judge a compacted conversation: its object names it, and its output holds items."""
    members = members_of(body)
    if isinstance(members, Broken):
        return members
    output, identity = members.get("output"), members.get("id")
    if members.get("object") != "response.compaction" or not isinstance(output, list) or not output:
        return Broken("it is not a compacted conversation")
    return Complete(usage=read_openai(members), response_id=identity if isinstance(identity, str) else None)


def _judged(response: dict[str, Any], criteria: Criteria, has_said: bool) -> Judgement:
    details = response.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    unknown, is_refused = None, False
    match response.get("status"):
        case "completed":
            pass
        case "incomplete":
            ending = ending_of(reason, RESPONSES)
            if ending in (Ending.FAILED, Ending.MISSING):
                return Broken(f"it is incomplete for the reason {reason!r:.60}", says_failed=ending is Ending.FAILED)
            unknown = reason if ending is Ending.UNKNOWN else None
            is_refused = ending is Ending.REFUSED
        case None if criteria.end is End.DONE:
            pass
        case None:
            return Broken("it has no status", SETTING_END)
        case status:
            return bad_status(status)
    usage = read_openai(response)
    if not (has_said or is_refused or criteria.keeps_empty or _has_content(response, usage)):
        return EMPTY
    identity = response.get("id")
    word = response.get("status") if reason is None else reason
    return Complete(
        usage=usage,
        response_id=identity if isinstance(identity, str) else None,
        unknown_reason=unknown,
        finish=None if word is None else (str(word)[:60],),
        refusal=str(reason)[:60] if is_refused else None,
    )


def _has_content(response: dict[str, Any], usage: Usage | None) -> bool:
    return says(response.get("output")) or (usage is not None and bool(usage.output_tokens))


RESPONSE_EVENTS = StatusEvents(
    type_member="type",
    answer_member="response",
    terminal=frozenset({"response.completed", "response.incomplete", "response.done"}),
    failed=frozenset({"error", "response.failed", "response.cancelled"}),
    judge=_judged,
    ends_with_done=True,
)
