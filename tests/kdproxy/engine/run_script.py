"""A script that asks within a run, on an events log in memory."""

import asyncio
from collections.abc import Collection
from typing import Any

from kdproxy.core.models import LineName
from kdproxy.core.run_event import RunEvent
from kdproxy.core.run_history import History
from kdproxy.core.run_list import RunList
from kdproxy.core.run_ref import RunRef
from kdproxy.core.sampling import NEXT, Taking
from kdproxy.engine.clock import SystemClock
from kdproxy.engine.runs import Runs

KEY, OTHER = "a" * 32, "b" * 32
RUN = RunRef("r")


class Log:
    """Keeps events as the events log does; `disk` are those that a sync has made durable."""

    def __init__(self) -> None:
        self.events: list[tuple[LineName, RunEvent]] = []
        self.synced = 0
        self.trouble: str | None = None
        self.reading = asyncio.Event()

    def note(self, event: RunEvent) -> LineName:
        name = LineName("0" * 16, len(self.events))
        self.events.append((name, event))
        return name

    def runs(self) -> RunList:
        found = RunList()
        for name, event in self.events:
            found.take(event, name)
        return found

    def history(self, attempts: Collection[LineName]) -> History:
        found = History()
        for name, event in self.events:
            if getattr(event, "attempt", None) in attempts:
                found.take(name, event)
        return found

    async def settle(self) -> None:
        if self.trouble is None:
            self.synced = len(self.events)


class Script:
    """Asks as a script does, and restarts."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.restart()

    def restart(self) -> None:
        """Begin as a new process of the proxy does: it knows what is in the log."""
        self.runs = Runs(self.log, SystemClock())

    async def hold(self, key: str = KEY, ref: RunRef = RUN, taking: Taking = NEXT) -> Any:
        attempt = await self.runs.attempt(ref)
        return await attempt.hold(key, ref.scope, taking, is_retry=False, stored=lambda _: False)

    async def ask(self, key: str = KEY, ref: RunRef = RUN, taking: Taking = NEXT) -> int:
        hold = await self.hold(key, ref, taking)
        hold.use()
        hold.delivered()
        hold.close()
        return int(hold.ordinal)

    async def cursor(self, token: str | None = None) -> dict[str, Any]:
        return await self.runs.cursor("r", token)

    async def restore(self, cursor: dict[str, Any], token: str | None = None) -> dict[str, Any]:
        name, after = cursor["attempt"], cursor["after"]
        return await self.runs.restore("r", token, name and named(name), after and named(after))


def named(text: str) -> LineName:
    """Return the name of an event that a cursor has as text."""
    origin, _, seq = text.partition("/")
    return LineName(origin, int(seq))
