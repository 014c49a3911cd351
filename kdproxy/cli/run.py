"""`kdproxy run`: run a command whose calls belong to one attempt of a run. docs/cli.md and docs/samples.md.

The proxy that owns the data directory is used if one runs; else one is started here and ended after the command.
"""

import dataclasses
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from kdproxy.cli import run_report
from kdproxy.cli.child import EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, CannotStart, Child, Signals
from kdproxy.cli.options import config_option, data_dir_option, say
from kdproxy.cli.own_proxy import OwnProxy
from kdproxy.cli.run_client import RunClient, Unreachable, is_kdproxy
from kdproxy.core.run_ref import check_name
from kdproxy.errors import ConfigError, DirectoryBusy, KdproxyError, RequestRefused
from kdproxy.settings import Settings, client_variable, load
from kdproxy.settings.client_variable import Given
from kdproxy.settings.load import RUN_URL
from kdproxy.storage.lock import Owner, read_owner
from kdproxy.telemetry.log import configure
from kdproxy.telemetry.output import queued_output
from kdproxy.web.guard import is_loopback
from kdproxy.web.open_files import raise_open_files
from kdproxy.web.run_api import PREFIX

LIVE_SECONDS = 1.0
OWNER_SECONDS = 90.0
"""How long to wait for a proxy that starts or shuts down: longer than a drain."""
MOST_RELAUNCHES = 10
LONGEST_WAIT_SECONDS = 86_400.0
_RETRY_SECONDS = 0.1
_SERVING = ("kdproxy serve", "kdproxy run")


class _Command(click.Command):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" not in args and not {"-h", "--help"} & set(args):
            raise click.UsageError(
                "the command to run stands after --: kdproxy run [OPTIONS] -- python your_script.py", ctx
            )
        return super().parse_args(ctx, args)


@click.command("run", cls=_Command, options_metavar="[OPTIONS] --")
@click.option("--name", help="Name of the run; default: that of the script.")
@click.option("--continue", "continues", is_flag=True, help="Continue the last attempt with its samples.")
@click.option("--expect", type=click.IntRange(min=1), metavar="N", help="Expected number of calls, for the ETA.")
@click.option("--relaunch", is_flag=True, help="Start the command again once a spent quota is back.")
@click.option("--upstream", "upstreams", multiple=True, metavar="URL|NAME=URL", help="Teacher API; may be repeated.")
@data_dir_option
@config_option
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def command(
    command: tuple[str, ...],
    name: str | None,
    continues: bool,
    expect: int | None,
    relaunch: bool,
    upstreams: tuple[str, ...],
    data_dir: str | None,
    config: Path | None,
) -> None:
    """Run a script with samples of its own: starts a proxy if none runs."""
    try:
        _check_command(command[0])
        run = check_name(name if name is not None else _name_of(command))
    except CannotStart as error:
        say(str(error))
        sys.exit(error.exit_code)
    except RequestRefused as error:
        raise ConfigError([f"--name: {error.message}"], hint="Nothing was started.") from None
    flags = {"data_dir": data_dir, "upstreams": upstreams or None}
    loaded = load(flags, config=config)
    given = _given(loaded.settings)
    if not loaded.settings.upstreams and (tables := client_variable.needed_upstreams(given)):
        loaded = load({**flags, "upstreams": tables}, config=config)
    signals = Signals()
    with queued_output():  # else a stderr that nobody reads, or a closed one, stops the proxy and the bill
        configure(loaded.settings.log_level if loaded.origins["log_level"] != "default" else "warning")
        sys.exit(_Job(command, run, loaded.settings, given, signals, continues, relaunch, expect).run())


def _given(settings: Settings) -> Given:
    owner = read_owner(settings.data_dir.expanduser())
    ports = {urlsplit(owner.address).port or 0} if owner is not None and owner.address is not None else set()
    outer = _port_of_outer_run()
    if outer and owner is not None and owner.address is not None and _is_run_of(owner.address):
        ports.add(outer)
    if not is_kdproxy(f"http://127.0.0.1:{settings.port}"):
        ports.add(settings.port)
    given = client_variable.given_by(os.environ, ports)
    problems = [
        f"{name} is {url}, where another kdproxy listens: answers would be stored by both"
        for name, url in given.urls.items()
        if is_loopback(urlsplit(url).hostname or "") and ((outer and urlsplit(url).port == outer) or is_kdproxy(url))
    ]
    if problems:
        hint = (
            f"Nothing was started. Unset {', '.join(given.urls)}, or name that proxy's data directory with --data-dir."
        )
        raise ConfigError(problems, hint=hint)
    return given


def _port_of_outer_run() -> int | None:
    """Return the port of the attempt that this process itself belongs to."""
    try:
        return urlsplit(os.environ.get(RUN_URL, "")).port
    except ValueError:
        return None


