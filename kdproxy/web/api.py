"""The proxy's own API: jobs on its archive for the command line, while the proxy owns the data directory.

`POST /_kdproxy/api/JOB` takes a JSON object of arguments; the reply is NDJSON, one event per line, with a result or an
error last. The token is in the lock file, so whoever may read that file may call. Jobs run in a thread, in short
slices, and stop when the caller disconnects.
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import orjson
from aiohttp import web

from kdproxy.errors import KdproxyError, RequestRefused
from kdproxy.ops import job, wire
from kdproxy.ops.context import JobContext
from kdproxy.ops.event import Events
from kdproxy.web.own_routes import Access, Call, OwnRoute

log = logging.getLogger("kdproxy.web")

PREFIX = "/_kdproxy/api/"
MAX_ARGUMENT_BYTES = 4 << 20
_SLICE_SECONDS = 0.1
_SLICE_BYTES = 1 << 20
"""How long a job runs, and how much it writes, before the loop checks that the caller is still connected."""


class JobApi:
    """Runs jobs."""

    def __init__(self, context: JobContext) -> None:
        self._context = context
        self._writing = asyncio.Lock()
        self._is_stopping = False

    def stop(self) -> None:
        """Stop the running jobs; their callers get an error that asks them to run the command again."""
        self._is_stopping = True

    def routes(self) -> tuple[OwnRoute, ...]:
        """Return the route of all jobs: a new job is the owner's too."""
        return (OwnRoute("POST", f"{PREFIX}*", Access.OWNER, self._answer),)

    async def _answer(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        (name,) = call.words
        arguments = job.arguments_of(name, await _read(request))
        events = job.start(self._context, arguments)
        if not job.JOBS[name].writes:
            return await self._run(request, events)
        async with self._writing:
            return await self._run(request, events)

    async def _run(self, request: web.BaseRequest, events: Events) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Server": "kdproxy"})
        # One thread per job: slices run in order, and the last one ends before the job is closed.
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kdproxy-job")
        loop = asyncio.get_running_loop()
        try:
            await response.prepare(request)
            is_over = False
            while not is_over:
                text, is_over = await loop.run_in_executor(executor, _work, events)
                if self._is_stopping and not is_over:
                    text, is_over = text + wire.dump_error(_stopping()), True
                if text:
                    await response.write(text)
            await response.write_eof()
        finally:
            executor.submit(_close, events)
            executor.shutdown(wait=False)
        return response


def _work(events: Events) -> tuple[bytes, bool]:
    """Run a job for one slice; return its output, and whether it has ended."""
    until = time.monotonic() + _SLICE_SECONDS
    said: list[bytes] = []
    size = 0
    try:
        for event in events:
            said.append(wire.dump(event))
            size += len(said[-1])
            if size >= _SLICE_BYTES or time.monotonic() >= until:
                return b"".join(said), False
    except KdproxyError as error:
        said.append(wire.dump_error(error))
    except Exception:
        log.exception("a job crashed")
        said.append(wire.dump_error(_crashed()))
    return b"".join(said), True


def _close(events: Iterator[object]) -> None:
    close = getattr(events, "close", None)
    if close is not None:
        close()


async def _read(request: web.BaseRequest) -> object:
    parts: list[bytes] = []
    size = 0
    async for part in request.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > MAX_ARGUMENT_BYTES:
            raise _refused(f"The arguments are longer than {MAX_ARGUMENT_BYTES} bytes.", "body_too_large", 413)
    try:
        return orjson.loads(b"".join(parts))
    except orjson.JSONDecodeError as error:
        raise _refused("The arguments are not JSON.", "bad_arguments", 400) from error


def _refused(message: str, code: str, status: int) -> RequestRefused:
    return RequestRefused(
        message, hint="Use the kdproxy command: it finds the address and the token.", code=code, http_status=status
    )


def _stopping() -> KdproxyError:
    return KdproxyError(
        "The proxy is shutting down and has stopped the job.",
        hint="Run the command again after a restart; what the job has done is kept.",
        code="job_stopped",
    )


def _crashed() -> KdproxyError:
    return KdproxyError(
        "The job crashed in the proxy.",
        hint="This is a bug: report it with the traceback in the proxy's log.",
        code="internal_error",
    )
