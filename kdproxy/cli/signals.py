"""Signals. Each one that would end the process drains it, so that no sent call is lost; notices are only logged.

Schedulers, supervisors and closing terminals send different signals, all of which end a process by default
(signal(7)). Slurm sends SIGUSR1 or SIGUSR2 some time before the end (sbatch --signal): nothing ends yet, and an answer
that arrives before the end is stored.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Iterable

log = logging.getLogger("kdproxy.cli")

_ASKED = ("SIGTERM", "SIGINT", "SIGQUIT")
"""A second one of these gives up the calls in flight."""

_ENDING = ("SIGHUP", "SIGXCPU", "SIGPWR", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGIO", "SIGSTKFLT")
_NOTICES = ("SIGUSR1", "SIGUSR2")


def on_end(act: Callable[[], None]) -> None:
    """Call `act` on any signal that would end the process. A SIGHUP that nohup ignores stays ignored."""
    ignores_hangup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    real_time = range(signal.SIGRTMIN, signal.SIGRTMAX + 1) if hasattr(signal, "SIGRTMIN") else ()
    names = [name for name in (*_ASKED, *_ENDING) if not (name == "SIGHUP" and ignores_hangup)]
    for number in (*_numbers(names), *real_time):
        _handle(number, act)


def on_second(act: Callable[[], None]) -> None:
    """Call `act` on a second SIGTERM, SIGINT or SIGQUIT; other signals no longer have an effect.

    A supervisor may send SIGHUP right after SIGTERM (systemd's SendSIGHUP).
    """
    on_end(lambda: None)
    for number in _numbers(_ASKED):
        _handle(number, act)


def default() -> None:
    """Let the next signal end the process."""
    loop = asyncio.get_running_loop()
    for number in _numbers(_ASKED):
        loop.remove_signal_handler(number)


def log_notices() -> None:
    """Log the signals that announce an end."""
    for number in _numbers(_NOTICES):
        _handle(number, lambda number=number: _log(number))  # type: ignore[misc]


def _log(number: int) -> None:
    log.info("ignored a notice signal; SIGTERM drains and exits", extra={"signal": signal.Signals(number).name})


def _numbers(names: Iterable[str]) -> list[int]:
    return [int(getattr(signal, name)) for name in names if hasattr(signal, name)]


def _handle(number: int, act: Callable[[], None]) -> None:
    with contextlib.suppress(ValueError, RuntimeError, OSError):  # this system does not allow a handler for it
        asyncio.get_running_loop().add_signal_handler(number, act)
