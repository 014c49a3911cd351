"""Several ranks of one script: real processes that talk over gloo."""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.trainhooks.conftest import Job, Zygote


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@dataclass
class Team:
    """The ranks of one training, by rank."""

    jobs: list[Job]

    def codes(self, seconds: float = 60) -> list[int]:
        """Wait for the end of all."""
        return [job.wait(seconds) for job in self.jobs]

    def said(self) -> str:
        """Return what all have printed."""
        return "\n".join(f"rank {rank}:\n{job.said()}" for rank, job in enumerate(self.jobs))


Start = Callable[..., Team]


@pytest.fixture(scope="session")
def _training(zygote_with: Callable[..., Zygote]) -> Zygote:
    return zygote_with(
        "trainhooks.pytorch.checkpoint.reader",
        "trainhooks.pytorch.checkpoint.saver",
        "trainhooks.pytorch.data.source",
        "torch.distributed.fsdp",
    )


@pytest.fixture
def start(_training: Zygote) -> Any:
    """Start a script on some ranks: `start(script, out, *argv, world=2, HOW="asynchronous")`; capitals: environment."""
    count = [0]
    logs = list[Path]()

    def begin(script: Path, out: Path, *argv: object, world: int = 2, **environ: object) -> Team:
        count[0] += 1
        logs.extend(out.with_name(f"{out.name}-{count[0]}-{rank}.log") for rank in range(world))
        shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        shared |= {name: str(value) for name, value in environ.items()}
        return Team(
            [
                _training.run(
                    script,
                    out,
                    *argv,
                    output=out.with_name(f"{out.name}-{count[0]}-{rank}.log"),
                    env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                )
                for rank in range(world)
            ]
        )

    yield begin
    _training.end_jobs()
    said = "".join(log.read_text(errors="replace") for log in logs if log.exists())
    assert "the restored objects could not be compared" not in said
