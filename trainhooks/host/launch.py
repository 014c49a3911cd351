"""Which of how many processes this is, as its launcher said (torchrun, accelerate), without asking torch."""

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """This process among those that were launched together."""

    rank: int = 0
    world: int = 1


def launched(environ: Mapping[str, str] = os.environ) -> Launch:
    """Read torchrun's RANK and WORLD_SIZE; a process that nobody launched is alone."""
    try:
        return Launch(rank=int(environ["RANK"]), world=int(environ["WORLD_SIZE"]))
    except (KeyError, ValueError):
        return Launch()
