"""What the steps of a run were made of, read from its metrics.jsonl."""

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
    """Of every recorded step, superseded ones left out, ascending."""

    def steps_of_key(self, key: str) -> list[int]:
        """Return the steps that are known to have a stored answer in them; the first digits of its key will do."""
        return [step for step, found in self.steps.items() if any(each.startswith(key) for each, _ in found.answers)]


def read_lineage(path: str | os.PathLike[str]) -> Lineage:
    """Return what every step of a run was made of, whatever was killed and resumed in between.

    Args:
        path: an output directory, its `progress/`, or the file.

    Raises:
        OSError: there is no such file.
    """
    settled = rows.settle(lineage.resolved(metrics.read_lines(location.path("path", path))))
    return Lineage({row["step"]: row.get(LINEAGE) or StepLineage(step=row["step"]) for row in settled})
