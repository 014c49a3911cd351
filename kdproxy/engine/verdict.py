"""What the beginning of an answer, or all of one that is held whole, means for the attempt. Decides; the loop acts."""

from typing import NamedTuple

from kdproxy.core import retry
from kdproxy.core.attempt_outcome import FailureClass
from kdproxy.core.sniff import Kind
from kdproxy.engine.early_error import Beginning, BufferedResponse
from kdproxy.engine.fetch_request import FetchRequest
from kdproxy.providers.base import Judgement

_JUDGED = frozenset({Kind.JSON, Kind.OTHER})
"""Bodies that are judged when they have come whole; streams are while they pass."""


class Verdict(NamedTuple):
    """What to do about an answer."""

    next: retry.Verdict
    judgement: Judgement | None = None
    """What it is worth, where it has been read whole."""


async def verdict_on(beginning: Beginning, fetch_request: FetchRequest, now: float) -> Verdict:
    """Say whether an answer below status 400 is one."""
    response = beginning.response
    if beginning.fault:
        reason = f"The upstream sent {beginning.fault} (status {response.status})."
        return Verdict(retry.Again(reason=reason, failure=FailureClass.MAYBE_BILLED))
    if beginning.error:
        found = retry.judge_event(beginning.error, fetch_request.rules, now=now)
        if not isinstance(found, retry.Done):
            return Verdict(found)
    validator = fetch_request.validator
    if (
        validator is None
        or beginning.kind not in _JUDGED
        or not isinstance(response, BufferedResponse)
        or not response.is_over
    ):
        return Verdict(retry.Done())
    if response.is_coded:
        return Verdict(retry.Done())  # compressed, and not decoded here: it cannot be judged
    judgement = await validator.check(response.seen)
    if validator.failure is None:
        return Verdict(retry.Done(), judgement)
    reason = f"The upstream sent an answer that is not whole: {validator.failure.reason}."
    return Verdict(retry.Again(reason=reason, failure=FailureClass.MAYBE_BILLED, is_complete=True), judgement)


def unbroken(beginning: Beginning) -> Beginning:
    """Find fault with JSON that came whole and yet breaks off: its server died, and a gateway counted what it had."""
    response = beginning.response
    if (
        beginning.fault
        or beginning.kind is not Kind.JSON
        or not isinstance(response, BufferedResponse)
        or not response.is_over
    ):
        return beginning
    if response.seen.rstrip()[-1:] in (b"}", b"]"):
        return beginning
    return beginning._replace(fault="JSON that breaks off")
