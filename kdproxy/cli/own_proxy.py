"""The proxy that `kdproxy run` starts when none runs: in this process, in a thread with its own event loop."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from kdproxy.app import App, changed_upstreams, loop_factory, open_directory
from kdproxy.cli.options import counted, say
from kdproxy.settings import Settings
from kdproxy.storage.lock import is_alive
from kdproxy.web.attempt_port import OpenAttempt

_LOOK_SECONDS = 0.2


class OwnProxy:
    """A running proxy. `close` drains it."""

    def __init__(self, settings: Settings) -> None:
        """Start it.

        Raises:
            DirectoryBusy: another process owns the data directory.
            KdproxyError: it cannot be started.
        """
        self._settings = settings
        self._app: App | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._error: BaseException | None = None
        self._is_ready = threading.Event()
        self._stop = asyncio.Event()
        self._token = ""
        self.address = ""
        self._thread = threading.Thread(target=self._run, name="kdproxy-proxy", daemon=True)
        self._thread.start()
        self._is_ready.wait()
        self._raise()

    def _raise(self) -> None:
        error = self._error
        if error is not None:
            self._thread.join()
            raise error

    @property
    def token(self) -> str:
        """The lock file's token."""
        return self._token

    def _run(self) -> None:
        try:
            directory = open_directory(self._settings, command="kdproxy run")
        except BaseException as error:
            self._fail(error)
            return
        try:
            for change in changed_upstreams(self._settings, directory):
                say(
                    f"Warning: upstream {change.name!r} was {change.old_url} and is now {change.new_url}; its "
                    f"{counted(change.entries, 'stored answer')} will be served for the new one."
                )
            self._token = directory.owner.token
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                runner.run(self._serve(App(self._settings, directory)))
        except BaseException as error:
            self._fail(error)
        finally:
            directory.close()

    def _fail(self, error: BaseException) -> None:
        self._error = error
        self._is_ready.set()

    async def _serve(self, app: App) -> None:
        await app.start()
        self._app, self._loop, self.address = app, asyncio.get_running_loop(), app.address
        self._is_ready.set()
        await self._stop.wait()
        await app.stop()

    def opened(self, key: str) -> OpenAttempt | None:
        """Return the open attempt of a key."""
        assert self._app is not None
        return next((each for each in self._app.open_attempts if each.key == key), None)

    def wait_for_others(self, key: str, is_over: Callable[[], bool]) -> None:
        """Wait while other processes run commands with this proxy, until `is_over`."""
        has_said = False
        while not is_over() and (others := self._others(key)):
            if not has_said:
                has_said = True
                say(
                    f"the command has ended; {counted(len(others), 'other command')} of `kdproxy run` (process "
                    f"{', '.join(map(str, others))}) still use this proxy, so it runs until they end. Ctrl-C ends it "
                    "now, and their calls fail."
                )
            threading.Event().wait(_LOOK_SECONDS)

    def _others(self, key: str) -> list[int]:
        assert self._app is not None
        opened = self._app.open_attempts
        return [each.pid for each in opened if each.key != key and each.pid is not None and is_alive(each.pid)]

    def lanes(self) -> list[dict[str, Any]]:
        """Return the state of the lanes."""
        assert self._app is not None
        return self._app.lanes()

    def close(self) -> None:
        """Drain: refuse new calls, finish and store those that were sent, stop."""
        app, loop = self._app, self._loop
        assert app is not None
        assert loop is not None

        def stop() -> None:
            under_way = app.refuse_calls()
            if under_way.calls:
                say(
                    f"waiting for {counted(under_way.calls, 'call')} that the command left, up to "
                    f"{self._settings.drain_seconds:g} s: their answers are stored. Ctrl-C gives them up."
                )
            self._stop.set()

        loop.call_soon_threadsafe(stop)
        self._thread.join()
        self._raise()

    def hurry(self) -> None:
        """Make a waiting `close` give up the calls under way."""
        if self._app is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._app.hurry)
