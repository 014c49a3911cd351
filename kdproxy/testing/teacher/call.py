"""What the teacher saw: one record per call, and waiting for calls without polling."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from multidict import CIMultiDictProxy, MultiDictProxy
from yarl import URL

from kdproxy.testing.teacher.multipart import parse_form


class Outcome(StrEnum):
    """How a call ended, seen from the teacher."""

    ANSWERED = "answered"
    BROKEN = "broken"
    CLIENT_LEFT = "client_left"


@dataclass(kw_only=True)
class TeacherCall:
    """One call as it came in; `outcome` is set when it has ended."""

    number: int
    method: str
    path: str
    """Decoded, without the query."""
    target: str
    """Path and query as they stood in the request line."""
    headers: CIMultiDictProxy[str]
    body: bytes
    started_at: float
    """Seconds on the monotonic clock."""
    outcome: Outcome | None = None

    @cached_property
    def query(self) -> MultiDictProxy[str]:
        return URL(self.target, encoded=True).query

    @cached_property
    def json(self) -> Any:
        """The body as strict JSON gives it, else None."""
        try:
            return json.loads(self.body, parse_constant=_refuse)
        except ValueError:
            return None

    @cached_property
    def form(self) -> dict[str, bytes] | None:
        """The parts of a multipart body by name, else None."""
        return parse_form(self.headers.get("Content-Type", ""), self.body)

    @property
    def fields(self) -> dict[str, Any]:
        """The question's members: the JSON object, or a form's text fields; empty if it is neither."""
        if isinstance(self.json, dict):
            return self.json
        return {name: value.decode(errors="replace") for name, value in (self.form or {}).items()}

    @property
    def is_question(self) -> bool:
        return self.method == "POST"


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


@dataclass(slots=True)
class CallLog:
    """The calls so far and who waits for how many of them. Owned by the teacher's loop."""

    remember: bool = True
    calls: list[TeacherCall] = field(default_factory=list)
    by_path: Counter[str] = field(default_factory=Counter)
    ended: int = 0
    _waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = field(default_factory=list)

    def arrive(self, call: TeacherCall) -> None:
        self.by_path[call.path] += 1
        if self.remember:
            self.calls.append(call)
        self._wake()

    def end(self, call: TeacherCall, outcome: Outcome) -> None:
        call.outcome = outcome
        self.ended += 1
        self._wake()

    def count(self, suffix: str | None = None) -> int:
        if suffix is None:
            return self.by_path.total()
        return sum(count for path, count in self.by_path.items() if path.endswith(suffix))

    def clear(self) -> None:
        self.calls.clear()
        self.by_path.clear()
        self.ended = 0

    async def wait_until(self, is_reached: Callable[[], bool], *, timeout_seconds: float) -> None:
        """Return when the condition holds; raise TimeoutError if it does not in time."""
        if is_reached():
            return
        future = asyncio.get_running_loop().create_future()
        self._waiters.append((is_reached, future))
        async with asyncio.timeout(timeout_seconds):
            await future

    def _wake(self) -> None:
        if not self._waiters:
            return
        for is_reached, future in self._waiters:
            if not future.done() and is_reached():
                future.set_result(None)
        self._waiters = [waiter for waiter in self._waiters if not waiter[1].done()]
