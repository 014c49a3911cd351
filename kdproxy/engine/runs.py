"""Runs and their attempts: which sample a request gets, held while its client waits, used once it is delivered.

Event loop only; core/sampling.py decides. What an attempt was given is in the events log, so a later process knows it.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from kdproxy.core.call_event import KEY_DIGITS
from kdproxy.core.models import DEFAULT_NAMESPACE, LineName
from kdproxy.core.ports import Clock, RunLog
from kdproxy.core.run_event import Opened, Restored, Returned, RunRenamed, Unread, Used
from kdproxy.core.run_history import History, Sample, UnknownCursor
from kdproxy.core.run_list import Run
from kdproxy.core.run_ref import RunRef, check_name
from kdproxy.core.sampling import NEXT, Ordinals, Stored, Taking
from kdproxy.engine import run_errors

log = logging.getLogger("kdproxy.engine")

RETURN_SECONDS = 1.0
"""How long a client that says that it asks again waits for its former connection to be seen closed."""


class Hold:
    """A client's hold on a sample. `close` must be called once."""

    __slots__ = ("_attempt", "_is_delivered", "_key", "_scope", "_used_in", "is_explicit", "ordinal")

    def __init__(self, attempt: "Attempt", key: str, scope: str, ordinal: int, *, is_explicit: bool) -> None:
        self._attempt = attempt
        self._key = key
        self._scope = scope
        self.ordinal = ordinal
        self.is_explicit = is_explicit
        """Whether the request named the ordinal itself."""
        self._used_in: Ordinals | None = None
        self._is_delivered = False

    def use(self) -> None:
        """Record that the sample is delivered: before its last byte is written. More calls do nothing."""
        if self._used_in is None:
            self._used_in = self._attempt.ordinals
            self._attempt.use(self._key, self.ordinal, self._scope, is_explicit=self.is_explicit)

    def delivered(self) -> None:
        """Take note that the last byte was written."""
        self._is_delivered = True

    @property
    def asked(self) -> int:
        """How many samples its attempt has been asked for in this process."""
        return self._attempt.asked

    def note_unread(self, at: float, *, is_reset: bool) -> None:
        """Record that the client may never have read it, though it was delivered."""
        self._attempt.note_unread(self._key, self.ordinal, at, is_reset=is_reset)

    def close(self) -> None:
        """Release the sample. One that was not delivered in full is given to the next request that asks."""
        is_cut = self._used_in is not None and not self._is_delivered
        # A use from before a restore was taken back by it, unless the cursor has it.
        is_returned = is_cut and self._used_in is self._attempt.ordinals
        self._attempt.release(self._key, self.ordinal, is_returned=is_returned, is_explicit=self.is_explicit)


