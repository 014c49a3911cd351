"""Collects what the checks of `doctor` need: settings, the environment, the directory's owner, the network."""

import asyncio
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kdproxy import wiring
from kdproxy.app import loop_factory
from kdproxy.core.models import Upstream
from kdproxy.engine.clock import SystemClock
from kdproxy.engine.ledger import Ledger
from kdproxy.engine.reach import Finding, check_upstream
from kdproxy.filesystem import is_network
from kdproxy.ops.doctor import access, contents, disk, machine, surroundings, versions
from kdproxy.ops.doctor import upstreams as network
from kdproxy.ops.doctor.check import Check, Checks, note, problem, run_checks, sentence
from kdproxy.settings import Settings, survey
from kdproxy.settings.client_variable import given_by, leads_elsewhere
from kdproxy.settings.place import checkout_of
from kdproxy.storage.directory import known_upstreams
from kdproxy.storage.layout import Place, examine_owned
from kdproxy.storage.lock import Owner
from kdproxy.upstream.environment import EnvironmentProxy
from kdproxy.upstream.http import HttpUpstream
from kdproxy.web.guard import is_loopback
from kdproxy.web.open_files import attainable_open_files, client_room

_KEYS = {
    "openai": ("OPENAI_API_KEY",),
    "anthropic": ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
    "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
}
_HEALTH_SECONDS = 10.0