def _is_run_of(address: str) -> bool:
    """Whether the attempt that this process belongs to is one of this proxy: it accepts the attempt's key."""
    run = os.environ.get(RUN_URL, "").rpartition("/")[2]
    try:
        RunClient(address, os.environ.get("KDPROXY_TOKEN", "")).call("GET", f"/{run}/cursor?sync=no")
    except KdproxyError:
        return False
    return True


def _check_command(name: str) -> None:
    if shutil.which(name) is not None:
        return
    is_there = "/" in name and Path(name).exists()
    what = "cannot be executed" if is_there else "was not found"
    raise CannotStart(
        f"The command {name!r} {what}.",
        hint="Nothing was started and nothing was sent. Check its spelling, PATH and mode; a script may need its "
        "interpreter in front (python3 SCRIPT), an alias `bash -ic '...'`.",
        exit_code=EXIT_NOT_EXECUTABLE if is_there else EXIT_NOT_FOUND,
    )


def _name_of(command: Sequence[str]) -> str:
    """Return the script's name: the first argument that is a file, else the module after -m, else the command."""
    words = command[1:]
    found = next((word for word in words if not word.startswith("-") and Path(word).is_file()), None)
    if found is None and "-m" in words[:-1]:
        found = words[words.index("-m") + 1]
        return _plain(found)
    return _plain(Path(found or command[0]).stem)


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:128] or "run"


