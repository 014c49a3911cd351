"""What the newest checkpoint holds, read before anything is restored, to prepare a model before it is wrapped."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainhooks.storage import rehearsal
from trainhooks.storage.checkpoints import CHECKPOINTS, published

_STATE = "state.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peek:
    """The newest checkpoint of a run, without its tensors."""

    path: Path
    step: int
    """Finished steps."""
    frozen: Mapping[str, Sequence[str]]
    """For each module in `state=`, the parameters whose `requires_grad` is False, by name."""
    groups: Mapping[str, Sequence[Sequence[str | None]]]
    """For each optimizer, the parameters of each group as `OBJECT.NAME`; None for one in no module of `state=`."""


def peek(output_dir: str | os.PathLike[str]) -> Peek | None:
    """Return what the newest checkpoint of a run holds beside its tensors; None without a checkpoint. Read-only.

    Its files are not verified here; a resume does that, and may fall back to an earlier one.
    """
    found = published(rehearsal.place(rehearsal.current(), output_dir) / CHECKPOINTS)
    if not found:
        return None
    newest = found[-1]
    kinds = json.loads((newest.path / _STATE).read_bytes())["kinds"]
    return Peek(
        path=newest.path,
        step=newest.manifest.step,
        frozen={name: kind["frozen"] for name, kind in kinds.items() if "frozen" in kind},
        groups={name: kind["groups"] for name, kind in kinds.items() if "groups" in kind},
    )
