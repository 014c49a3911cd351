"""What is compared before the first step of a resumed attempt, on every rank: state, random numbers, batch ids."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from trainhooks.core import upcoming
from trainhooks.core.certificate import IDS, RANDOM, STATE
from trainhooks.core.difference import Difference, differ
from trainhooks.core.ranks import Ranks

if TYPE_CHECKING:
    from trainhooks.core.origin import Origin
    from trainhooks.session.checkpointer import Checkpointer
    from trainhooks.session.feed import Feed

log = logging.getLogger("trainhooks")

Findings = dict[str, Difference | None]
"""By what was compared: what differs, None where it is the same."""


class Resumption:
    """Compares a resumed attempt with the checkpoint that it resumed from. Made and asked on all ranks alike.

    Args:
        progress: of the checkpoint; those of earlier releases name no next batch and no random numbers.
    """

    def __init__(self, progress: Mapping[str, Any], checkpointer: Checkpointer, feed: Feed, ranks: Ranks) -> None:
        self.expects_streams = len(progress.get("next") or {}) > 1
        """Whether the checkpoint names next batches of other streams than the driving one; alike on all ranks."""
        self._next: dict[str, Any] = dict(progress.get("next") or {})
        self._random: dict[str, str] = dict(progress.get("random") or {})
        if progress.get("rank", ranks.rank) != ranks.rank:  # a rank that the checkpoint does not have
            self._next, self._random = {}, {}
        self._checkpointer = checkpointer
        self._feed = feed
        self._ranks = ranks
        self._found: Findings = {}

    def compare_restored(self) -> None:
        """Compare the live objects and the random numbers, after everything is set up and before a batch is read."""
        try:
            self._found[STATE] = self._checkpointer.compare()
        except Exception as error:  # a certificate never costs the run
            log.warning("the restored objects could not be compared (%s: %s)", type(error).__name__, error)
        self._compare_random_numbers()

    def compare_first(self, origin: Origin | None) -> dict[str, Difference | None]:
        """Compare the first batch that was given; returns what all ranks found. Collective."""
        if self._feed.keeps_random_numbers:
            self._compare_random_numbers()
        expected = self._next.pop(self._feed.driver, None)
        if expected is not None and origin is not None:
            self._take(IDS, *upcoming.compare(IDS, expected, origin, rank=self._ranks.rank))
        return self._agreed()

    def compare_streams(self) -> dict[str, Difference | None]:
        """Compare the first batches of the other streams, as far as the loop has read them. Collective."""
        for name, expected in self._next.items():
            origin = self._feed.first_of(name)
            if origin is not None:
                what = f"{IDS} of the stream {name!r}"
                self._take(IDS, *upcoming.compare(what, expected, origin, rank=self._ranks.rank))
        self._next = {}
        return self._agreed()

    def _take(self, fact: str, is_known: bool, difference: Difference | None) -> None:
        if is_known:
            self._found[fact] = self._found.get(fact) or difference

    def _compare_random_numbers(self) -> None:
        if not self._random:
            return
        from trainhooks.pytorch import fingerprint

        now = fingerprint.of_generators()
        found = (
            differ(f"{RANDOM}: the generator of {name} (digest)", self._random[name], now[name])
            for name in self._random.keys() & now.keys()
        )
        self._take(RANDOM, True, next((each for each in found if each is not None), None))

    def _agreed(self) -> Findings:
        """Return what all ranks could compare; a difference names its rank."""
        own = {fact: None if each is None else asdict(each) for fact, each in self._found.items()}
        every = [json.loads(text) for text in self._ranks.gather(json.dumps(own).encode())]
        found: Findings = {}
        for rank, facts in enumerate(every):
            for fact, each in facts.items():
                difference = None if each is None else Difference(**each)
                if difference is not None and rank:
                    difference = Difference(
                        what=f"{difference.what} (rank {rank})", before=difference.before, after=difference.after
                    )
                if difference is not None or all(fact in others for others in every):
                    found[fact] = found.get(fact) or difference
        return found