class _Job:
    """One use of the verb."""

    def __init__(
        self,
        command: Sequence[str],
        run: str,
        settings: Settings,
        given: Given,
        signals: Signals,
        continues: bool,
        relaunches: bool,
        expected: int | None,
    ) -> None:
        self._command = command
        self._run = run
        self._settings = settings
        self._given = given
        self._signals = signals
        self._continues = continues
        self._relaunches = relaunches
        self._expected = expected
        self._own: OwnProxy | None = None
        self._has_said_waiting = False

    def run(self) -> int:
        """Return the exit code."""
        launch = 0
        while True:
            client, opened = self._open()
            with self._closing(client, opened) as closing:
                code = self._launch(client, opened)
                if code is None:
                    return 128 + (self._signals.ended_by or 0)
                closing.exit_code = code
            wait_seconds = self._relaunch_in(code, closing.bill, launch)
            if wait_seconds is None or not self._wait(wait_seconds):
                return code
            launch += 1

    # -- opening ----------------------------------------------------------------------------------------------

    def _open(self) -> tuple[RunClient, dict[str, Any]]:
        """Open an attempt with the proxy that owns the data directory, or with one of our own."""
        ends_at = time.monotonic() + OWNER_SECONDS
        while True:
            try:
                raise_open_files()
                # Its own port is a free one, so that runs in several data directories do not collide.
                self._own = OwnProxy(dataclasses.replace(self._settings, host="127.0.0.1", port=0, port_file=None))
                client = RunClient(self._own.address, self._own.token)
                pid = os.getpid()
            except DirectoryBusy as busy:
                owner = read_owner(self._settings.data_dir.expanduser())
                if owner is not None and not owner.command.startswith(_SERVING):
                    raise
                if owner is None or owner.address is None:
                    self._pause(ends_at, busy, owner)
                    continue
                client, pid = RunClient(owner.address, owner.token), owner.pid
            try:
                upstreams = client.upstreams()
                client_variable.settings_for(self._given, upstreams, "")
                members = {"continue": self._continues, "port": 0, "pid": os.getpid()}
                opened = client.call("POST", f"/{self._run}/attempts", members)
            except Unreachable as unreachable:
                if self._own is not None:
                    raise
                self._pause(ends_at, unreachable, None)
                continue
            except BaseException:
                if self._own is not None:
                    self._own.close()
                raise
            opened["environment"] = client_variable.settings_for(self._given, upstreams, opened["address"])
            self._say_start(opened, pid)
            return client, opened

    def _pause(self, ends_at: float, error: KdproxyError, owner: Owner | None) -> None:
        if time.monotonic() >= ends_at or self._signals.ended_by is not None:
            raise error
        if not self._has_said_waiting and time.monotonic() > ends_at - OWNER_SECONDS + 2:
            self._has_said_waiting = True
            which = "" if owner is None else f" (process {owner.pid})"
            say(f"waiting for the proxy of this data directory{which}, which starts or shuts down")
        time.sleep(_RETRY_SECONDS)

    def _say_start(self, opened: dict[str, Any], pid: int) -> None:
        how = "a proxy of its own" if self._own is not None else f"the proxy of process {pid}"
        say(
            f"run {opened['run']!r}, attempt {opened['token']!r} at {opened['address']}, with {how}; data in "
            f"{self._settings.data_dir.expanduser()}"
        )
        for name, url in self._given.urls.items():
            say(f"{name} was {url}: that is the upstream now; the command gets kdproxy's address")
        for name in self._given.own:
            say(f"{name} was kdproxy's own address: the command gets that of this attempt")
        if self._settings.token is not None:
            say(
                "this proxy has a token: the command must send it as its API key, and finds another key, that of the "
                "attempt, in KDPROXY_TOKEN"
            )
        for name in client_variable.leads_elsewhere(os.environ):
            say(f"Warning: {name} is set: a client that obeys it does not call kdproxy")

    # -- running ----------------------------------------------------------------------------------------------

    def _launch(self, client: RunClient, opened: dict[str, Any]) -> int | None:
        """Run the command to its end; return its exit code. None: the end was asked for before it began."""
        environment = self._environment(opened)
        child = self._signals.launch(lambda: Child(self._command, environment))
        if child is None:
            return None
        live = run_report.LiveLine(self._expected)
        path = f"/{self._run}/attempts/{opened['token']}"
        while not child.has_ended(LIVE_SECONDS if live.is_shown else 3_600.0):
            if live.is_shown:
                try:
                    live.show(client.call("GET", path))
                except KdproxyError:
                    live.is_shown = False  # the proxy has exited; the bill says so
        self._signals.release()
        live.clear()
        return child.exit_code

    def _environment(self, opened: dict[str, Any]) -> dict[str, str]:
        return {
            **os.environ,
            **client_variable.without_proxy(os.environ),
            **opened["environment"],
            RUN_URL: f"{opened['address']}{PREFIX}/{opened['run']}",
            "KDPROXY_TOKEN": opened["key"],
            # Else the system prompt of each start differs, and every question with it.
            "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
        }

    # -- ending -----------------------------------------------------------------------------------------------

    @contextmanager
    def _closing(self, client: RunClient, opened: dict[str, Any]) -> Iterator["_Closing"]:
        closing = _Closing()
        try:
            yield closing
        except CannotStart as error:
            say(str(error))
            closing.exit_code = error.exit_code
            raise SystemExit(error.exit_code) from None
        finally:
            closing.bill = self._close(client, opened, closing.exit_code)

    def _close(self, client: RunClient, opened: dict[str, Any], code: int | None) -> dict[str, Any] | None:
        """Close the attempt, end a proxy of our own, print the bill."""
        own, self._own = self._own, None
        ours = None if own is None else own.opened(opened["key"])
        try:
            bill = client.call("POST", f"/{self._run}/attempts/{opened['token']}/close")
        except KdproxyError as error:
            say(f"no bill: {error} Answers that were bought are stored: `kdproxy stats` shows them.")
            bill = None
        if own is not None:
            seen = self._signals.ended_by
            self._signals.on_end = own.hurry
            self._signals.ended_by = None
            own.wait_for_others(opened["key"], lambda: self._signals.ended_by is not None)
            own.close()
            self._signals.on_end = None
            self._signals.ended_by = self._signals.ended_by or seen
            if bill is not None and ours is not None:
                bill |= ours.bill()
        if bill is not None and code is not None:
            self._say_bill(bill, opened, code)
        return bill

    def _say_bill(self, bill: dict[str, Any], opened: dict[str, Any], code: int) -> None:
        ended = f"run {opened['run']!r}, attempt {opened['token']!r}, exit code {code}: "
        say(ended + run_report.bill_line(bill))
        if code in (EXIT_NOT_FOUND, EXIT_NOT_EXECUTABLE):
            return
        if not bill["was_called"]:
            run_report.warn_of_no_call(opened["environment"]["OPENAI_BASE_URL"])
        elif not self._continues and code == 0 and run_report.repeats_only(bill):
            run_report.warn_of_repeats(self._run, bill["review"])

    # -- relaunching ------------------------------------------------------------------------------------------

    def _relaunch_in(self, code: int, bill: dict[str, Any] | None, launch: int) -> float | None:
        """Return in how many seconds the command starts again; None: it does not."""
        if not self._relaunches or code == 0 or bill is None or self._signals.ended_by is not None:
            return None
        backs = [lane["stopped"]["back_seconds"] for lane in bill["stopped_lanes"]]
        if not bill["failed"] or not backs or any(back is None for back in backs):
            return None
        wait_seconds: float = max(backs)
        if launch == MOST_RELAUNCHES:
            say(f"the command died on a spent quota again after {MOST_RELAUNCHES} relaunches: not started again.")
            return None
        if wait_seconds > LONGEST_WAIT_SECONDS:
            say("the command died on a spent quota that comes back in more than a day: not started again.")
            return None
        at = datetime.fromtimestamp(time.time() + wait_seconds, UTC)
        say(
            f"the command died on a spent quota, which comes back at about {at:%Y-%m-%d %H:%M:%S} UTC. It starts again "
            f"then (relaunch {launch + 1} of at most {MOST_RELAUNCHES}). Ctrl-C ends it."
        )
        return wait_seconds

    def _wait(self, seconds: float) -> bool:
        """Wait; return whether the end was not asked for."""
        ends_at = time.monotonic() + seconds
        while self._signals.ended_by is None and (left := ends_at - time.monotonic()) > 0:
            time.sleep(min(left, _RETRY_SECONDS))
        return self._signals.ended_by is None


class _Closing:
    """What is known when an attempt is closed."""

    exit_code: int | None = None
    bill: dict[str, Any] | None = None
