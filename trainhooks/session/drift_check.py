"""Whether this attempt is still the run that it resumes: its facts, compared with those of an earlier attempt."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from trainhooks.core import drift
from trainhooks.core.drift import Change, Facts, Policy
from trainhooks.errors import DriftBlocked

log = logging.getLogger("trainhooks")


class DriftCheck:
    """The facts of the running attempt. They go into session.json, and a difference is reported or refused.

    Args:
        given: policies that go before the defaults: see `drift.rules_of`.
        attempts: as session.json has them, the running one last.
        record: called with each difference that does not block.
    """

    def __init__(
        self, given: Mapping[str, str], attempts: list[dict[str, Any]], record: Callable[[Change], None]
    ) -> None:
        self._given = dict(given)
        self._rules = drift.rules_of(given)
        self._record = record
        self._earlier = {each["attempt"]: each.get("provenance", {}) for each in attempts[:-1]}
        self._facts: dict[str, Any] = attempts[-1].setdefault("provenance", {})
        self._before: Facts | None = None

    def extend(self, given: Mapping[str, str]) -> None:
        """Put further policies behind those that were given first."""
        self._given = {**given, **self._given}
        self._rules = drift.rules_of(self._given)

    def add(self, facts: Facts) -> None:
        """Note facts of this attempt, and compare them if it resumes an earlier one.

        Raises:
            DriftBlocked: naming everything that may not differ.
        """
        self._facts.update(facts)
        if self._before is not None:
            self._compare({name: each for name, each in self._before.items() if name in facts}, facts)

    def resume_from(self, attempt: int) -> None:
        """Compare with the attempt whose checkpoint is resumed.

        Raises:
            DriftBlocked: naming everything that may not differ.
        """
        self._before = self._earlier.get(attempt) or {}
        if self._before:
            self._compare(self._before, self._facts)

    def blocks(self, name: str) -> bool:
        """Whether a difference in a fact of that name blocks the start."""
        return drift.policy_of(name, self._rules) is Policy.BLOCK

    def refuse(self, name: str, before: str, after: str) -> None:
        """Treat something that no facts hold as a difference, under a policy of its own name.

        Raises:
            DriftBlocked: unless the policy says otherwise.
        """
        self._compare({name: before}, {name: after})

    def _compare(self, before: Facts, after: Facts) -> None:
        changes = drift.compare(before, after, self._rules)
        blocked = [change for change in changes if change.policy is Policy.BLOCK]
        if blocked:
            raise DriftBlocked(
                f"This is not the run that it would resume: {'; '.join(map(str, blocked))}.", hint=_way_out(blocked)
            )
        for change in changes:
            if change.policy is Policy.WARN:
                log.warning("since the checkpoint that is resumed, %s", change)
            self._record(change)


def _way_out(blocked: list[Change]) -> str:
    """Say what to do: of hyperparameters, say whose hold; of all else, put it back or allow it."""
    others = [change for change in blocked if not change.name.startswith("hyperparameters.")]
    ways = []
    if len(others) < len(blocked):
        ways.append(
            "Say which hyperparameters hold: restore='checkpoint' (the saved ones) or restore='state-only' (the new"
            " ones, with the saved moments and counters)."
        )
    if others:
        allowing = ", ".join(f"{change.name!r}: 'allow'" for change in others)
        ways.append(f"Put it back, or take another output directory. If it is meant, give drift={{{allowing}}}.")
    return " ".join(ways)
