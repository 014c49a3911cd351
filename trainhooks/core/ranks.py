"""What the processes of one training say to each other: who they are, what they wish, whether they failed."""

from typing import Protocol


class Ranks(Protocol):
    """The processes of one training. Every method is collective: all ranks call it, in one order.

    Saving calls it from a thread of its own while the training continues: the order holds per thread.
    RankLost is raised by each once another process has ended, or does not come within the time that is given it.
    """

    @property
    def rank(self) -> int:
        """This process among them, from 0; rank 0 writes the session's files and publishes."""
        ...

    @property
    def world(self) -> int:
        """How many there are."""
        ...

    def barrier(self) -> None:
        """Return once every rank is here."""
        ...

    def all_ok(self, is_ok: bool) -> bool:
        """Return, on every rank, whether every rank said True."""
        ...

    def share(self, text: bytes) -> bytes:
        """Return rank 0's text on every rank; what others give is not looked at."""
        ...

    def gather(self, text: bytes) -> list[bytes]:
        """Return, on every rank, the texts of all ranks in their order."""
        ...

    def exchange(self, wish: int) -> int:
        """Hand in a wish, and learn the largest one that was handed in a call ago (alone: in this call).

        All ranks learn the same number in the same call, so they can act on it together. The call before is used
        because its reduction ran during the step, so no rank waits.
        """
        ...

    def close(self) -> None:
        """End what is under way."""
        ...


class Alone:
    """A training of one process."""

    rank = 0
    world = 1

    def barrier(self) -> None:
        """Nobody to wait for."""

    def all_ok(self, is_ok: bool) -> bool:
        """Return what this process says."""
        return is_ok

    def share(self, text: bytes) -> bytes:
        """Return the text."""
        return text

    def gather(self, text: bytes) -> list[bytes]:
        """Return the text."""
        return [text]

    def exchange(self, wish: int) -> int:
        """Return the wish."""
        return wish

    def close(self) -> None:
        """Nothing is under way."""
