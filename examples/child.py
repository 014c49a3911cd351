"""A process that the demo starts: its own session, its output in a file, ended by the demo."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.request import urlopen


class ChildError(RuntimeError):
    """A child ended or stopped writing unexpectedly; the message contains the end of its output."""


class ChildSilent(ChildError):
    """It runs but writes nothing any more."""


Tell = Callable[[float], None]
"""Called repeatedly with the seconds of a wait, to show progress."""


class Child:
    """One running process. Leaving the `with` block stops it, politely first."""

    def __init__(self, name: str, command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.log = log
        with log.open("wb") as output:
            # A session of its own: Ctrl-C reaches the demo alone, which then ends its children in order.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.poll() is not None

    def wait_until_answers(self, url: str, *, seconds: float) -> None:
        """Return once a GET of `url` succeeds."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                with urlopen(url, timeout=5):
                    return
            except (OSError, HTTPException):  # not listening yet, or still loading (503)
                self._must_run(deadline)
            time.sleep(0.05)

    def wait_for_end(self, *, silent_seconds: float, tell: Tell | None = None) -> None:
        """Return once the process has ended with status 0."""
        self._wait(lambda: self.has_ended, silent_seconds, tell)
        if self._process.returncode != 0:
            raise self._failed(f"ended with status {self._process.returncode}")

    def wait_for_lines(self, path: Path, count: int, *, silent_seconds: float, tell: Tell | None = None) -> None:
        """Return once the process has written this many complete lines to `path`."""
        self.wait_until(lambda: lines_in(path) >= count, silent_seconds=silent_seconds, tell=tell)

    def wait_until(self, is_reached: Callable[[], bool], *, silent_seconds: float, tell: Tell | None = None) -> None:
        """Return once something has happened while the process runs."""
        self._wait(is_reached, silent_seconds, tell)

    def _wait(self, is_reached: Callable[[], bool], silent_seconds: float, tell: Tell | None) -> None:
        """Wait without a limit: a slow process is not a failure, one that writes nothing any more is."""
        heard, at, begun = -1, 0.0, time.monotonic()
        while not is_reached():
            now = time.monotonic()
            if self.log.stat().st_size != heard:
                heard, at = self.log.stat().st_size, now
            if self.has_ended and not is_reached():
                raise self._failed(f"ended with status {self._process.returncode}")
            if now > at + silent_seconds:
                raise ChildSilent(str(self._failed(f"said nothing for {silent_seconds:.0f} s")))
            if tell is not None:
                tell(now - begun)
            time.sleep(0.02)

    def kill(self) -> None:
        """End it with SIGKILL: no handler runs, nothing is flushed."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self, *, seconds: float = 10) -> None:
        """Ask it to end; kill it after a time limit, or at a second Ctrl-C."""
        self._process.terminate()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
        except BaseException:
            self.kill()
            raise

    def _must_run(self, deadline: float) -> None:
        if self.has_ended:
            raise self._failed(f"ended with status {self._process.returncode}")
        if time.monotonic() > deadline:
            raise self._failed("took too long")

    def _failed(self, what: str) -> ChildError:
        tail = self.log.read_text(encoding="utf-8", errors="replace")[-2000:]
        return ChildError(f"The {self.name} {what}. The end of its output ({self.log}):\n{tail}")


def lines_in(path: Path) -> int:
    """Return how many complete lines a file has; 0 if it does not exist."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def free_port() -> int:
    """Find a free port on loopback."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
