"""Runs and their attempts: which sample a request gets, held while its client waits, used once it is delivered.

Event loop only; core/sampling.py decides. What an attempt was given is in the events log, so a later process knows it.
"""

import asyncio
import logging
from collections import defaultdict
from dataclasses import dataclass, field

from kdproxy.core.call_event import KEY_DIGITS
from kdproxy.core.models import DEFAULT_NAMESPACE, LineName
from kdproxy.core.ports import Clock, RunLog
from kdproxy.core.run_event import Opened, Restored, Returned, Used
from kdproxy.core.run_history import History, UnknownCursor
from kdproxy.core.run_list import Run
from kdproxy.core.run_ref import RunRef
from kdproxy.core.sampling import NEXT, Ordinals, Stored, Taking
from kdproxy.errors import KdproxyError, RequestRefused

log = logging.getLogger("kdproxy.engine")

RETURN_SECONDS = 1.0
"""How long a client that says that it asks again waits for its former connection to be seen closed."""


class Hold:
    """A client's hold on a sample. `close` must be called once."""

    __slots__ = ("_attempt", "_is_delivered", "_is_used", "_key", "_scope", "ordinal")

    def __init__(self, attempt: "Attempt", key: str, scope: str, ordinal: int) -> None:
        self._attempt = attempt
        self._key = key
        self._scope = scope
        self.ordinal = ordinal
        self._is_used = self._is_delivered = False

    def use(self) -> None:
        """Record that the sample is delivered: before its last byte is written. More calls do nothing."""
        if not self._is_used:
            self._is_used = True
            self._attempt.use(self._key, self.ordinal, self._scope)

    def delivered(self) -> None:
        """Take note that the last byte was written."""
        self._is_delivered = True

    def close(self) -> None:
        """Release the sample. One that was not delivered in full is given to the next request that asks."""
        self._attempt.release(self._key, self.ordinal, is_returned=self._is_used and not self._is_delivered)


class Attempt:
    """One attempt of a run: where its requests get their ordinals."""

    def __init__(self, name: LineName, token: str, history: History, ordinals: Ordinals, run_log: RunLog) -> None:
        self.name = name
        self.token = token
        self.ordinals = ordinals
        self._history = history
        self._log = run_log
        self._waiting: defaultdict[str, list[asyncio.Future[None]]] = defaultdict(list)

    async def hold(self, key: str, scope: str, taking: Taking, *, is_retry: bool, stored: Stored) -> Hold:
        """Hold the sample that a request gets.

        Args:
            is_retry: the client says that it asks again: its former connection may not be seen closed yet.
            stored: whether a sample of the question is stored, by ordinal.
        """
        key = key[:KEY_DIGITS]
        if scope and not self.ordinals.has_scopes:
            self.ordinals.own_as(self._history.owners())
        if is_retry and taking == NEXT:
            await self._wait_for_return(key, scope)
        return Hold(self, key, scope, self.ordinals.take(key, scope, taking, stored))

    async def _wait_for_return(self, key: str, scope: str) -> None:
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + RETURN_SECONDS
        while self.ordinals.may_return(key, scope) and (left := ends_at - loop.time()) > 0:
            future: asyncio.Future[None] = loop.create_future()
            self._waiting[key].append(future)
            await asyncio.wait([future], timeout=left)

    def use(self, key: str, ordinal: int, scope: str) -> None:
        """Record that a held sample is delivered."""
        self.ordinals.use(key, ordinal)
        used = Used(self.name, key, ordinal, scope)
        self._history.take(self._log.note(used), used)

    def release(self, key: str, ordinal: int, *, is_returned: bool) -> None:
        """Release a held sample, and wake who waits for it; `is_returned`: its use is taken back."""
        if is_returned:
            self.ordinals.unuse(key, ordinal)
            returned = Returned(self.name, key, ordinal)
            self._history.take(self._log.note(returned), returned)
        if self.ordinals.release(key, ordinal):
            for future in self._waiting.pop(key, ()):
                if not future.done():
                    future.set_result(None)

    def replace(self, ordinals: Ordinals) -> None:
        """Continue with other ordinals. Samples that clients hold stay theirs."""
        ordinals.hold_as(self.ordinals)
        self.ordinals = ordinals


@dataclass(slots=True, eq=False)
class _OpenRun:
    """A run that this process has requests of."""

    run: Run
    history: History
    attempts: dict[LineName, Attempt] = field(default_factory=dict)


