"""The command of `kdproxy run`: started in the terminal's foreground group, sent the signals that we get, waited for.

Ctrl-C reaches every process of the foreground group, so a signal that the terminal sent is not sent again: a second
SIGINT would interrupt the command's own cleanup. A signal that another process sent to us alone is passed on.
"""

import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kdproxy.errors import KdproxyError

PASSED = frozenset(
    {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2},
)
ENDING = PASSED - {signal.SIGUSR1, signal.SIGUSR2}
EXIT_NOT_FOUND = 127
EXIT_NOT_EXECUTABLE = 126
_LOOK_SECONDS = 0.02
_SI_KERNEL = 0x80
"""si_code of a signal that the kernel itself sent, as for Ctrl-C (sigaction(2))."""
_RESET = [number for name in ("SIGPIPE", "SIGXFSZ") if (number := getattr(signal, name, None)) is not None]
"""Ignored by Python itself; a command expects their defaults."""


class CannotStart(KdproxyError):
    """The command cannot be started; `exit_code` is the shell's."""

    default_code = "command_not_found"

    def __init__(self, message: str, *, hint: str, exit_code: int) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class Signals:
    """Takes the signals of this process. Made before other threads, which inherit that they are blocked."""

    def __init__(self) -> None:
        """Block them from now on."""
        self.ended_by: int | None = None
        """The first signal that asks for the end."""
        self.on_end: Callable[[], None] | None = None
        """Called for each of them once no command runs."""
        self._child: Child | None = None
        self._launching = threading.Lock()  # a signal that comes while a command is started waits for it
        signal.pthread_sigmask(signal.SIG_BLOCK, PASSED)
        threading.Thread(target=self._take, name="kdproxy-signals", daemon=True).start()

    def launch(self, start: "Callable[[], Child]") -> "Child | None":
        """Start a command, and pass signals on to it from now on. None: the end was asked for before."""
        with self._launching:
            if self.ended_by is None:
                self._child = start()
            return self._child

    def release(self) -> None:
        """Pass nothing on: the command has ended."""
        self._child = None

    def _take(self) -> None:
        while True:
            number, is_from_terminal = _wait()
            with self._launching:
                child = self._child
                if number in ENDING and self.ended_by is None:
                    self.ended_by = number
            if child is not None:
                if not (is_from_terminal and child.is_in_our_group):
                    child.send(number)
            elif number in ENDING and self.on_end is not None:
                self.on_end()


def _wait() -> tuple[int, bool]:
    """Wait for a signal; return it, and whether the terminal sent it, which reaches its whole foreground group."""
    if hasattr(signal, "sigwaitinfo"):
        info = signal.sigwaitinfo(PASSED)
        return info.si_signo, info.si_code == _SI_KERNEL
    # macOS does not say who sent it.
    number = signal.sigwait(PASSED)
    return number, number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP) and is_foreground()


def is_foreground() -> bool:
    """Whether this process is in the foreground group of its terminal."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


class Child:
    """A running command."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it.

        Raises:
            CannotStart: it does not exist, or is no program.
        """
        spawn: dict[str, Any] = {"setsigmask": [], "setsigdef": _RESET}
        try:
            self.pid = os.posix_spawnp(command[0], list(command), dict(environment), **spawn)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise CannotStart(
                f"The command {command[0]!r} was not found.",
                hint="Nothing was started and nothing was sent. Check its spelling and PATH; a shell function or an "
                "alias needs `bash -ic '...'`.",
                exit_code=EXIT_NOT_FOUND,
            ) from error
        except OSError as error:
            raise CannotStart(
                f"The command {command[0]!r} cannot be executed ({error.strerror}).",
                hint="Nothing was started and nothing was sent. A script needs `chmod +x` and a first line such as "
                "#!/usr/bin/env python3, or its interpreter in front: python3 SCRIPT.",
                exit_code=EXIT_NOT_EXECUTABLE,
            ) from error
        self._ended = threading.Event()
        self._sending = threading.Lock()  # a process id that was waited for may be another process's
        self._status = 0
        threading.Thread(target=self._wait, name="kdproxy-command", daemon=True).start()

    def _wait(self) -> None:
        can_wait = hasattr(os, "waitid")  # macOS has none in Python: look every 20 ms
        if can_wait:
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        while not self._ended.wait(0 if can_wait else _LOOK_SECONDS):
            with self._sending:
                pid, self._status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self._ended.set()

    @property
    def is_in_our_group(self) -> bool:
        """Whether what the terminal sends to our group reaches it."""
        try:
            return os.getpgid(self.pid) == os.getpgrp()
        except OSError:
            return True

    def send(self, number: int) -> None:
        """Send it a signal; nothing once it has ended."""
        with self._sending:
            if not self._ended.is_set():
                os.kill(self.pid, number)

    def has_ended(self, within_seconds: float) -> bool:
        """Wait for its end, for a while."""
        return self._ended.wait(within_seconds)

    @property
    def exit_code(self) -> int:
        """Its exit code, once it has ended: 128 + n for signal n, as a shell has it."""
        code = os.waitstatus_to_exitcode(self._status)
        return 128 - code if code < 0 else code