class Attempt:
    """One attempt of a run: where its requests get their ordinals."""

    def __init__(self, name: LineName, token: str, history: History, ordinals: Ordinals, run_log: RunLog) -> None:
        self.name = name
        self.token = token
        self.ordinals = ordinals
        self._history = history
        self._log = run_log
        self._waiting: defaultdict[str, list[asyncio.Future[None]]] = defaultdict(list)
        self._all_released: list[asyncio.Future[None]] = []
        self.holds = self.asked = 0
        """Requests that hold a sample."""
        self.counted_holds = 0
        """Those of them that did not name it."""

    async def hold(self, key: str, scope: str, taking: Taking, *, is_retry: bool, stored: Stored | None) -> Hold:
        """Hold the sample that a request gets.

        Args:
            is_retry: the client says that it asks again: its former connection may not be seen closed yet.
            stored: whether a sample of the question is stored, by ordinal; a fresh one needs it.
        """
        key = key[:KEY_DIGITS]
        if scope and not self.ordinals.has_scopes:
            self.ordinals.own_as(self._history.owners())
        if is_retry and taking == NEXT:
            await self._wait_for_return(key, scope)
        ordinal = self.ordinals.take(key, scope, taking, stored)
        is_explicit = taking.ordinal is not None
        self.holds += 1
        self.asked += 1
        self.counted_holds += not is_explicit
        return Hold(self, key, scope, ordinal, is_explicit=is_explicit)

    async def _wait_for_return(self, key: str, scope: str) -> None:
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + RETURN_SECONDS
        while self.ordinals.may_return(key, scope) and (left := ends_at - loop.time()) > 0:
            future: asyncio.Future[None] = loop.create_future()
            self._waiting[key].append(future)
            await asyncio.wait([future], timeout=left)

    def use(self, key: str, ordinal: int, scope: str, *, is_explicit: bool) -> None:
        """Record that a held sample is delivered."""
        self.ordinals.use(key, ordinal)
        used = Used(self.name, key, ordinal, scope, is_explicit)
        self._history.take(self._log.note(used), used)

    def release(self, key: str, ordinal: int, *, is_returned: bool, is_explicit: bool) -> None:
        """Release a held sample, and wake who waits for it; `is_returned`: its use is taken back."""
        self.holds -= 1
        self.counted_holds -= not is_explicit
        if is_returned:
            self.ordinals.unuse(key, ordinal)
            returned = Returned(self.name, key, ordinal)
            self._history.take(self._log.note(returned), returned)
        self.ordinals.release(key, ordinal)
        if self._waiting:
            _wake(self._waiting.pop(key, ()))  # also if it was used: then nothing returns that they could wait for
        if not self.holds and self._all_released:
            waiting, self._all_released = self._all_released, []
            _wake(waiting)

    async def wait_released(self, seconds: float) -> None:
        """Return once no request holds a sample, or the time is over."""
        if self.holds:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._all_released.append(future)
            await asyncio.wait([future], timeout=seconds)

    def give_back(self, samples: Iterable[Sample]) -> None:
        """Make used samples free again."""
        for sample in samples:
            returned = Returned(self.name, *sample)
            self._history.take(self._log.note(returned), returned)
            self.ordinals.note_returned(*sample)
            _wake(self._waiting.pop(sample.key, ()))

    def note_unread(self, key: str, ordinal: int, at: float, *, is_reset: bool) -> None:
        """Record that a client may never have read a sample."""
        unread = Unread(self.name, key, ordinal, at, is_reset)
        self._history.take(self._log.note(unread), unread)

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
        self._used_labels: dict[str, LineName] = {}
        """The runs that requests of this process named so: they stay with them, though a run may be renamed."""
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
            run = self._find(label)
            known = None if run is None or (is_new and token is None) else run.attempt(token)
            if known is not None and is_new:
                raise run_errors.taken(label, known.token)
            if run is None or known is None:
                run, name = self._begin(label, run, token)
            else:
                name = known.name
            attempt = await self._attempt(run, name)
            self._used_labels[label] = run.run_id
            self._by_ref[label, attempt.token] = attempt
            if run.attempts[-1].name == name:
                self._by_ref[label, None] = attempt
            return attempt

    def _find(self, label: str) -> Run | None:
        run_id = self._used_labels.get(label)
        return self._list.find(label) if run_id is None else self._list.runs[run_id]

    def _known(self, label: str) -> Run:
        return self._find(label) or self._list.known(label)  # which raises

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
        open_run = await self._open_run(run)
        attempt = open_run.attempts.get(name)
        if attempt is None:
            history = open_run.history
            try:
                ordinals = await _rebuilt(history, name)
            except UnknownCursor:
                raise run_errors.broken_history(run.label) from None
            token = next(each.token for each in run.attempts if each.name == name)
            attempt = open_run.attempts[name] = Attempt(name, token, history, ordinals, self._log)
        return attempt

    async def _open_run(self, run: Run) -> _OpenRun:
        """Return an open run; `_opening` must be held."""
        found = self._open.get(run.run_id)
        if found is None:
            names = [each.name for each in run.attempts]
            history = await asyncio.to_thread(self._log.history, names)
            found = self._open[run.run_id] = _OpenRun(run, history)
        return found

    async def review(self, attempt: Attempt) -> dict[str, int]:
        """Compare the questions of an attempt with those of the attempts before it.

        Returns:
            `asked`: its questions; `again`: those that earlier attempts asked too; `left`: those of theirs that it did
            not ask.
        """
        run = self._list.of_attempt(attempt.name)  # by its name: its run may have another label by now
        assert run is not None
        names = [each.name for each in run.attempts]
        history = self._open[run.run_id].history
        mine = await asyncio.to_thread(history.keys_of, [attempt.name])
        earlier = await asyncio.to_thread(history.keys_of, names[: names.index(attempt.name)])
        return {"asked": len(mine), "again": len(mine & earlier), "left": len(earlier - mine)}

    # -- cursors ----------------------------------------------------------------------------------------------

    async def cursor(self, label: str, token: str | None, *, is_durable: bool = True) -> dict[str, Any]:
        """Return the moment of an attempt, once it is durable: what `restore` takes.

        Args:
            is_durable: False: return at once; the next durable cursor makes this one durable too.

        Raises:
            KdproxyError: there is no such run or attempt, or the disk refuses.
        """
        attempt, history = await self.known_attempt(label, token)
        after, counted, held = history.last(attempt.name), history.counted(attempt.name), attempt.counted_holds
        if is_durable:
            await self.settle("No cursor")
        return {
            "run": label,
            "attempt": str(attempt.name),
            "after": None if after is None else str(after),
            "in_flight": held,
            "counted": counted,
        }

    async def restore(
        self, label: str, token: str | None, source: LineName | None, after: LineName | None = None
    ) -> dict[str, Any]:
        """Put an attempt back to a cursor: its used samples are those of that moment. Without an attempt, open it.

        Args:
            source, after: of the cursor; without a source: before any sample was used.

        Returns:
            The restored attempt, and how many requests hold samples of it.

        Raises:
            KdproxyError: the run or the cursor is not known, or the disk refuses.
        """
        if source is None:
            ordinals = Ordinals()
        else:
            await self._check_cursor(self._known(label), source, after)
        if self._log.trouble is not None:
            raise run_errors.not_durable("The cursor was not restored", self._log.trouble)
        attempt = await self.open(label, token)
        await attempt.wait_released(RETURN_SECONDS)  # of a process that was killed, and is not seen closed yet
        run = self._known(label)
        history = self._open[run.run_id].history
        if source is not None:
            ordinals = await _rebuilt(history, source, after, is_whole=False)
        elif history.has_scopes:
            ordinals.own_as(history.owners())
        in_flight = attempt.holds
        attempt.replace(ordinals)
        restored = Restored(attempt.name, source or attempt.name, after, self._clock.now())
        history.take(self._log.note(restored), restored)
        await self.settle("The cursor was restored in memory only")
        return {"run": label, "attempt": str(attempt.name), "token": attempt.token, "in_flight": in_flight}

    async def _check_cursor(self, run: Run, source: LineName, after: LineName | None) -> None:
        if all(each.name != source for each in run.attempts):
            raise run_errors.unknown_cursor(run.label)
        async with self._opening:
            open_run = await self._open_run(run)
        try:
            await asyncio.to_thread(open_run.history.check, source, after)
        except UnknownCursor:
            raise run_errors.unknown_cursor(run.label) from None

    # -- changes ----------------------------------------------------------------------------------------------

    async def known_attempt(self, label: str, token: str | None) -> tuple[Attempt, History]:
        """Return an attempt and the history of its run. Raises RequestRefused: there is no such run or attempt."""
        run = self._known(label)
        found = run.known_attempt(token)
        async with self._opening:  # an attempt that is opened twice would give a sample twice
            attempt = await self._attempt(run, found.name)
        return attempt, self._open[run.run_id].history

    async def rename(self, label: str, new: str) -> Run:
        """Give a run another label. Requests of this process that use the old one stay with it.

        Raises:
            KdproxyError: there is no such run, the new label is none, is taken or in use, or the disk refuses.
        """
        async with self._opening:
            run = self._list.known(label)
            if self._list.find(check_name(new)) is not None:
                raise run_errors.label_taken(new)
            if self._used_labels.get(new, run.run_id) != run.run_id:
                raise run_errors.label_in_use(new)
            renamed = RunRenamed(run.run_id, new, self._clock.now())
            self._list.take(renamed, self._log.note(renamed))
        await self.settle("The run is renamed in memory only")
        return self._list.known(new)

    async def settle(self, trouble: str) -> None:
        """Return once all events are on disk. Raises KdproxyError, which begins with `trouble`: the disk refuses."""
        await self._log.settle()
        if self._log.trouble is not None:
            raise run_errors.not_durable(trouble, self._log.trouble)


async def _rebuilt(
    history: History, attempt: LineName, after: LineName | None = None, *, is_whole: bool = True
) -> Ordinals:
    """Rebuild the ordinals of an attempt in a thread."""
    size = len(history)
    ordinals = await asyncio.to_thread(history.ordinals, attempt, after, is_whole=is_whole)
    if history.has_scopes:
        owners = await asyncio.to_thread(history.owners)
        for key, owned in history.owners(size).items():  # taken in the meantime
            known = owners.setdefault(key, {})
            for ordinal, scope in owned.items():
                known.setdefault(ordinal, scope)
        ordinals.own_as(owners)
    return ordinals


def _wake(waiting: Iterable[asyncio.Future[None]]) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(None)
