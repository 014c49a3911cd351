"""`kdproxy serve`: start the proxy and print the lines to export."""

import asyncio
import gc
import logging
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import click

from kdproxy.app import App, changed_upstreams, loop_factory, open_directory, renamed_upstreams
from kdproxy.cli import banner, signals
from kdproxy.cli.exit_hint import exit_hints
from kdproxy.cli.main import EXIT_PROBLEM
from kdproxy.cli.options import config_option, counted, data_dir_option, say
from kdproxy.core.rename import Renamed
from kdproxy.engine.drain import UnderWay
from kdproxy.engine.reach import Finding
from kdproxy.engine.repeats import advice_on
from kdproxy.settings import Settings, load
from kdproxy.settings.place import checkout_of
from kdproxy.storage.directory import DataDirectory
from kdproxy.telemetry.log import configure
from kdproxy.telemetry.output import queued_output
from kdproxy.upstream.environment import EnvironmentProxy
from kdproxy.web.open_files import OpenFiles, client_room, raise_open_files

log = logging.getLogger("kdproxy.cli")

FEW_CLIENTS = 1_024


@click.command("serve")
@click.option("--host", help="Address to listen on; default: 127.0.0.1.")
@click.option("--port", help="Port to listen on; default: 8400.")
@click.option("--port-file", metavar="FILE", help="Write address, pid and a secret to FILE once listening.")
@click.option("--upstream", "upstreams", multiple=True, metavar="URL|NAME=URL", help="Teacher API; may be repeated.")
@data_dir_option
@click.option("--mode", help="cache, replay, refresh, record or bypass; default: cache.")
@click.option("--warm", multiple=True, metavar="FILE", help="Fill the cache from this file first; may be repeated.")
@click.option("--prompt-match/--no-prompt-match", "match_prompts", default=None, help="Answer from recorded prompts.")
@click.option(
    "--fail-fast/--no-fail-fast",
    "fail_fast",
    default=None,
    help="While an upstream is down, fail requests at once; default: hold them until it is back.",
)
@config_option
def command(config: Path | None, upstreams: tuple[str, ...], warm: tuple[str, ...], **flags: Any) -> None:
    """Start the proxy."""
    with queued_output():
        code = _run(config, upstreams, warm, flags)
    sys.exit(code)


def _run(config: Path | None, upstreams: tuple[str, ...], warm: tuple[str, ...], flags: dict[str, Any]) -> int:
    loaded = load({**flags, "upstreams": upstreams or None, "warm": warm or None}, config=config)
    settings = loaded.settings
    configure(settings.log_level)
    _log_file_limit(raise_open_files())
    directory = open_directory(settings, command="kdproxy serve")
    try:
        for change in changed_upstreams(settings, directory):
            click.echo(
                f"Warning: upstream {change.name!r} was {change.old_url} and is now {change.new_url}; "
                f"{change.entries} stored answers of the old one will be served for it. "
                "If it is another teacher, give it another name.",
                err=True,
            )
        stored = directory.archive.counters.total
        # Said at each start: after an unmounted disk or in another working directory the data directory is a new one.
        say(f"{counted(stored, 'answer') if stored else 'no answers yet'} in {directory.path}")
        if (checkout := checkout_of(directory.path)) is not None:
            say(
                f"the data directory lies in the git checkout {checkout}, where `git clean -xdf` deletes what was paid "
                "for. Stop the proxy, move the directory out (mv), and name its new place with --data-dir or "
                "KDPROXY_DATA_DIR."
            )
        for found in renamed_upstreams(settings, directory):
            click.echo(_renamed_warning(found), err=True)
        if settings.warm:
            _warm(settings, directory)
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(_serve(App(settings, directory), settings))
    finally:
        directory.close()


