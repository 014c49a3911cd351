"""Which data each loader of a session reads, so that one is never taken for another. Loads torch when data comes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TRAINING = ""
"""The name of the training's own stream, which `progress.loader(data)` opens without a name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a loader reads.

    Args:
        data: the data set itself; of a DataLoader, its data set.
        facts: what is known of it; see `trainhooks.pytorch.data.data_facts`.
    """

    data: Any
    facts: Mapping[str, str | int] = field(default_factory=dict)

    def __str__(self) -> str:
        length = self.facts.get("length")
        return type(self.data).__name__ + ("" if length is None else f" of {length} samples")

    @property
    def identity(self) -> str | None:
        """A digest of what it holds; None where its content is unknown, such as a stream without a revision."""
        if not any(name == "revision" or name.startswith("record.") for name in self.facts):
            return None
        return hashlib.sha256(json.dumps(dict(sorted(self.facts.items()))).encode()).hexdigest()[:32]

    def is_same(self, other: Source) -> bool:
        """Whether both are the same object, or are known to hold the same data."""
        return self.data is other.data or (self.identity is not None and self.identity == other.identity)


def describe(source: Any, *, num_workers: int = 0) -> Source:
    """Describe the data of what a user gave as a loader's source."""
    from torch.utils.data import DataLoader

    from trainhooks.pytorch.data.data_facts import facts_of

    data = source.dataset if isinstance(source, DataLoader) else source
    return Source(data=data, facts=facts_of(source, num_workers=num_workers))
