"""Parses a whole JSON answer for its judge: its members, or why it is not valid. Pure."""

from typing import Any

from kdproxy.providers.base import CARRIES_ERROR, Broken, answer_object
from kdproxy.providers.ending import error_in, is_failure

NO_OBJECT = Broken("it is not a JSON object")

UNDER_WAY = frozenset({"queued", "in_progress", "pending"})
"""Statuses of an answer that the provider is still generating: a retry would buy a second one."""


def members_of(body: bytes) -> dict[str, Any] | Broken:
    """Return the members of a JSON answer, parsed leniently."""
    members = answer_object(body)
    if members is None:
        return NO_OBJECT
    return members if error_in(members) is None else CARRIES_ERROR


def bad_status(status: Any) -> Broken:
    """Return the judgement for a status other than success."""
    is_under_way = isinstance(status, str) and status in UNDER_WAY
    says_failed = is_failure(status) and not is_under_way
    return Broken(f"its status is {status!r:.60}", says_failed=says_failed, may_be_good=is_under_way)
