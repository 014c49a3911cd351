"""Lines of the events log, `events.jsonl`: which calls were sent and how they ended. Format: docs/formats/events.md.

A call is named by its `sent` line. An answer line that names the call also ends it, so a call whose answer is stored
has no `ended` line. Precedence: answer, ended, sent.
"""

from typing import Any, NamedTuple

from kdproxy.core import line as lines
from kdproxy.core.line import seal
from kdproxy.core.models import DEFAULT_NAMESPACE, Address, LineName, Other, Start, Usage
from kdproxy.core.record import check, name_from, read_usage
from kdproxy.core.record_encode import RECORD_VERSION, dump, usage_members
from kdproxy.core.run_event import RUN_EVENT_KINDS, RunEvent, read_run_event

KEY_DIGITS = 32
"""Hex digits of a key in a `sent` line: 128 bits identify a question, and the line stays below 300 bytes."""
EVENT_KINDS = frozenset({"sent", "ended"}) | RUN_EVENT_KINDS
ERROR_BYTES = 2_048
"""Characters kept of an error's body."""


class Sent(NamedTuple):
    """A call whose first byte is about to be sent."""

    upstream: str
    sent_at: float
    """UTC Unix seconds."""
    question: Address | None = None
    """The question's key, shortened by `question_of`; None: not known (a streamed body)."""
    model: str = ""
    credential: str = ""
    """Fingerprint, as in the answer line."""
    run: str = ""
    attempt: int = 1
    """Which attempt at this answer it is, from 1."""
    path: str | None = None
    """Path of a call to an unknown endpoint."""
    is_free: bool = False
    """Whether the upstream's calls are known to cost nothing."""
    is_detached: bool = False
    """Whether no client is waiting for it any more."""


class Ended(NamedTuple):
    """The end of a call whose answer is not in the journal."""

    call: LineName
    outcome: str
    """`answered`, `refused`, `maybe_billed`, `abandoned`."""
    billed: str
    """`yes`, `no`, `maybe` or `free`."""
    ended_at: float
    """UTC Unix seconds."""
    seconds: float
    """From its first byte."""
    status: int | None = None
    request_id: str | None = None
    """The provider's name for the call."""
    usage: Usage | None = None
    cost_usd: str | None = None
    reason: str | None = None
    """What went wrong, in one sentence."""
    error: str | None = None
    """Beginning of the error's body, without credentials."""
    is_detached: bool = False


Event = Sent | Ended | Start | Other | RunEvent


class NamedEvent(NamedTuple):
    """The content of a line of the events log, with its name."""

    event: Event
    name: LineName


def question_of(address: Address) -> Address:
    """Return the name that events have for a question."""
    return Address(address.namespace, address.key[:KEY_DIGITS], address.ordinal)


def encode_event(event: Sent | Ended, name: LineName) -> bytes:
    """Return an event's line, line break included. Empty members are left out."""
    members: dict[str, Any] = {"v": RECORD_VERSION, "kind": "", "origin": name.origin, "seq": name.seq}
    if isinstance(event, Sent):
        members["kind"] = "sent"
        _add_sent(members, event)
    else:
        members["kind"] = "ended"
        _add_ended(members, event)
    return seal(dump(members))


def _add_sent(members: dict[str, Any], sent: Sent) -> None:
    question = sent.question
    if question is not None:
        if question.namespace != DEFAULT_NAMESPACE:
            members["namespace"] = question.namespace
        members["key"] = question.key
        if question.ordinal:
            members["ordinal"] = question.ordinal
    members["upstream"] = sent.upstream
    if sent.model:
        members["model"] = sent.model
    if sent.credential:
        members["credential"] = sent.credential
    if sent.run:
        members["run"] = sent.run
    if sent.attempt != 1:
        members["try"] = sent.attempt
    if sent.path is not None:
        members["path"] = sent.path
    if sent.is_free:
        members["billed"] = "free"
    if sent.is_detached:
        members["detached"] = True
    members["at"] = round(sent.sent_at, 3)


def _add_ended(members: dict[str, Any], ended: Ended) -> None:
    members |= {"call": str(ended.call), "outcome": ended.outcome, "billed": ended.billed}
    optional = {
        "status": ended.status,
        "request_id": ended.request_id,
        "usage": None if ended.usage is None else usage_members(ended.usage),
        "cost_usd": ended.cost_usd,
        "reason": ended.reason,
        "error": ended.error,
        "detached": ended.is_detached or None,
    }
    members |= {member: value for member, value in optional.items() if value is not None}
    members |= {"seconds": round(ended.seconds, 3), "at": round(ended.ended_at, 3)}


def read_event(line: bytes) -> NamedEvent:
    """Read one line.

    Raises:
        RecordInvalid: with the reason.
    """
    members = check(line)
    try:
        name = name_from(f"{members['origin']}/{members['seq']}")
        match members["kind"]:
            case "sent":
                return NamedEvent(_sent(members), name)
            case "ended":
                return NamedEvent(_ended(members), name)
            case "start":
                return NamedEvent(Start(created_at=float(members["created_at"]), release=members["release"]), name)
            case kind:
                event = read_run_event(members)
                return NamedEvent(Other(kind=str(kind), created_at=0.0) if event is None else event, name)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise lines.invalid(f"a member is missing or of the wrong type ({error})") from error


def _sent(members: dict[str, Any]) -> Sent:
    get = members.get
    key = get("key")
    question = None
    if key is not None:
        question = Address(get("namespace", DEFAULT_NAMESPACE), str(key), int(get("ordinal", 0)))
    return Sent(
        upstream=members["upstream"],
        sent_at=float(members["at"]),
        question=question,
        model=get("model", ""),
        credential=get("credential", ""),
        run=get("run", ""),
        attempt=int(get("try", 1)),
        path=get("path"),
        is_free=get("billed") == "free",
        is_detached=bool(get("detached")),
    )


def _ended(members: dict[str, Any]) -> Ended:
    get = members.get
    return Ended(
        call=name_from(members["call"]),
        outcome=str(members["outcome"]),
        billed=str(members["billed"]),
        ended_at=float(members["at"]),
        seconds=float(members["seconds"]),
        status=get("status"),
        request_id=get("request_id"),
        usage=read_usage(get("usage")),
        cost_usd=get("cost_usd"),
        reason=get("reason"),
        error=get("error"),
        is_detached=bool(get("detached")),
    )
