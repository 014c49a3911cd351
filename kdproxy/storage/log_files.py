"""The file names of the journal and the events log: an active file and numbered sealed segments."""

import re
from typing import NamedTuple


class LogFiles(NamedTuple):
    """The file names of a log, and its title."""

    stem: str
    title: str

    @property
    def active(self) -> str:
        """Name of the active file."""
        return f"{self.stem}.jsonl"

    @property
    def sealed(self) -> re.Pattern[str]:
        """Pattern of the names of sealed segments; the group is the number."""
        return re.compile(rf"{self.stem}\.(\d{{6,}})\.jsonl")

    def segment(self, number: int) -> str:
        """Name of a sealed segment."""
        return f"{self.stem}.{number:06d}.jsonl"


JOURNAL_FILES = LogFiles("api_recovery", "journal")
EVENT_FILES = LogFiles("events", "events log")
ACTIVE_NAME = JOURNAL_FILES.active
SEALED = JOURNAL_FILES.sealed