class _Examination:
    """What is known so far: later checks use what earlier ones found."""

    def __init__(self, flags: Mapping[str, Any], config: Path | None, *, is_offline: bool) -> None:
        loaded, self._mistakes = survey(flags, config=config)
        self._settings = loaded.settings
        self._is_offline = is_offline
        self._path = self._settings.data_dir.expanduser().absolute()
        self._place: Place | None = None
        self._owner: Owner | None = None
        self._is_owned = False
        self._health: Check | None = None
        self._findings: list[tuple[Finding, bool]] = []
        self._readings: list[machine.Reading] = []
        self._upstreams: list[tuple[Upstream, bool]] = []

    def run(self) -> list[Check]:
        """Run all checks."""
        found = run_checks(
            [
                ("versions", lambda: versions.check_python(has_uvloop=loop_factory() is not None)),
                ("versions", versions.check_packages),
                ("versions", versions.check_parser),
                ("versions", versions.check_sqlite),
                ("open files", self._check_open_files),
                ("configuration", self._check_settings),
                ("data directory", self._find_place),
                ("owner", self._find_owner),
                ("upstreams", self._find_upstreams),
            ]
        )
        found += run_checks([("upstreams", self._ask_network)])
        if self._place is not None:
            found += run_checks(self._directory_checks(self._place))
        return found + run_checks(
            [
                ("clock", self._check_clock),
                ("base URLs", self._check_base_urls),
                ("web proxies", self._check_web_proxies),
            ]
        )

    # -- settings ---------------------------------------------------------------------------------------------

    def _check_settings(self) -> Checks:
        settings = self._settings
        hint = "Correct it: `kdproxy serve` does not start with it. The other checks left it out."
        for mistake in self._mistakes:
            yield problem("configuration", sentence(mistake), hint)
        wiring.price(settings, SystemClock())
        if not is_loopback(settings.host) and settings.token is not None:
            yield note(
                "configuration",
                f"The proxy listens on {settings.host}, which other machines can reach, without TLS: token, prompts "
                "and answers can be read on the way.",
                "Put it behind a web server with TLS, or use an SSH tunnel (deploy/README.md).",
            )
        if settings.token_file is not None and settings.token_file.exists():
            yield from access.check_token_file(settings.token_file)

    def _check_open_files(self) -> Checks:
        limit = attainable_open_files()
        return machine.check_open_files(limit, client_room(limit))

    # -- the directory ----------------------------------------------------------------------------------------

    def _find_place(self) -> Checks:
        # Raises for what every verb refuses: nothing else about the directory is checked then.
        self._place = examine_owned(self._path)
        if (checkout := checkout_of(self._path)) is not None:
            yield note(
                "data directory",
                f"{self._path} lies in the git checkout {checkout}, where `git clean -xdf` deletes what was paid for.",
                "Stop the proxy, move the directory out (mv), and name its new place with --data-dir.",
            )

    def _find_owner(self) -> Checks:
        if self._place is Place.OURS:
            self._owner, self._is_owned = contents.find_owner(self._path, on_network=is_network(self._path))
        return iter(())

    def _find_upstreams(self) -> Checks:
        self._upstreams = network.upstreams_to_check(
            self._settings.upstream_models(),
            known_upstreams(self._path) if self._place is Place.OURS else {},
            lambda name: any(os.environ.get(each) for each in _KEYS[name]),
        )
        return iter(())

    def _directory_checks(self, place: Place) -> Iterable[tuple[str, Any]]:
        path = self._path
        at = path if place is not Place.NEW else next(each for each in path.parents if each.exists())
        type_name = disk.file_system_of(at)
        if place is Place.NEW:
            yield "permissions", lambda: access.check_parent(path)
        else:
            yield "permissions", lambda: access.check_access(path, type_name=type_name)
        yield "file system", lambda: disk.check_file_system(at, type_name)
        yield "free space", lambda: disk.check_room(at)
        if place is not Place.NEW:
            yield "sync", lambda: disk.check_sync(path)
            if not is_network(path):
                yield "locks", lambda: disk.check_locks(path)
        if place is Place.OURS:
            yield "journal", lambda: contents.check_contents(path, is_owned=self._is_owned)
            yield (
                "owner",
                lambda: contents.check_owner(path, self._owner, is_owned=self._is_owned, health=self._health),
            )

    # -- the network ------------------------------------------------------------------------------------------

    def _ask_network(self) -> Checks:
        settings = self._settings
        if self._is_offline or not settings.check_upstreams or not settings.mode.buys:
            why = "--offline" if self._is_offline else "the settings say so"
            yield note("upstreams", f"Not checked ({why}).")
            asked: list[tuple[Upstream, bool]] = []
        else:
            asked = self._upstreams
            if not asked:
                yield note(
                    "upstreams",
                    "Not checked: none is configured, and the environment has no API key.",
                    "`kdproxy doctor --upstream URL` checks one.",
                )
        asyncio.run(self._ask(asked))
        yield from network.check_reach(self._findings)

    async def _ask(self, asked: list[tuple[Upstream, bool]]) -> None:
        settings, ledger = self._settings, Ledger()
        direct, client = _client(settings, uses_proxy=False), _client(settings, uses_proxy=True)
        free = network.FreeClient(client, SystemClock().now)

        async def check(upstream: Upstream, is_used: bool) -> None:
            wanted = wiring.start_check(settings, upstream, ())
            self._findings.append((await check_upstream(free, ledger, wanted), is_used))

        try:
            async with asyncio.TaskGroup() as group:
                for upstream, is_used in asked:
                    group.create_task(check(upstream, is_used))
                if self._address is not None and self._owner is not None:
                    group.create_task(self._ask_owner(direct, self._owner))
        finally:
            await client.close()
            await direct.close()
        self._readings = free.readings

    async def _ask_owner(self, client: HttpUpstream, owner: Owner) -> None:
        try:
            async with asyncio.timeout(_HEALTH_SECONDS):
                self._health = await network.check_health(client, owner)
        except TimeoutError:
            self._health = problem(
                "owner",
                f"Process {owner.pid} ({owner.command}) owns the directory and has not answered at {owner.address} "
                f"within {_HEALTH_SECONDS:g} s.",
                f"Read its log. If it hangs: kill {owner.pid}; what it stored is kept.",
            )

    @property
    def _address(self) -> str | None:
        """Where the owner serves, if that is on this machine."""
        import socket

        is_here = self._owner is not None and self._owner.host == socket.gethostname()
        return self._owner.address if self._owner is not None and self._is_owned and is_here else None

    # -- the rest ---------------------------------------------------------------------------------------------

    def _check_clock(self) -> Checks:
        newest_at = contents.newest_line_at(self._path) if self._place is Place.OURS else None
        return machine.check_clock(SystemClock().now(), newest_at, self._readings)

    def _check_base_urls(self) -> Checks:
        port = None if self._address is None else urlsplit(self._address).port
        given = given_by(os.environ, [self._settings.port] if port is None else [port])
        urls = surroundings.BaseUrls(given.urls, given.own, leads_elsewhere(os.environ))
        upstreams = [upstream for upstream, _ in self._upstreams]
        return surroundings.check_base_urls(urls, upstreams, address=self._address)

    def _check_web_proxies(self) -> Checks:
        given = given_by(os.environ, [self._settings.port])
        return surroundings.check_web_proxies(
            EnvironmentProxy(),
            [upstream.url for upstream, _ in self._upstreams],
            is_used=self._settings.use_environment_proxy,
            has_base_url=bool(given.own),
        )


def _client(settings: Settings, *, uses_proxy: bool) -> HttpUpstream:
    return HttpUpstream(
        connect_seconds=settings.connect_seconds,
        first_byte_seconds=settings.first_byte_seconds,
        read_seconds=settings.read_seconds,
        total_seconds=settings.total_seconds,
        use_environment_proxy=uses_proxy and settings.use_environment_proxy,
    )


def examine(flags: Mapping[str, Any], *, config: Path | None, is_offline: bool) -> list[Check]:
    """Run all checks with the settings of some flags."""
    return _Examination(flags, config, is_offline=is_offline).run()