def _renamed_warning(found: Renamed) -> str:
    was = f"{found.name!r}" + (f" ({found.url})" if found.url else "")
    lost = (
        f"Warning: {counted(found.answers, 'stored answer')} of upstream {was} will not be found, and their questions "
        "are bought again: no configured upstream has that name."
    )
    if found.upstream is None:
        return f"{lost} If it is still the same teacher, give it its old name: --upstream {found.name}=URL"
    new = found.upstream
    return (
        f"{lost} If {new.name!r} is the same teacher, give it the old name: --upstream {found.name}={new.url} (in "
        f'kdproxy.toml: [upstreams."{found.name}"] with url = "{new.url}" in place of [upstreams."{new.name}"]).'
    )


def _log_file_limit(files: OpenFiles) -> None:
    if files.limit > files.before:
        log.info("raised the limit of open files", extra={"before": files.before, "now": files.limit})
    if client_room(files.limit) < FEW_CLIENTS:
        log.warning(
            "the limit of open files is low: clients beyond it have to wait; raise the hard limit (ulimit -Hn)",
            extra={"open_files": files.limit, "clients": client_room(files.limit)},
        )


def _warm(settings: Settings, directory: DataDirectory) -> None:
    # Imported only when it is used: the proxy starts and runs without the jobs' command line and progress bars.
    from kdproxy.app import job_context
    from kdproxy.cli.job_runner import LocalJobRunner
    from kdproxy.cli.warm import warm_from
    from kdproxy.ops.warm.warm import WarmArguments

    files = tuple(str(file.absolute()) for file in settings.warm)
    warm_from(LocalJobRunner(job_context(settings, directory)), WarmArguments(files=files))


async def _serve(app: App, settings: Settings) -> int:
    """Serve until a signal comes; return the exit code."""
    stop = asyncio.Event()
    signals.on_end(stop.set)
    signals.log_notices()
    await app.start()
    _calm_collector()
    banner.greet(app.address, settings)
    checking = asyncio.create_task(app.check_upstreams(partial(_say_check, settings)))
    await stop.wait()
    checking.cancel()

    def hurry() -> None:
        app.hurry()
        signals.default()  # a third signal ends the process immediately

    signals.on_second(hurry)
    lanes = app.lanes()
    _say_drain(app.refuse_calls(), settings.drain_seconds)
    given_up = await app.stop()
    if given_up:
        _say_losses(given_up)
    for line in exit_hints(lanes, now=time.time()):
        click.echo(line, err=True)
    if (advice := advice_on(app.repeats.as_dict())) is not None:
        say(advice)
    return EXIT_PROBLEM if given_up else 0


def _say_check(settings: Settings, finding: Finding) -> None:
    environment = EnvironmentProxy()
    way = environment.shown(finding.upstream.url)
    is_used = settings.use_environment_proxy
    say(banner.check_line(finding, way if is_used else None, None if is_used or way is None else way))


def _say_drain(under_way: UnderWay, seconds: float) -> None:
    if not under_way:
        say("shutting down.")
        return
    if under_way.calls:
        say(
            f"shutting down: draining {counted(under_way.calls, 'call')}, up to {seconds:g} s; press Ctrl-C again to "
            f"give up {counted(under_way.calls, 'call')} already sent, which the provider may bill."
        )
    if under_way.answers:
        say(
            f"shutting down: {counted(under_way.answers, 'answer')} could not be written to disk; only memory holds "
            f"them; retrying for up to {seconds:g} s. Remove the cause that the log names now (no space, no "
            "permission, a moved journal), or press Ctrl-C again to lose them."
        )


def _say_losses(given_up: UnderWay) -> None:
    if given_up.calls:
        say(f"gave up {counted(given_up.calls, 'call')} in flight: the provider may bill them; no answer is stored.")
    if given_up.answers:
        say(f"lost {counted(given_up.answers, 'answer')} not yet written to disk: the next run buys them again.")


def _calm_collector() -> None:
    """Exclude objects made at start from garbage collection and collect less often: saves 85 us a miss."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
