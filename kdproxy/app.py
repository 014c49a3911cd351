"""The composition root: wires the adapters together, with wiring.py; storage/directory.py chooses the store."""

import asyncio
import logging
import os
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from kdproxy import wiring
from kdproxy.core.models import Upstream
from kdproxy.core.proof import proof_of
from kdproxy.core.rename import Renamed, renamed
from kdproxy.core.routing import BUILT_IN, Router
from kdproxy.engine.cached_call import CachedCall
from kdproxy.engine.clock import SystemClock
from kdproxy.engine.drain import Drain, UnderWay
from kdproxy.engine.fetch import Fetcher
from kdproxy.engine.fetch_request import RetrySettings
from kdproxy.engine.flights import Flights
from kdproxy.engine.flow import Flow
from kdproxy.engine.ledger import Ledger
from kdproxy.engine.reach import Finding, check_upstream
from kdproxy.engine.relay import Relay
from kdproxy.engine.repeats import Repeats
from kdproxy.engine.runs import Runs
from kdproxy.engine.samples import Samples
from kdproxy.engine.server_kind import ServerKinds
from kdproxy.engine.uncached_call import UncachedCall
from kdproxy.engine.unread import UnreadSamples
from kdproxy.errors import KdproxyError
from kdproxy.ops.alias import AliasThread
from kdproxy.ops.context import JobContext, OnRuns
from kdproxy.ops.runs.change import runs_at_rest, runs_at_work
from kdproxy.settings import Settings
from kdproxy.storage import port_file
from kdproxy.storage.directory import DataDirectory
from kdproxy.storage.lane_memory import LaneMemory
from kdproxy.storage.lock import is_alive
from kdproxy.storage.reading import ReadOnlyDirectory
from kdproxy.storage.secret_file import load_secret
from kdproxy.telemetry.log import RequestLog
from kdproxy.upstream.http import HttpUpstream
from kdproxy.web.admin import Admin, Health
from kdproxy.web.api import JobApi
from kdproxy.web.attempt_port import OpenAttempt
from kdproxy.web.browser_guard import BrowserGuard
from kdproxy.web.clients import Clients
from kdproxy.web.guard import HostGuard, TokenGuard
from kdproxy.web.listener import Site, bind
from kdproxy.web.open_files import client_room, open_files
from kdproxy.web.own_routes import OwnRoutes
from kdproxy.web.proxy import Proxy
from kdproxy.web.run_api import RunApi
from kdproxy.web.server import Handler, HttpServer

log = logging.getLogger("kdproxy")

REPORT_SECONDS = 30.0
"""How often the log repeats why an upstream still fails."""

REMEMBER_SECONDS = 60.0
"""How often the lanes' learned limits are saved, if they have changed."""

SHUTDOWN_SECONDS = 5.0
"""How long a client may take to read the rest of its answer once all calls have completed."""


@dataclass(slots=True)
class ChangedUpstream:
    """An upstream whose URL has changed since its entries were bought."""

    name: str
    old_url: str
    new_url: str
    entries: int


