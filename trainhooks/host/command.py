"""One command as a child: in its own process group, with signals forwarded and a time limit."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any

_PASSED_ON = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
_GRACE_SECONDS = 35.0
"""From SIGTERM to SIGKILL: torchrun gives its workers 30 seconds."""
_POLL_SECONDS = 0.02


class TimeIsUp(Exception):
    """The command exceeded its time limit and was terminated."""


class Commands:
    """Starts commands one after the other, within one time limit.

    While one runs, signals of this process go to its process group; `signalled` is the last one.
    """

    def __init__(self, *, limit_seconds: float) -> None:
        self.signalled = 0
        self._ends_at = time.monotonic() + limit_seconds
        self._child: subprocess.Popen[bytes] | None = None

    def run(self, command: Sequence[str], environ: Mapping[str, str]) -> int:
        """Run a command to its end; return its exit code, or 128 + the number of the signal that ended it.

        What it prints goes to stderr.

        Raises:
            OSError: it cannot be started.
            TimeIsUp: the time limit was reached and the command was terminated.
        """
        numbers = [getattr(signal, name) for name in _PASSED_ON if hasattr(signal, name)]
        before = {number: signal.signal(number, self._pass_on) for number in numbers}
        try:
            child = self._child = subprocess.Popen(  # noqa: S603 # the user's own command
                command, env={**os.environ, **environ}, stdout=sys.stderr.fileno(), start_new_session=True
            )
            if self.signalled:  # a signal came while the command was starting
                self._signal(self.signalled)
            is_in_time = self._ends(child, self._ends_at)
            if not is_in_time:
                self._signal(signal.SIGTERM)
                self._ends(child, time.monotonic() + _GRACE_SECONDS)
            self._signal(signal.SIGKILL)  # also loader workers of a process that killed itself
            code = child.wait()
            if not is_in_time:
                raise TimeIsUp
            return code if code >= 0 else 128 - code
        finally:
            self._child = None
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ends(self, child: subprocess.Popen[bytes], at: float) -> bool:
        """Wait for a child's end without reaping it, so that its process id is not reused yet."""
        while os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() >= at:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def _pass_on(self, number: int, frame: FrameType | None) -> Any:
        self.signalled = number
        self._signal(number)

    def _signal(self, number: int) -> None:
        if self._child is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child.pid, number)
