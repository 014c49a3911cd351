"""The teacher: a real HTTP server on loopback that answers as providers do, and misbehaves on request."""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from aiohttp import web

from kdproxy.testing.teacher.call import CallLog, Outcome, TeacherCall
from kdproxy.testing.teacher.constant import ConstantChat
from kdproxy.testing.teacher.delivery import Delivery, reset
from kdproxy.testing.teacher.enforcer import Enforcer
from kdproxy.testing.teacher.fault import Fault, Problem
from kdproxy.testing.teacher.limit import GENEROUS, FixedWindow, LimitState
from kdproxy.testing.teacher.route import Dialects, has_credentials
from kdproxy.testing.teacher.script import limit_fault, reply_for
from kdproxy.testing.teacher.stamp import stamp_of
from kdproxy.testing.teacher.step import Answer, Hang, Reset, Step

_CONTROL = "/_teacher/"


class ScriptedTeacher:
    """Serve on 127.0.0.1 while entered; record every call; act out the script, then answer as usual.

    Every answer differs from every other, so that an answer bought twice differs from a replay, unless
    `deterministic` makes them depend on the request alone. `constant` answers chat with prepared bytes, for
    benchmarks. With `remember=False` calls are counted but not recorded.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        latency_seconds: float = 0.0,
        seconds_per_event: float = 0.0,
        deterministic: bool = False,
        require_credentials: bool = True,
        requests_per_minute: int | None = None,
        enforcer: Enforcer | None = None,
        window_seconds: float = 60.0,
        answer_words: int = 10,
        constant: bool = False,
        remember: bool = True,
        clock: Callable[[], float] = time.monotonic,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.port = port
        self._tls = tls
        self.latency_seconds = latency_seconds
        self.seconds_per_event = seconds_per_event
        self.deterministic = deterministic
        self.require_credentials = require_credentials
        self.answer_words = answer_words
        self._limit = (
            None
            if requests_per_minute is None
            else FixedWindow(limit=requests_per_minute, window_seconds=window_seconds, clock=clock)
        )
        self.enforcer = enforcer
        self._constant = ConstantChat() if constant else None
        self._log = CallLog(remember=remember)
        self._number = 0
        self._steps: deque[Step] = deque()
        self._dialects = Dialects()
        self._open = asyncio.Event()
        self._open.set()
        self._unhang = asyncio.Event()
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        # A handler continues after its client has left, as at a provider: the answer is billed anyway.
        server = web.Server(self._handle, access_log=None, handler_cancellation=False)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.05)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, backlog=1024, ssl_context=self._tls)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def root_url(self) -> str:
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.root_url}/v1"

    @property
    def calls(self) -> list[TeacherCall]:
        return self._log.calls

    @property
    def ended(self) -> int:
        """How many calls have ended, whatever their outcome."""
        return self._log.ended

    def count(self, suffix: str | None = None) -> int:
        """Return the number of calls, on all paths or on those with this ending."""
        return self._log.count(suffix)

    def script(self, *steps: Step) -> None:
        """Append steps for the next questions (POSTs with a credential), one each."""
        self._steps.extend(steps)

    @property
    def unplayed(self) -> int:
        """Number of script steps that have not been used yet."""
        return len(self._steps)

    def hold(self) -> None:
        """Hold every answer before its head, until `release`."""
        self._open.clear()

    def release(self) -> None:
        """Send held and hanging answers, and stop holding."""
        self._open.set()
        self._unhang.set()
        self._unhang = asyncio.Event()

    async def wait_for_calls(self, count: int, *, suffix: str | None = None, timeout_seconds: float = 10.0) -> None:
        """Return once that many calls have arrived; raise TimeoutError if they do not in time."""
        await self._log.wait_until(lambda: self.count(suffix) >= count, timeout_seconds=timeout_seconds)

    async def wait_for_ended(self, count: int, *, timeout_seconds: float = 10.0) -> None:
        """Return once that many calls have ended; raise TimeoutError if they do not in time."""
        await self._log.wait_until(lambda: self.ended >= count, timeout_seconds=timeout_seconds)

    def reset(self) -> None:
        """Forget calls, script and spent limits; answers stay unique."""
        self._log.clear()
        self._steps.clear()
        if self._limit is not None:
            self._limit.clear()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        # The payload itself: request.read() would stop at aiohttp's 1 MiB.
        body = await request.content.read()
        if request.path.startswith(_CONTROL):
            return self._control(request)
        call = self._record(request, body)
        try:
            response, outcome = await self._answer(request, call)
        except ConnectionError:
            self._log.end(call, Outcome.CLIENT_LEFT)
            raise
        except asyncio.CancelledError:
            self._log.end(call, Outcome.BROKEN)
            raise
        self._log.end(call, outcome)
        return response

    def _record(self, request: web.BaseRequest, body: bytes) -> TeacherCall:
        self._number += 1
        call = TeacherCall(
            number=self._number,
            method=request.method,
            path=request.path,
            target=request.raw_path,
            headers=request.headers,
            body=body,
            started_at=time.monotonic(),
        )
        self._log.arrive(call)
        return call

    async def _answer(self, request: web.BaseRequest, call: TeacherCall) -> tuple[web.StreamResponse, Outcome]:
        is_allowed = not self.require_credentials or has_credentials(call)
        step = self._next_step(call) if is_allowed else Answer()
        if isinstance(step, Reset):
            reset(request)
            return web.Response(), Outcome.BROKEN
        if self.latency_seconds:
            await asyncio.sleep(self.latency_seconds)
        if isinstance(step, Hang):
            await self._unhang.wait()
        await self._open.wait()
        limit, fault = self._admit(call, step, is_allowed=is_allowed)
        if self._constant is not None and fault is None and self._constant.takes(call, step):
            return await self._constant.send(request, call)
        dialect = self._dialects.of(call)
        if self.enforcer is not None and fault is None and call.is_question and isinstance(step, Answer):
            fault = self.enforcer.admit(call)
        stamp = stamp_of(call, deterministic=self.deterministic, words=self.answer_words)
        headers = dialect.headers(call, stamp, limit)
        delivery = Delivery(
            request=request,
            headers=headers if self.enforcer is None else self.enforcer.headers(headers),
            step=step,
            seconds_per_event=self.seconds_per_event,
            error_event=lambda position: dialect.error_event(call, position=position),
        )
        if fault is not None:
            return await delivery.send(dialect.refuse(fault, call))
        return await delivery.send(reply_for(step, call, dialect, stamp))

    def _next_step(self, call: TeacherCall) -> Step:
        return self._steps.popleft() if call.is_question and self._steps else Answer()

    def _admit(self, call: TeacherCall, step: Step, *, is_allowed: bool) -> tuple[LimitState, Fault | None]:
        if not is_allowed:
            return GENEROUS, Fault(problem=Problem.UNAUTHORIZED, message="No API key was given.")
        if self._limit is None or not call.is_question or not isinstance(step, Answer):
            return GENEROUS, None
        is_admitted, state = self._limit.admit()
        if is_admitted:
            return state, None
        return state, limit_fault(state)

    def _control(self, request: web.BaseRequest) -> web.Response:
        if (request.method, request.path) == ("GET", f"{_CONTROL}calls"):
            return web.json_response({"total": self.count(), "by_path": dict(self._log.by_path)})
        if (request.method, request.path) == ("POST", f"{_CONTROL}reset"):
            self.reset()
            return web.json_response({"total": 0})
        return web.json_response({"error": f"no {request.method} {request.path} here"}, status=404)