class Runs:
    """All runs of one data directory."""

    def __init__(self, run_log: RunLog, clock: Clock) -> None:
        self._log = run_log
        self._clock = clock
        self._list = run_log.runs()
        self._open: dict[LineName, _OpenRun] = {}
        self._by_ref: dict[tuple[str, str | None], Attempt] = {}
        self._opening = asyncio.Lock()

    async def attempt(self, ref: RunRef) -> Attempt:
        """Return the attempt that a request names. A run or an attempt that is not known is opened."""
        found = self._by_ref.get((ref.run, ref.attempt))
        return found or await self.open(ref.run, ref.attempt)

    async def open(self, label: str, token: str | None, *, is_new: bool = False) -> Attempt:
        """Return an attempt of a run, opened if need be; token None: the last one.

        Args:
            is_new: open another one; with a token that is taken, raise.

        Raises:
            RequestRefused: the token is taken.
        """
        async with self._opening:
            run = self._list.find(label)
            known = None if run is None or (is_new and token is None) else run.attempt(token)
            if known is not None and is_new:
                raise _taken(label, known.token)
            if run is None or known is None:
                run, name = self._begin(label, run, token)
            else:
                name = known.name
            attempt = await self._attempt(run, name)
            self._by_ref[label, attempt.token] = attempt
            if run.attempts[-1].name == name:
                self._by_ref[label, None] = attempt
            return attempt

    def _begin(self, label: str, run: Run | None, token: str | None) -> tuple[Run, LineName]:
        if token is None:
            token = "1" if run is None else run.next_token()
        opened = Opened(label, token, self._clock.now(), None if run is None else run.run_id, DEFAULT_NAMESPACE)
        name = self._log.note(opened)
        self._list.take(opened, name)
        run = self._list.of_attempt(name)
        assert run is not None
        if len(run.attempts) == 1:
            self._open[run.run_id] = _OpenRun(run, History())
        return run, name

    async def _attempt(self, run: Run, name: LineName) -> Attempt:
        open_run = self._open.get(run.run_id)
        if open_run is None:
            names = [each.name for each in run.attempts]
            history = await asyncio.to_thread(self._log.history, names)
            open_run = self._open[run.run_id] = _OpenRun(run, history)
        attempt = open_run.attempts.get(name)
        if attempt is None:
            history = open_run.history
            ordinals = await asyncio.to_thread(_rebuilt, history, name)
            token = next(each.token for each in run.attempts if each.name == name)
            attempt = open_run.attempts[name] = Attempt(name, token, history, ordinals, self._log)
        return attempt

    # -- cursors ----------------------------------------------------------------------------------------------

    async def cursor(self, label: str, token: str | None) -> dict[str, object]:
        """Return the moment of an attempt, once it is durable: what `restore` takes.

        Raises:
            KdproxyError: there is no such run or attempt, or the disk refuses.
        """
        run = self._known(label)
        found = run.attempt(token)
        if found is None:
            raise _unknown_attempt(label, token)
        attempt = await self._attempt(run, found.name)
        after = self._open[run.run_id].history.last(found.name)
        held = attempt.ordinals.held
        await self._log.settle()
        if self._log.trouble is not None:
            raise KdproxyError(
                f"No cursor: the events of the run are not on disk. {self._log.trouble}",
                hint="Free space on the data directory's disk and try again.",
                code="disk_refuses",
                http_status=503,
            )
        return {
            "run": label,
            "attempt": str(found.name),
            "after": None if after is None else str(after),
            "in_flight": held,
        }

    async def restore(self, label: str, token: str | None, source: LineName, after: LineName | None) -> None:
        """Put an attempt back to a cursor: its used samples are those of that moment.

        Raises:
            KdproxyError: the run or the cursor is not known.
        """
        run = self._known(label)
        found = run.attempt(token)
        if found is None:
            raise _unknown_attempt(label, token)
        attempt = await self._attempt(run, found.name)
        history = self._open[run.run_id].history
        try:
            ordinals = await asyncio.to_thread(_rebuilt, history, source, after, is_whole=False)
        except UnknownCursor:
            raise _unknown_cursor(label) from None
        attempt.replace(ordinals)
        restored = Restored(found.name, source, after, self._clock.now())
        history.take(self._log.note(restored), restored)
        await self._log.settle()

    def _known(self, label: str) -> Run:
        run = self._list.find(label)
        if run is None:
            raise RequestRefused(
                f"No run is named {label!r}.",
                hint="`kdproxy runs list` shows the runs of this data directory.",
                code="unknown_run",
                http_status=404,
            )
        return run


def _rebuilt(history: History, attempt: LineName, after: LineName | None = None, *, is_whole: bool = True) -> Ordinals:
    ordinals = history.ordinals(attempt, after, is_whole=is_whole)
    if history.has_scopes:
        ordinals.own_as(history.owners())
    return ordinals


def _taken(label: str, token: str) -> KdproxyError:
    return RequestRefused(
        f"The run {label!r} has an attempt {token!r} already.",
        hint="Nothing was sent. Choose another token, or continue that attempt.",
        code="attempt_taken",
        http_status=409,
    )


def _unknown_attempt(label: str, token: str | None) -> KdproxyError:
    return RequestRefused(
        f"The run {label!r} has no attempt {token!r}." if token else f"The run {label!r} has no attempt.",
        hint="`kdproxy runs show NAME` lists its attempts.",
        code="unknown_attempt",
        http_status=404,
    )


def _unknown_cursor(label: str) -> KdproxyError:
    return RequestRefused(
        f"The cursor is not in the log of run {label!r}.",
        hint="It was taken in another data directory or another run, or the events log was lost. Nothing was changed.",
        code="unknown_cursor",
        http_status=409,
    )
