"""The rank and world size of this process, without loading torch."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """This process among those launched together."""

    rank: int = 0
    world: int = 1


def launched(environ: Mapping[str, str] = os.environ) -> Launch:
    """Ask torch.distributed if it runs, else the launcher (RANK and WORLD_SIZE of torchrun and accelerate)."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return Launch(rank=distributed.get_rank(), world=distributed.get_world_size())
    try:
        return Launch(rank=int(environ["RANK"]), world=int(environ["WORLD_SIZE"]))
    except (KeyError, ValueError):
        return Launch()
