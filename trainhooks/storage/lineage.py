"""Which samples and answers the steps of a run used, read from its metrics.jsonl."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from trainhooks.core import lineage
from trainhooks.core import row as rows
from trainhooks.core.lineage import LINEAGE, StepLineage
from trainhooks.storage import location, metrics


@dataclass(frozen=True, slots=True)
class Lineage:
    """Step -> samples -> stored answers, and back."""

    steps: Mapping[int, StepLineage]
    """Every recorded step without superseded rows, ascending."""

    def steps_of_key(self, key: str) -> list[int]:
        """Return the steps known to use a stored answer; a prefix of its key suffices."""
        return [step for step, found in self.steps.items() if any(each.startswith(key) for each, _ in found.answers)]


def read_lineage(path: str | os.PathLike[str]) -> Lineage:
    """Return which samples and answers every step of a run used, across kills and resumes.

    Args:
        path: an output directory, its `progress/`, or the file.

    Raises:
        OSError: there is no such file.
    """
    settled = rows.settle(lineage.resolved(metrics.read_lines(location.path("path", path))))
    return Lineage({row["step"]: row.get(LINEAGE) or StepLineage(step=row["step"]) for row in settled})
