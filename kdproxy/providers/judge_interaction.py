"""Judges answers of Gemini's Interactions API (google-genai 3.6.1, types.interactions, read 2026-11-30). Pure.

The proof is the `status` of the interaction, in JSON and in the terminal event: completed, or a status that asks the
client to act.
"""

from typing import Any

from kdproxy.providers.answer import bad_status, members_of
from kdproxy.providers.base import (
    ONE_ANSWER,
    Broken,
    Complete,
    Criteria,
    Judgement,
)
from kdproxy.providers.ending import says
from kdproxy.providers.judge_rows import EMPTY
from kdproxy.providers.judge_status import StatusEvents
from kdproxy.providers.usage import read_interaction

_WHOLE = frozenset({"completed", "requires_action"})


def judge_interaction(body: bytes, criteria: Criteria = ONE_ANSWER) -> Judgement:
    """Judge a whole JSON answer."""
    members = members_of(body)
    if isinstance(members, Broken):
        return members
    return _judged(members, criteria, False)


def _judged(interaction: dict[str, Any], criteria: Criteria, has_said: bool) -> Judgement:
    status = interaction.get("status")
    if not isinstance(status, str) or status not in _WHOLE:
        return bad_status(status)
    usage = read_interaction(interaction)
    has_said = has_said or says(interaction.get("steps")) or says(interaction.get("outputs"))
    if not (has_said or criteria.keeps_empty or (usage is not None and usage.output_tokens)):
        return EMPTY
    return Complete(usage=usage, finish=(status,))


INTERACTION_EVENTS = StatusEvents(
    type_member="event_type",
    answer_member="interaction",
    terminal=frozenset({"interaction.completed", "interaction.complete"}),
    failed=frozenset({"error"}),
    judge=_judged,
)