class App:
    """A proxy over an open data directory. `start` listens, `stop` drains and closes all but the directory."""

    def __init__(self, settings: Settings, directory: DataDirectory) -> None:
        self._settings = settings
        self._directory = directory
        self._runner: web.ServerRunner | None = None
        self._is_stopping = False
        self.ledger = Ledger()
        self.repeats = Repeats()
        self.address = ""
        self.secret = secrets.token_hex(16)
        """Proves to a script that this is its proxy: docs/formats/port-file.md."""

    async def start(self) -> None:
        """Listen.

        Raises:
            KdproxyError: the port is taken, the address is not this machine's, or the port file cannot be written.
        """
        settings, archive, clock = self._settings, self._directory.archive, SystemClock()
        if settings.port_file is not None:
            port_file.prepare(settings.port_file)
        price = wiring.price(settings, clock)  # first: a faulty price file is reported before anything is open
        self._upstream = HttpUpstream(
            connect_seconds=settings.connect_seconds,
            first_byte_seconds=settings.first_byte_seconds,
            read_seconds=settings.read_seconds,
            total_seconds=settings.total_seconds,
            use_environment_proxy=settings.use_environment_proxy,
        )
        self._flights = Flights(detached_seconds=settings.detached_max_seconds)
        self._kinds = ServerKinds(self._upstream, clock)
        self._fetcher = fetcher = Fetcher(
            self._upstream,
            clock,
            RetrySettings(
                total_seconds=settings.retry_seconds,
                max_attempts=settings.retry_attempts or None,
                fails_fast=settings.fail_fast,
            ),
            ledger=self.ledger,
            billing=self._kinds,
            call_log=archive.calls,
        )
        fetcher.restore(archive.calls.state().failed_questions)
        self._memory = LaneMemory(self._directory.path, now=clock.now())
        self._lanes = wiring.lanes(settings, clock, self._kinds, self._memory)
        cached_call = CachedCall(
            archive,
            fetcher,
            self._lanes,
            clock,
            self.ledger,
            price,
            answer_limit_bytes=settings.answer_limit_bytes,
        )
        runs = Runs(archive.calls, clock)
        self._flow = Flow(
            archive,
            Relay(self._upstream, fetcher, self.ledger),
            self._flights,
            cached_call,
            UncachedCall(fetcher, self._lanes, answer_limit_bytes=settings.answer_limit_bytes),
            Samples(archive, runs),
            clock,
            allow_hosted_tools=settings.allow_hosted_tools,
            match_prompts=settings.match_prompts,
            keep_alive_seconds=settings.keep_alive_seconds,
        )
        self._drain = Drain(self._flights, self._flow.passing, archive, seconds=settings.drain_seconds)
        token = None if settings.token is None else settings.token.reveal()
        router = Router(settings.upstream_models())
        self._jobs = JobApi(
            job_context(settings, self._directory, serving=self._serving, on_runs=runs_at_work(runs)),
        )
        room = client_room(open_files())

        def make_server(handler: Handler) -> HttpServer:
            return HttpServer(
                handler,
                room=room,
                on_shortage=self._upstream.close_idle,
                on_lost=lambda connection, is_reset: clients.lost(connection, is_reset=is_reset),
            )

        self._run_api = RunApi(
            runs,
            router.upstreams,
            lambda: self._proxy.handle,
            make_server,
            lambda: [lane for lane in self._lanes.snapshot() if lane["stopped"] is not None],
            is_alive,
        )
        token_guard = TokenGuard(
            token,
            {name: [secret.reveal() for secret in secrets] for name, secrets in settings.credentials.items()},
            secret=load_secret(self._directory.path),
        )
        self._unread = UnreadSamples(clock)
        clients = Clients(token_guard, self.repeats, self._unread, clock)
        browser_guard = BrowserGuard(settings.allowed_origins)
        admin = Admin(token_guard, self._health, self._prove, lambda: self.repeats.requests > 0)
        self.own_routes = OwnRoutes(
            (*admin.routes(), *self._jobs.routes(), *self._run_api.routes()),
            browser_guard,
            self._directory.owner.token,
            self._run_api.attempt_with,
        )
        self._proxy = proxy = Proxy(
            self._flow,
            router,
            HostGuard(frozenset((*settings.allowed_hosts, settings.host))),
            browser_guard,
            token_guard,
            self.ledger,
            clients,
            (RequestLog(sys.stderr),),
            clock,
            self.own_routes.handle,
            mode=settings.mode,
            body_limit_bytes=settings.body_limit_bytes,
            patience_seconds=settings.patience_seconds,
        )
        server = make_server(proxy.handle)
        runner = web.ServerRunner(server, shutdown_timeout=SHUTDOWN_SECONDS)
        await runner.setup()
        try:
            await Site(runner, bind(settings.host, settings.port), server).start()
        except OSError as error:
            await runner.cleanup()
            await self._upstream.close()
            raise KdproxyError(
                f"kdproxy cannot listen on {settings.host}:{settings.port} ({error.strerror}).",
                hint="Nothing was started. Another process, perhaps of another user, may hold the port. Choose another "
                "port with --port (0: a free one), or stop that process.",
                code="address_unusable",
            ) from error
        self._runner = runner
        host, port = runner.addresses[0][:2]
        self._port = port
        shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared, not bound
        self.address = f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
        self._directory.announce(self.address)
        if settings.port_file is not None:
            port_file.write(settings.port_file, self._listening)
        self._aliases = AliasThread(archive, router.upstreams, clock.now)
        self._aliases.start()
        self._remembering = asyncio.create_task(self._remember_lanes())
        self._reporting = asyncio.create_task(self._report_outages())

    @property
    def _listening(self) -> port_file.Listening:
        return port_file.Listening(address=self.address, port=self._port, pid=os.getpid(), secret=self.secret)

    def _prove(self, challenge: str) -> str:
        return proof_of(self.secret, challenge, self._port)

    def _serving(self) -> dict[str, Any]:
        """Return what `stats` shows of a running proxy."""
        owner = self._directory.owner
        return {
            "address": self.address,
            "pid": owner.pid,
            "started_at": owner.started_at,
            "ledger": self.ledger.as_dict(),
            "repeats": self.repeats.as_dict(),
            "lanes": self.lanes(),
        }

    async def _remember_lanes(self) -> None:
        while True:
            await asyncio.sleep(REMEMBER_SECONDS)
            await asyncio.to_thread(self._memory.save, self._lanes.learned())

    async def _report_outages(self) -> None:
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            for outage in self._lanes.outages(within_seconds=2 * REPORT_SECONDS):
                log.warning("the upstream still fails", extra=outage)

    async def check_upstreams(self, report: Callable[[Finding], None]) -> None:
        """Check once whether the upstreams answer, and report each finding as it comes.

        These are the configured upstreams, else the built-in ones with stored answers. In mode replay: none.
        """
        settings = self._settings
        if not settings.check_upstreams or not settings.mode.buys:
            return
        answers = self._directory.archive.counters.answers
        upstreams = settings.upstream_models() or tuple(each for each in BUILT_IN if answers.get(each.name))

        async def check(upstream: Upstream) -> None:
            report(
                await check_upstream(
                    self._upstream,
                    self.ledger,
                    wiring.start_check(settings, upstream, self._proxy.marks(upstream.name)),
                )
            )

        async with asyncio.TaskGroup() as group:
            for upstream in upstreams:
                group.create_task(check(upstream))

    def lanes(self) -> list[dict[str, Any]]:
        """Return the present state of each lane: its limits, its queue, and why it is stopped, if it is."""
        return self._lanes.snapshot()

    @property
    def open_attempts(self) -> tuple[OpenAttempt, ...]:
        """The attempts that clients of the run API have opened."""
        return self._run_api.open_attempts

    def _health(self) -> Health:
        archive = self._directory.archive
        if archive.trouble is not None:
            held = archive.unwritten
            return Health(status="degraded", reason=archive.trouble, hint=archive.trouble_hint, unwritten_answers=held)
        return Health(status="draining" if self._is_stopping else "ok")

    def refuse_calls(self) -> UnderWay:
        """Refuse new calls; return what is under way."""
        self._is_stopping = True
        self._flow.stop_buying()
        self._jobs.stop()
        self._run_api.stop()
        return self._drain.under_way

    def hurry(self) -> None:
        """Make a waiting `stop` give up what is under way."""
        self._drain.hurry()

    async def stop(self) -> UnderWay:
        """Refuse new calls, let running ones finish, close; return what was given up."""
        if self._runner is None:
            return UnderWay(calls=0, answers=0)
        if self._settings.port_file is not None:
            port_file.remove(self._settings.port_file, self._listening)
        self.refuse_calls()
        given_up = await self._drain.run()
        await asyncio.to_thread(self._aliases.stop)
        self._remembering.cancel()
        self._reporting.cancel()
        await asyncio.to_thread(self._memory.save, self._lanes.learned())
        await self._kinds.close()
        await self._fetcher.close()
        # A pass-through that is given up ends with its connection.
        await self._upstream.close()
        self._unread.stop()
        await self._run_api.close()
        await self._runner.cleanup()
        return given_up


