"""Which samples of a teacher a checkpoint covers: cursors of a kdproxy run, and which of them a checkpoint holds. Pure.

A cursor is a moment of an attempt. A batch that was made ahead has already used samples, so the cursor of a checkpoint
is that of the last batch which the loop got. It is exact only if nothing else asked in the meantime; where that cannot
be known, the reason is stored beside it. Samples that requests name themselves (`Kdproxy-Sample: N`) depend on no
cursor: kdproxy counts the others.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Cursor(NamedTuple):
    """A moment of an attempt, as kdproxy tells it."""

    attempt: str | None = None
    """Name of the attempt; None: none had been opened."""
    after: str | None = None
    """The last event before it; None: no sample had been used."""
    in_flight: int = 0
    """Requests that waited for a sample without naming it."""
    counted: int = 0
    """Samples that the attempt's requests had taken without naming them."""

    @property
    def mark(self) -> tuple[str | None, int]:
        """Equal if no sample was taken in between but by name."""
        return self.attempt, self.counted

    def members(self) -> dict[str, Any]:
        """Return what `read` reads, as JSON."""
        return self._asdict()


def read(members: Mapping[str, Any]) -> Cursor:
    """Read the members of a cursor; those that are not known are left out.

    Raises:
        TypeError, ValueError: they are not those of a cursor.
    """
    attempt, after = members.get("attempt"), members.get("after")
    if not all(each is None or isinstance(each, str) for each in (attempt, after)):
        raise TypeError("attempt and after are names or null")
    return Cursor(attempt, after, int(members.get("in_flight", 0)), int(members.get("counted", 0)))


class Produced(NamedTuple):
    """What was known when a batch was made. It travels with the batch."""

    worker: int | None
    """Of the loader; None: the loop's own process."""
    before: Cursor | None
    after: Cursor | None
    failure: str | None = None
    """Why a cursor is missing."""


class Productions:
    """How the batches of one loader were made, as far as the loop got them.

    Args:
        is_foreign: the loader is used as it is, so it may ask ahead in threads of its own.
        reads_again: a resume reads the data from the beginning of the epoch again, and asks again.
    """

    def __init__(self, *, is_foreign: bool = False, reads_again: bool = False) -> None:
        self.is_foreign = is_foreign
        self.reads_again = reads_again
        self.last: Produced | None = None
        """Of the last batch that the loop got."""
        self.begin: Cursor | None = None
        """Before the epoch's first batch, or that of this attempt."""
        self.failure: str | None = None
        self.askers: set[int | None] = set()
        """Workers whose batches took samples without naming them."""
        self.others_asked = False
        """Whether samples were taken while none of a worker's batches was being made."""
        self._last_of: dict[int | None, Cursor] = {}

    def take(self, produced: Produced | None, *, begins_epoch: bool = False) -> None:
        """Take note of a batch that the loop is about to get; None: no run is known."""
        if produced is None:
            return
        self.last = produced
        self.failure = self.failure or produced.failure
        worker, before, after = produced.worker, produced.before, produced.after
        if begins_epoch or self.begin is None:
            self.begin = before
        if before is None or after is None:
            return
        if before.mark != after.mark:
            self.askers.add(worker)
        if worker in self._last_of and self._last_of[worker].mark != before.mark:
            self.others_asked = True
        self._last_of[worker] = after

    @property
    def is_ahead(self) -> bool:
        """Whether batches are made before the loop wants them, or may be."""
        return self.is_foreign or (self.last is not None and self.last.worker is not None)


class Covered(NamedTuple):
    """The samples that a checkpoint covers."""

    cursor: Cursor | None
    inexact: str | None = None
    """Why a resume may get other samples; None: it gets the same."""

    def members(self) -> dict[str, Any]:
        """Return the member `samples` of a checkpoint."""
        members = {} if self.cursor is None else self.cursor.members()
        return members if self.inexact is None else {**members, "inexact": self.inexact}


def covered_of(members: Mapping[str, Any]) -> Covered:
    """Read the member `samples` of a checkpoint. Raises TypeError or ValueError."""
    inexact = members.get("inexact")
    return Covered(read(members) if "after" in members else None, None if inexact is None else str(inexact))


def covered(
    now: Cursor,
    driver: Productions | None,
    others: Iterable[Productions] = (),
    *,
    is_again: bool = False,
    world: int = 1,
) -> Covered:
    """Return what a checkpoint covers that is taken between two steps.

    Args:
        now: the present cursor.
        driver: of the stream whose batches are the steps.
        others: of the other loaders.
        is_again: the last batch of the driver does not count and comes again.
        world: processes that train together.
    """
    everyone = [each for each in (driver, *others) if each is not None]
    failure = next((each.failure for each in everyone if each.failure is not None), None)
    place, inexact = _place(now, driver, everyone, is_again=is_again)
    if now.counted == 0:  # nothing depends on a cursor
        return Covered(place)
    if failure is not None:
        return Covered(place, failure)
    if world > 1:
        return Covered(place, f"{world} processes ask in one attempt at once")
    if inexact is None and place.in_flight:
        inexact = f"{place.in_flight} {'requests were' if place.in_flight > 1 else 'request was'} in flight"
    return Covered(place, inexact)


def _place(
    now: Cursor, driver: Productions | None, everyone: list[Productions], *, is_again: bool
) -> tuple[Cursor, str | None]:
    """Return the cursor to resume from, and why it is not exact."""
    if driver is not None and driver.reads_again and driver.askers and driver.begin is not None:
        why = None
        if driver.others_asked or driver.askers != {None}:
            why = "the data is read again from the beginning of its epoch, and something else asks beside it"
        return driver.begin, why
    if driver is not None and is_again and driver.last is not None and driver.last.before is not None:
        before = driver.last.before
        if not driver.is_ahead or driver.askers or before.mark == now.mark:
            return before, _why_ahead(everyone)
        return before, "a step that was broken off had asked"
    if driver is not None and driver.is_foreign:
        asked_since = driver.others_asked or (
            driver.last is not None and driver.last.after is not None and driver.last.after.mark != now.mark
        )
        return now, "the loader is used as it is, and something asks between its batches" if asked_since else None
    ahead = [each for each in everyone if each.is_ahead and each.askers - {None}]
    if not ahead:
        return now, None
    asker = driver if driver is not None and driver in ahead else ahead[0]
    last = None if asker.last is None else asker.last.after
    return last or now, _why_ahead(everyone)


def _why_ahead(everyone: list[Productions]) -> str | None:
    count = sum(len(each.askers - {None}) for each in everyone)
    if count > 1:
        return f"{count} workers of the loader ask at once"
    if count and any(each.others_asked for each in everyone if each.is_ahead):
        return "the loop and a worker of its loader both ask"
    return None
