"""Which checkpoints of a run are on its live branch, and which on one that was rolled back.

An attempt that resumes at step S abandons what earlier attempts did after S. metrics.jsonl records where each
attempt resumed and which one registered a file, in order, independent of any clock.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainhooks.core import row as rows
from trainhooks.storage import metrics

REGISTERED = "checkpoint"
"""Kind of the event that a registration appends to metrics.jsonl."""
EVENT = b'"kind":'
"""In every line of an event, and in few others."""


@dataclass(slots=True)
class Branch:
    """The attempts of a run according to metrics.jsonl."""

    starts: dict[int, int] = field(default_factory=dict)
    """The finished steps that each attempt resumed at, without attempts that recorded no step."""
    registered_by: dict[str, int] = field(default_factory=dict)
    """The attempt that last registered each path."""

    def is_live(self, step: int, attempt: int) -> bool:
        """Whether what an attempt did up to `step` steps is still part of the run."""
        return all(step <= start for number, start in self.starts.items() if number > attempt)

    def is_path_live(self, path: str, step: int) -> bool:
        """Whether a registered file is part of the run; True if its registration is not recorded."""
        attempt = self.registered_by.get(path)
        return attempt is None or self.is_live(step, attempt)


def read(output_dir: Path) -> Branch:
    """Read the attempts of a run: 0.1 s for a million rows."""
    branch = Branch()
    path = metrics.locate(output_dir)
    if path.is_file():
        for line in _lines(path):
            _take(branch, line)
    return branch


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the events, and of each attempt the first row."""
    begun = False
    for block in metrics.read_blocks(path):
        if begun and EVENT not in block:
            continue
        for line in block.split(b"\n")[:-1]:
            if EVENT in line or not begun:
                members = rows.decode(line)
                if members is None:
                    continue
                begun = members.get("kind") != rows.ATTEMPT and (begun or "kind" not in members)
                yield members


def _take(branch: Branch, line: dict[str, Any]) -> None:
    attempt, kind = line["attempt"], line.get("kind")
    if kind == rows.ATTEMPT and line.get("from_step") is not None:
        branch.starts[attempt] = line["from_step"]
    elif kind == REGISTERED and isinstance(line.get("checkpoint"), dict):
        branch.registered_by[str(line["checkpoint"].get("path"))] = attempt
    elif kind is None and isinstance(line.get("step"), int):
        branch.starts.setdefault(attempt, line["step"])
