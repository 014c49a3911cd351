"""How long a process has left once a signal told it to go. Pure: the environment and the time are given."""

import signal
from collections.abc import Mapping

DEFAULT_SECONDS = 30.0
"""From SIGTERM to SIGKILL: torchrun's default (torch 2.13, --shutdown_timeout), Slurm's KillWait, and Kubernetes'
terminationGracePeriodSeconds (their manuals, 2026-11)."""


def seconds_left(number: int, environ: Mapping[str, str], *, now: float, given: float | None = None) -> float | None:
    """Say how long there is until the process is likely to be killed; None: nobody has said that it will be.

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
