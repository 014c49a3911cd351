"""The API of runs: `/_kdproxy/api/runs/NAME/...`, for `kdproxy run` and for training scripts. docs/samples.md.

Each request carries a token: that of the lock file, for all runs, or the key of an open attempt, for its own run.
`web/own_routes.py` checks it. One route is one row of `RunApi._routes` and one method.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import orjson
from aiohttp import web

from kdproxy.core.models import LineName, Upstream
from kdproxy.core.record import name_from
from kdproxy.core.run_ref import RunRef, check_name
from kdproxy.engine.ledger import Ledger
from kdproxy.engine.runs import Runs
from kdproxy.errors import KdproxyError, RequestRefused
from kdproxy.web.attempt_port import OpenAttempt
from kdproxy.web.guard import is_same_secret
from kdproxy.web.own_routes import Access, Call, OwnRoute
from kdproxy.web.own_routes import Answer as OwnAnswer
from kdproxy.web.server import Handler, HttpServer

PREFIX = "/_kdproxy/api/runs"
MAX_BODY_BYTES = 64 << 10
_PORTS = range(65_536)

Answer = dict[str, Any]


class ProxyHandler(Protocol):
    """Answers the requests of an attempt's port."""

    async def __call__(
        self, request: web.BaseRequest, run_ref: RunRef | None = None, ledger: Ledger | None = None
    ) -> web.StreamResponse:
        """Answer one request."""


class Asking:
    """One admitted request: its run, the words of its path in the places of `*`, its JSON members, its query."""

    __slots__ = ("attempt", "members", "query", "run", "words")

    def __init__(
        self,
        run: str,
        words: tuple[str, ...],
        members: Answer,
        attempt: OpenAttempt | None,
        query: Mapping[str, str],
    ) -> None:
        self.run = run
        self.words = words
        self.members = members
        self.query = query
        self.attempt = attempt
        """The attempt whose key it carries; None: the lock file's token."""


