"""Logs which answers are not stored, and why: each of them is paid for again in the next run."""

import logging
from collections.abc import Hashable
from dataclasses import dataclass, field

from kdproxy.core.models import Upstream
from kdproxy.providers.base import Broken, Complete

log = logging.getLogger("kdproxy.engine")

WARNED_AT = 3
"""So many answers in a row that are not kept for one reason are a server's habit."""

_MOST_WORDS = 100


@dataclass(slots=True)
class _Row:
    """Answers in a row that are not kept for one reason."""

    reason: str
    count: int = 0
    questions: set[Hashable] = field(default_factory=set)
    """The first ones that they answer."""


class Unkept:
    """Counts answers in a row that were not kept for one reason, by upstream."""

    def __init__(self) -> None:
        self._in_a_row: dict[str, _Row] = {}
        self._words: set[tuple[str, str]] = set()

    def whole(self, upstream: Upstream, judgement: Complete) -> None:
        """Take an answer that is whole."""
        self._in_a_row.pop(upstream.name, None)
        word = judgement.unknown_reason
        if word is not None and (upstream.name, word) not in self._words and len(self._words) < _MOST_WORDS:
            self._words.add((upstream.name, word))
            log.warning(
                "an answer ended with an unknown finish reason; it counts as complete and is stored",
                extra={"reason": word, "upstream": upstream.name},
            )

    def is_habit(self, upstream: Upstream, judgement: Broken) -> bool:
        """Whether an upstream's answers are all so, so that another call would bring the same.

        Never so of one that says itself that it failed.
        """
        row = self._in_a_row.get(upstream.name)
        is_known = row is not None and row.reason == judgement.reason and len(row.questions) >= WARNED_AT
        return is_known and not judgement.says_failed

    def broken(self, upstream: Upstream, judgement: Broken, path: str, question: Hashable) -> None:
        """Take an answer that is not kept."""
        log.info("an answer is not stored", extra={"reason": judgement.reason, "path": path})
        row = self._in_a_row.get(upstream.name)
        if row is None or row.reason != judgement.reason:
            row = self._in_a_row[upstream.name] = _Row(judgement.reason)
        row.count += 1
        if len(row.questions) < WARNED_AT:
            row.questions.add(question)
        if row.count != WARNED_AT:
            return
        setting = judgement.setting
        advice = "check the upstream" if setting is None else f"if this upstream always does so, set {setting} for it"
        log.warning(
            f"{WARNED_AT} answers in a row were not stored for the same reason and will be paid for again; {advice}",
            extra={"reason": judgement.reason, "upstream": upstream.name, "path": path},
        )
