"""Signals: each that would end the process drains it, so that no call that was sent is lost; notices are only logged.

A scheduler's, a supervisor's or a closing terminal's signal differs by name alone (signal(7): the default of all these
is to end the process). SIGUSR1 and SIGUSR2 are what Slurm sends some time before the end (sbatch --signal): nothing
ends yet, and an answer that comes before it does is kept.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Iterable

log = logging.getLogger("kdproxy.cli")

_ASKED = ("SIGTERM", "SIGINT", "SIGQUIT")
"""Who sends one of these a second time means it."""

_ENDING = ("SIGHUP", "SIGXCPU", "SIGPWR", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGIO", "SIGSTKFLT")
_NOTICES = ("SIGUSR1", "SIGUSR2")


def on_end(act: Callable[[], None]) -> None:
    """Call this on any signal that would end the process. A SIGHUP that nohup has taken out stays out."""
    is_kept_from_hangup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    real_time = range(signal.SIGRTMIN, signal.SIGRTMAX + 1) if hasattr(signal, "SIGRTMIN") else ()
    names = [name for name in (*_ASKED, *_ENDING) if not (name == "SIGHUP" and is_kept_from_hangup)]
    for number in (*_numbers(names), *real_time):
        _handle(number, act)


def on_second(act: Callable[[], None]) -> None:
    """Call this on a second signal of somebody who asks for the end; others change nothing any more.

    A supervisor may send SIGHUP right after SIGTERM (systemd's SendSIGHUP).
    """
    on_end(lambda: None)
    for number in _numbers(_ASKED):
        _handle(number, act)


def default() -> None:
    """Let the next one end the process."""
    loop = asyncio.get_running_loop()
    for number in _numbers(_ASKED):
        loop.remove_signal_handler(number)


def tell_of_notices() -> None:
    """Log the signals that announce an end."""
    for number in _numbers(_NOTICES):
        _handle(number, lambda number=number: _tell(number))  # type: ignore[misc]


def _tell(number: int) -> None:
    log.info("got a signal that ends nothing; SIGTERM drains", extra={"signal": signal.Signals(number).name})


def _numbers(names: Iterable[str]) -> list[int]:
    return [int(getattr(signal, name)) for name in names if hasattr(signal, name)]


def _handle(number: int, act: Callable[[], None]) -> None:
    with contextlib.suppress(ValueError, RuntimeError, OSError):  # one that this system keeps for itself
        asyncio.get_running_loop().add_signal_handler(number, act)