class RunApi:
    """Handles the requests. Event loop only."""

    def __init__(
        self,
        runs: Runs,
        upstreams: tuple[Upstream, ...],
        handle: Callable[[], ProxyHandler],
        make_server: Callable[[Handler], HttpServer],
        stopped_lanes: Callable[[], list[dict[str, Any]]],
        is_alive: Callable[[int], bool],
    ) -> None:
        """Take what it works on.

        Args:
            handle: returns the handler of requests, which is made after this object.
            stopped_lanes: returns the lanes that wait for a quota.
            is_alive: whether a process of this machine runs.
        """
        self._runs = runs
        self._upstreams = upstreams
        self._handle = handle
        self._make_server = make_server
        self._stopped_lanes = stopped_lanes
        self._is_alive = is_alive
        self._open: dict[tuple[str, str], OpenAttempt] = {}
        self._is_stopping = False
        self._routes: dict[tuple[str, str], Callable[[Asking], Awaitable[Answer]]] = {
            ("POST", "attempts"): self._open_attempt,
            ("GET", "attempts/*"): self._show_attempt,
            ("POST", "attempts/*/close"): self._close_attempt,
            ("GET", "cursor"): self._cursor,
            ("POST", "cursor"): self._restore,
        }

    @property
    def open_attempts(self) -> tuple[OpenAttempt, ...]:
        """The attempts that have been opened and not closed."""
        return tuple(self._open.values())

    def stop(self) -> None:
        """Open no more attempts."""
        self._is_stopping = True

    async def close(self) -> None:
        """Close all ports."""
        self.stop()
        for opened in self.open_attempts:
            await opened.close()
        self._open.clear()

    def routes(self) -> tuple[OwnRoute, ...]:
        """Return the routes: what is below a run, its open attempts may call too."""
        below = [
            OwnRoute(method, f"{PREFIX}/*/{shape}", Access.RUN, self._answering(answer))
            for (method, shape), answer in self._routes.items()
        ]
        return (OwnRoute("GET", PREFIX, Access.OWNER, self._about), *below)

    def attempt_with(self, run: str, key: str) -> OpenAttempt | None:
        """Return the open attempt of a run that has this key."""
        for opened in self._open.values():
            if opened.ref.run == run and is_same_secret(key, opened.key):
                return opened
        return None

    def _answering(self, answer: Callable[[Asking], Awaitable[Answer]]) -> OwnAnswer:
        async def reply(request: web.BaseRequest, call: Call) -> web.StreamResponse:
            run, *words = call.words
            members = await _read(request)
            asking = Asking(check_name(run), tuple(words), members, call.attempt, request.query)
            return web.json_response(await answer(asking))

        return reply

    async def _about(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        upstreams = [
            {"name": upstream.name, "url": upstream.url, "provider": upstream.provider} for upstream in self._upstreams
        ]
        return web.json_response({"upstreams": upstreams})

    # -- attempts ---------------------------------------------------------------------------------------------

    async def _open_attempt(self, asking: Asking) -> Answer:
        if self._is_stopping:
            raise KdproxyError(
                "The proxy is shutting down: no attempt was opened.",
                hint="Ask again once another proxy owns the data directory.",
                code="draining",
                http_status=503,
            )
        token = _member(asking.members, "token", str)
        continues = _member(asking.members, "continue", bool) or False
        port = _member(asking.members, "port", int)
        pid = _member(asking.members, "pid", int)
        if token is not None:
            check_name(token)
        if port is not None and port not in _PORTS:
            raise _refused("port is not a number from 0 to 65535.", "bad_arguments", 400)
        attempt = await self._runs.open(asking.run, token, is_new=not continues)
        place = asking.run, attempt.token
        if (left := self._open.get(place)) is not None and left.pid is not None and not self._is_alive(left.pid):
            # `kdproxy run` was killed: nobody else closes it. A command that outlived it would share the samples.
            del self._open[place]
            await left.close()
        if place in self._open:
            raise RequestRefused(
                f"Attempt {attempt.token!r} of run {asking.run!r} is open already.",
                hint="Nothing was sent. Two clients of one attempt would share its samples: close it, or open a new "
                "attempt.",
                code="attempt_open",
                http_status=409,
            )
        opened = self._open[place] = OpenAttempt(RunRef(*place), attempt, pid=pid)
        try:
            if port is not None:
                await opened.listen(self._bound(opened), port, self._make_server)
        except BaseException:
            del self._open[place]
            raise
        return {
            "run": asking.run,
            "token": attempt.token,
            "attempt": str(attempt.name),
            "key": opened.key,
            "address": opened.address,
        }

    def _bound(self, opened: OpenAttempt) -> Handler:
        handle = self._handle()

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            return await handle(request, opened.ref, opened.ledger)

        return answer

    async def _show_attempt(self, asking: Asking) -> Answer:
        return {**self._opened(asking).bill(), "stopped_lanes": self._stopped_lanes()}

    async def _close_attempt(self, asking: Asking) -> Answer:
        opened = self._opened(asking)
        del self._open[opened.ref.run, opened.attempt.token]
        await opened.close()
        review = await self._runs.review(opened.attempt)
        return {**opened.bill(), "stopped_lanes": self._stopped_lanes(), "review": review}

    # -- cursors ----------------------------------------------------------------------------------------------

    async def _cursor(self, asking: Asking) -> Answer:
        is_durable = asking.query.get("sync") != "no"
        return await self._runs.cursor(asking.run, _attempt_of(asking), is_durable=is_durable)

    async def _restore(self, asking: Asking) -> Answer:
        source, after = (_line_name(asking.members, name) for name in ("attempt", "after"))
        if source is None and after is not None:
            raise _refused("The cursor names an event and no attempt.", "bad_arguments", 400)
        return await self._runs.restore(asking.run, _attempt_of(asking), source, after)

    # -- finding ----------------------------------------------------------------------------------------------

    def _opened(self, asking: Asking) -> OpenAttempt:
        (token,) = asking.words
        found = self._open.get((asking.run, token))
        if found is None:
            raise _refused(f"Attempt {token!r} of run {asking.run!r} is not open.", "attempt_not_open", 404)
        return found


def _attempt_of(asking: Asking) -> str | None:
    """Return the token of the attempt that is meant; None: the run's last one."""
    token = asking.query.get("attempt")
    if token is not None:
        return check_name(token)
    return None if asking.attempt is None else asking.attempt.attempt.token


def _line_name(members: Answer, name: str) -> LineName | None:
    if name not in members:
        raise _refused(f"The cursor has no member {name}.", "bad_arguments", 400)
    value = _member(members, name, str)
    try:
        return None if value is None else name_from(value)
    except ValueError as error:
        raise _refused(f"{name} is not the name of an event.", "bad_arguments", 400) from error


def _member(members: Answer, name: str, kind: type[Any]) -> Any:
    value = members.get(name)
    if value is not None and type(value) is not kind:
        raise _refused(f"{name} is of the wrong type.", "bad_arguments", 400)
    return value


async def _read(request: web.BaseRequest) -> Answer:
    parts: list[bytes] = []
    size = 0
    async for part in request.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise _refused(f"The body is longer than {MAX_BODY_BYTES} bytes.", "body_too_large", 413)
    text = b"".join(parts)
    try:
        members = orjson.loads(text) if text else {}
    except orjson.JSONDecodeError as error:
        raise _refused("The body is not JSON.", "bad_arguments", 400) from error
    if not isinstance(members, dict):
        raise _refused("The body is not a JSON object.", "bad_arguments", 400)
    return members


def _refused(message: str, code: str, status: int) -> RequestRefused:
    return RequestRefused(
        message,
        hint="Nothing was sent to a provider. docs/samples.md describes the API.",
        code=code,
        http_status=status,
    )
