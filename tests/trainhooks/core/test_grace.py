"""How long a process has once it is told to go."""

import signal

import pytest

from trainhooks.core.grace import seconds_left

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none"}
SLURM = {"SLURM_JOB_END_TIME": "1120"}


@pytest.mark.parametrize(
    ("number", "environ", "left"),
    [
        (signal.SIGTERM, {}, 30.0),
        (signal.SIGTERM, SLURM, 30.0),  # the end has come, or somebody else needs the node
        (signal.SIGUSR1, SLURM, 120.0),  # sbatch --signal=USR1@120
        (signal.SIGUSR1, {"SLURM_JOB_END_TIME": "900"}, 0.0),
        (signal.SIGUSR1, {"SLURM_JOB_END_TIME": "soon"}, None),
        (signal.SIGUSR1, {}, None),
        (signal.SIGINT, {}, None),
        (signal.SIGTERM, TORCHRUN, 30.0),
        (signal.SIGINT, TORCHRUN, 30.0),
        (signal.SIGUSR1, {**TORCHRUN, **SLURM}, 30.0),  # torchrun hands it on and counts from there
        (signal.SIGTERM, {**TORCHRUN, "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "300"}, 300.0),
    ],
)
def test_seconds_left(number: int, environ: dict[str, str], left: float | None) -> None:
    assert seconds_left(number, environ, now=1000.0) == left


def test_what_the_user_says_counts() -> None:
    assert seconds_left(signal.SIGTERM, {**TORCHRUN, **SLURM}, now=1000.0, given=7.0) == 7.0
