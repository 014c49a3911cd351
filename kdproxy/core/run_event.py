"""Lines of the events log about runs: which samples an attempt was given. Format: docs/formats/events.md.

An attempt is named by its `opened` line, a run by that of its first attempt: names of runs are labels.
"""

from typing import Any, NamedTuple

from kdproxy.core.line import seal
from kdproxy.core.models import DEFAULT_NAMESPACE, LineName
from kdproxy.core.record import name_from
from kdproxy.core.record_encode import RECORD_VERSION, dump

RUN_EVENT_KINDS = frozenset({"opened", "used", "returned", "unread", "restored", "renamed"})


class Opened(NamedTuple):
    """An attempt of a run begins at ordinal 0."""

    run: str
    """Its label."""
    token: str
    """Names the attempt within the run."""
    opened_at: float
    """UTC Unix seconds."""
    run_id: LineName | None = None
    """The run's first `opened` line; None: this one."""
    namespace: str = DEFAULT_NAMESPACE


class Used(NamedTuple):
    """A sample is about to be delivered in full."""

    attempt: LineName
    key: str
    """The first 32 hex digits of the question's key."""
    ordinal: int
    scope: str = ""
    is_explicit: bool = False
    """Whether the request named the ordinal itself; else it was counted."""


class Returned(NamedTuple):
    """A used sample may be given again: it was not delivered after all, or `runs rewind` says so."""

    attempt: LineName
    key: str
    ordinal: int


class Unread(NamedTuple):
    """The client of a delivered sample may never have read it: its connection ended right after the delivery."""

    attempt: LineName
    key: str
    ordinal: int
    lost_at: float
    """UTC Unix seconds."""
    is_reset: bool = False
    """Whether the connection was reset: the client had not read all of it."""


class Restored(NamedTuple):
    """An attempt continues from a cursor: its used samples are those of that moment."""

    attempt: LineName
    source: LineName
    """The attempt that the cursor was taken in."""
    after: LineName | None
    """The last event before the cursor; None: no sample had been used."""
    restored_at: float


class RunRenamed(NamedTuple):
    """A run has a new label."""

    run_id: LineName
    run: str
    renamed_at: float


RunEvent = Opened | Used | Returned | Unread | Restored | RunRenamed


def encode_run_event(event: RunEvent, name: LineName) -> bytes:
    """Return an event's line, line break included."""
    if isinstance(event, Used):
        # Written for each hit of a run: formatting takes a third of what a general encoder takes. Keys and names are
        # hex digits, and scopes have no characters that JSON escapes.
        attempt, key, ordinal, scope, is_explicit = event
        shown = f',"scope":"{scope}"' if scope else ""
        if is_explicit:
            shown += ',"explicit":true'
        text = (
            f'{{"v":{RECORD_VERSION},"kind":"used","origin":"{name.origin}","seq":{name.seq},'
            f'"attempt":"{attempt.origin}/{attempt.seq}","key":"{key}","ordinal":{ordinal}{shown}}}'
        )
        return seal(text.encode())
    members: dict[str, Any] = {"v": RECORD_VERSION, "kind": "", "origin": name.origin, "seq": name.seq}
    match event:
        case Opened():
            members |= {"kind": "opened", "run": event.run, "token": event.token}
            if event.run_id is not None:
                members["run_id"] = str(event.run_id)
            if event.namespace != DEFAULT_NAMESPACE:
                members["namespace"] = event.namespace
            members["at"] = round(event.opened_at, 3)
        case Returned():
            members |= {
                "kind": "returned",
                "attempt": str(event.attempt),
                "key": event.key,
                "ordinal": event.ordinal,
            }
        case Unread():
            members |= {
                "kind": "unread",
                "attempt": str(event.attempt),
                "key": event.key,
                "ordinal": event.ordinal,
            }
            if event.is_reset:
                members["reset"] = True
            members["at"] = round(event.lost_at, 3)
        case Restored():
            members |= {"kind": "restored", "attempt": str(event.attempt), "from": str(event.source)}
            if event.after is not None:
                members["after"] = str(event.after)
            members["at"] = round(event.restored_at, 3)
        case RunRenamed():
            members |= {"kind": "renamed", "run_id": str(event.run_id), "run": event.run}
            members["at"] = round(event.renamed_at, 3)
    return seal(dump(members))


def read_run_event(members: dict[str, Any]) -> RunEvent | None:
    """Read the members of a checked line; None: it is of another kind.

    Raises:
        KeyError, TypeError, ValueError: a member is missing or of the wrong type.
    """
    get = members.get
    match members["kind"]:
        case "used":
            return Used(
                name_from(members["attempt"]),
                str(members["key"]),
                int(members["ordinal"]),
                str(get("scope", "")),
                bool(get("explicit", False)),
            )
        case "opened":
            run_id = get("run_id")
            return Opened(
                str(members["run"]),
                str(members["token"]),
                float(members["at"]),
                None if run_id is None else name_from(run_id),
                str(get("namespace", DEFAULT_NAMESPACE)),
            )
        case "returned":
            return Returned(name_from(members["attempt"]), str(members["key"]), int(members["ordinal"]))
        case "unread":
            return Unread(
                name_from(members["attempt"]),
                str(members["key"]),
                int(members["ordinal"]),
                float(members["at"]),
                bool(get("reset", False)),
            )
        case "restored":
            after = get("after")
            return Restored(
                name_from(members["attempt"]),
                name_from(members["from"]),
                None if after is None else name_from(after),
                float(members["at"]),
            )
        case "renamed":
            return RunRenamed(name_from(members["run_id"]), str(members["run"]), float(members["at"]))
    return None
