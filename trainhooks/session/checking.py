"""What a session is opened with, and what data it is given: refused in words where it cannot be used."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from trainhooks.core import argument
from trainhooks.core.policy import CheckpointPolicy
from trainhooks.errors import ConfigInvalid
from trainhooks.host.extra import require


def check_source(source: Any) -> None:
    """Refuse what has no samples of its own, in words."""
    if isinstance(source, Mapping):
        names = ", ".join(map(repr, list(source)[:5]))
        raise ConfigInvalid(
            f"A {type(source).__name__} holds several data sets, or columns of one: {names}.",
            hint="Give one: progress.loader(data['train']). Of columns: datasets.Dataset.from_dict(data).",
        )
    if isinstance(source, str | os.PathLike):
        raise ConfigInvalid(
            f"{source!r} is the name of a file and no data set.",
            hint="Read it first: datasets.load_dataset('json', data_files=...)['train'].",
        )
    if isinstance(source, type | bytes | bytearray | set | frozenset) or hasattr(source, "parameters"):
        kind = f"The class {source.__name__}" if isinstance(source, type) else f"A {type(source).__name__}"
        raise ConfigInvalid(
            f"{kind} has no samples in an order.",
            hint="Give a data set: an object with len() and [index], or whose iter() begins anew each time.",
        )
    if type(source).__module__.partition(".")[0] == "pandas":
        raise ConfigInvalid(
            f"A {type(source).__name__} gives columns by [name] and no rows by [index].",
            hint="Give its rows: progress.loader(frame.to_dict('records')), or datasets.Dataset.from_pandas(frame).",
        )


def check_options(state: Any, checkpoints: Any, drift: Any, restore: Any, grace_seconds: Any) -> None:
    """Refuse what is no mapping of names, in words."""
    if state is not None and (
        not isinstance(state, Mapping) or not all(isinstance(name, str) and name for name in state)
    ):
        raise ConfigInvalid(
            f"state= is a {type(state).__name__} and must give each object a name.",
            hint="Write state={'model': model, 'optimizer': optimizer}.",
        )
    if isinstance(state, Mapping) and not state:
        raise ConfigInvalid(
            "state={} has nothing to save.", hint="Give state={'model': model, ...}, or leave it out for records alone."
        )
    if restore is not None and state is None:
        raise ConfigInvalid("restore= is given and there is nothing to restore.", hint="Give state={...} too.")
    if grace_seconds is not None and not argument.is_number(grace_seconds, least=0):
        raise argument.wrong("grace_seconds=", grace_seconds, "a number of seconds from 0 on")
    if checkpoints is not None and not isinstance(checkpoints, CheckpointPolicy):
        raise ConfigInvalid(
            f"checkpoints= is a {type(checkpoints).__name__} and must be a CheckpointPolicy.",
            hint="Write checkpoints=CheckpointPolicy(every_steps=500), or checkpoint_every_steps=500.",
        )
    if drift is not None and not (isinstance(drift, Mapping) and all(isinstance(name, str) for name in drift)):
        raise ConfigInvalid(
            f"drift= is a {type(drift).__name__} and must map names to block, warn or allow.",
            hint="Write drift={'batch_size': 'allow'}.",
        )
    if state is not None:
        require("state=", "torch", "safetensors")


def policy_of(state: object, given: CheckpointPolicy | None, every_steps: int | None) -> CheckpointPolicy:
    """Return when checkpoints are taken; refuse what would silently take none, or others than was asked for."""
    if given is not None and every_steps is not None:
        raise ConfigInvalid(
            "checkpoints= and checkpoint_every_steps= cannot both be given.",
            hint=f"Give checkpoints=CheckpointPolicy(every_steps={every_steps}, ...) alone.",
        )
    if state is None and (given is not None or every_steps is not None):
        raise ConfigInvalid(
            "Checkpoints are asked for and there is nothing to save.",
            hint="Give state={'model': model, ...}, or save them yourself: record_checkpoint(path).",
        )
    if every_steps is not None:
        argument.whole("checkpoint_every_steps=", every_steps, least=1)
        return CheckpointPolicy(every_steps=every_steps, every_seconds=None, asynchronous=False)
    return given or CheckpointPolicy()
