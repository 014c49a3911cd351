"""Gives samples back that an attempt has used: the next requests for them get the stored answers again, at no cost."""

import asyncio
from typing import NamedTuple

import orjson

from kdproxy.core.models import LineName
from kdproxy.core.record import name_from
from kdproxy.core.run_history import History, Sample, UnknownCursor
from kdproxy.engine.run_errors import unknown_cursor
from kdproxy.engine.runs import Runs
from kdproxy.errors import RequestRefused


class Back(NamedTuple):
    """Which samples to give back: exactly one member says so."""

    unread: bool = False
    """Those that may never have been read."""
    last: int | None = None
    """This many, counted from the one that was used last."""
    cursor: str | None = None
    """Those that were used after this moment: JSON, as the API of cursors gives it, or the name of its event."""


async def rewind(
    runs: Runs, label: str, token: str | None, back: Back, *, is_dry_run: bool
) -> tuple[str, list[Sample]]:
    """Give samples of an attempt back; return its token and the samples, the latest last.

    Args:
        token: of the attempt; None: the run's last one.
        is_dry_run: change nothing.

    Raises:
        KdproxyError: there is no such run, attempt or cursor, or the disk refuses.
    """
    attempt, history = await runs.known_attempt(label, token)
    cursor = None if back.cursor is None else _read(back.cursor, history, label)
    samples = await asyncio.to_thread(_chosen, history, label, attempt.name, back, cursor)
    if is_dry_run:
        return attempt.token, samples
    if cursor is not None:
        await runs.restore(label, attempt.token, *cursor)
    else:
        attempt.give_back(samples)
        await runs.settle("The samples are given back in memory only")
    return attempt.token, samples


def _chosen(
    history: History, label: str, attempt: LineName, back: Back, cursor: tuple[LineName, LineName | None] | None
) -> list[Sample]:
    if cursor is not None:
        try:
            return history.used_after(attempt, *cursor)
        except UnknownCursor:
            raise unknown_cursor(label) from None
    if back.unread:
        return list(history.unread(attempt))
    return history.latest_used(attempt, back.last or 0)


def _read(text: str, history: History, label: str) -> tuple[LineName, LineName | None]:
    """Return the attempt in which a cursor was taken, and the event before it."""
    try:
        if not text.startswith("{"):
            event = name_from(text)
            return history.attempt_of(event), event
        members = orjson.loads(text)
        after = members["after"]
        return name_from(members["attempt"]), None if after is None else name_from(after)
    except UnknownCursor:
        raise unknown_cursor(label) from None
    except (KeyError, TypeError, ValueError) as error:
        raise RequestRefused(
            "The cursor cannot be read.",
            hint="Nothing was changed. Give the JSON that the API of cursors returned, or the name in its member "
            "`after`.",
            code="bad_cursor",
        ) from error
