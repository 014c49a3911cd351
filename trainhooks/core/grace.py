"""How long a process has from a signal to the kill. Pure: the environment and the time are arguments."""

import signal
from collections.abc import Mapping

DEFAULT_SECONDS = 30.0
"""From SIGTERM to SIGKILL: torchrun's default (torch 2.13, --shutdown_timeout), Slurm's KillWait, and Kubernetes'
terminationGracePeriodSeconds (their manuals, 2026-11)."""


def seconds_left(number: int, environ: Mapping[str, str], *, now: float, given: float | None = None) -> float | None:
    """Return the seconds until the process is likely to be killed; None if no kill is expected.

    Args:
        number: the signal.
        now: UTC Unix seconds.
        given: what the user says it is.
    """
    if given is not None:
        return given
    torchrun = "TORCHELASTIC_RUN_ID" in environ
    if number == signal.SIGTERM or torchrun:
        return (
            _number(environ.get("TORCH_ELASTIC_SHUTDOWN_TIMEOUT")) or DEFAULT_SECONDS if torchrun else DEFAULT_SECONDS
        )
    end = _number(environ.get("SLURM_JOB_END_TIME"))  # `sbatch --signal` comes well before it
    return None if end is None else max(0.0, end - now)


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
