"""How far a loop is: finished steps, whether it is to end, and what waits for the row of the running step."""

from typing import Any


class LoopState:
    """Shared by the parts of one session. On the training's own thread."""

    __slots__ = ("attached", "counts_rows", "finish_reason", "finished", "first", "is_leaving", "resumed_at")

    def __init__(self) -> None:
        self.finished = 0
        """Steps finished so far, over all attempts."""
        self.first = 0
        """Steps that were finished where this attempt began."""
        self.resumed_at: int | None = None
        self.counts_rows = True
        """Whether a row ends its step; a loop that `steps()` drives ends them itself."""
        self.attached: dict[str, Any] | None = None
        """Members for the next row."""
        self.is_leaving = False
        """Whether the loop ends at the next safe point."""
        self.finish_reason: str | None = None
        """Why the training is done before its last step."""

    def resume_at(self, step: int) -> None:
        """Continue with `step` finished steps."""
        self.finished = self.first = self.resumed_at = step

    def attach(self, members: dict[str, Any]) -> None:
        """Add members to the next row."""
        self.attached = members if self.attached is None else {**self.attached, **members}

    def take_attached(self) -> tuple[int, dict[str, Any]] | None:
        """Return what no row took, with the step that it belongs to."""
        members, self.attached = self.attached, None
        return None if members is None else (max(0, self.finished - 1), members)
