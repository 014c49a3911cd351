"""The plan of a rehearsal in the environment of a process, and the directory it writes to.

A rehearsal neither reads nor writes the output directory that the script names.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from trainhooks.core import rehearsal
from trainhooks.core.rehearsal import VARIABLE, Plan
from trainhooks.errors import ConfigInvalid
from trainhooks.storage import location

KILLED = "killed"
"""A file in a plan's directory: the process has killed itself once and must not do so again."""


def current(environ: Mapping[str, str] = os.environ) -> Plan | None:
    """Return the plan of the rehearsal that this process is part of, or None.

    Raises:
        ConfigInvalid: the variable holds something else.
    """
    text = environ.get(VARIABLE)
    if not text:
        return None
    try:
        return rehearsal.decode(text)
    except ValueError as error:
        raise ConfigInvalid(
            f"{VARIABLE} holds no valid plan of this release ({error}).",
            hint="trainhooks rehearse sets it. Unset it, or use the same release for both.",
        ) from error


def place(plan: Plan | None, output_dir: str | os.PathLike[str]) -> Path:
    """Return where a run is written: the output directory or, in a rehearsal, a folder in the plan's directory."""
    given = location.directory(output_dir)
    if plan is None or given.is_relative_to(plan.directory):
        return given
    return Path(plan.directory) / f"{hashlib.sha256(os.fsencode(given)).hexdigest()[:8]}-{given.name or 'run'}"


def refuse(what: str, output_dir: str | os.PathLike[str] | None = None) -> None:
    """In a rehearsal, refuse what would write to the real output directory.

    Args:
        output_dir: where it writes; one in the plan's directory is not refused.

    Raises:
        ConfigInvalid: this process is part of a rehearsal.
    """
    plan = current()
    if plan is not None and (output_dir is None or not location.directory(output_dir).is_relative_to(plan.directory)):
        raise ConfigInvalid(
            f"{what} cannot be rehearsed: its checkpoints are not written by trainhooks, so they would go to the real"
            " output directory.",
            hint="trainhooks rehearse is for loops with state=, loader() and steps(), and for Hugging Face's Trainer"
            " with TrainhooksCallback. By hand, in an output directory of its own: let it save, end it with kill -9 two"
            " steps later, and start it again: the line `resumed at step N` compares the steps that were done twice.",
        )