def changed_upstreams(settings: Settings, directory: DataDirectory) -> list[ChangedUpstream]:
    """Compare the upstreams with those that the directory remembers, then remember the present ones."""
    known = directory.upstream_urls()
    router = Router(settings.upstream_models())
    urls = {upstream.name: upstream.url for upstream in router.upstreams}
    entries = directory.archive.counters.answers
    changed = [
        ChangedUpstream(name, known[name], url, entries.get(name, 0))
        for name, url in urls.items()
        if name in known and known[name].rstrip("/") != url.rstrip("/")
    ]
    directory.remember_upstreams(urls)
    return changed


def renamed_upstreams(settings: Settings, directory: DataDirectory) -> list[Renamed]:
    """Find stored answers whose upstream has a new name in these settings: no request would find them."""
    upstreams = Router(settings.upstream_models()).upstreams
    return renamed(directory.archive.counters.answers, directory.upstream_urls(), upstreams)


def job_context(
    settings: Settings,
    directory: DataDirectory | ReadOnlyDirectory,
    *,
    serving: Callable[[], dict[str, Any]] | None = None,
    on_runs: OnRuns | None = None,
) -> JobContext:
    """Build the context that jobs work on; `on_runs`: of the proxy that owns the directory."""
    return JobContext(
        on_runs=on_runs or runs_at_rest(directory.archive.calls, SystemClock()),
        library=directory.archive,
        router=Router(settings.upstream_models()),
        now=SystemClock().now,
        serving=serving,
        manifest=directory.manifest,
        index_trouble=directory.index_trouble,
    )


def open_directory(settings: Settings, *, command: str, accepts_loss: bool = False) -> DataDirectory:
    """Open the data directory of some settings."""
    return DataDirectory.open(
        settings.data_dir,
        command=command,
        segment_bytes=settings.segment_bytes,
        memory_bytes=settings.memory_bytes,
        accepts_loss=accepts_loss,
    )


def read_directory(settings: Settings) -> ReadOnlyDirectory:
    """Open the data directory of some settings without writing to it."""
    return ReadOnlyDirectory.open(settings.data_dir)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's loop if it is installed (1.2 times the hits per second), else None."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
