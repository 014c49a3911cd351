"""`stats`: what is stored. Sums by upstream are read from the index at no cost, the rest from the lines."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from kdproxy.core.models import Entry, Prompt, Record, Usage
from kdproxy.core.price import STANDARD
from kdproxy.ops.context import JobContext
from kdproxy.ops.event import Events, Result


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsArguments:
    """`stats` takes no arguments."""


def stats(context: JobContext, arguments: StatsArguments) -> Events:
    """Return the sums of the index, and those of the proxy if one runs."""
    snapshot = context.library.snapshot()
    answers = {upstream: count for upstream, count in sorted(snapshot.answers.items()) if count}
    yield Result(
        {
            "answers": sum(answers.values()),
            "answers_by_upstream": answers,
            "prompts": snapshot.prompts,
            "journal_bytes": snapshot.journal_bytes,
            "segments": snapshot.segments,
            "calls": context.library.call_state().as_dict(),
            "serving": None if context.serving is None else context.serving(),
        }
    )


@dataclass(slots=True, kw_only=True)
class _Sum:
    """The sums of one model's answers at one endpoint."""

    answers: int = 0
    body_bytes: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    uncounted_answers: int = 0
    usd: Decimal = Decimal(0)
    unpriced_answers: int = 0
    unpriced_reasons: Counter[str] = field(default_factory=Counter)
    finish: Counter[str] = field(default_factory=Counter)
    """Choices by the provider's finish reason, where the line has it."""
    refused_answers: int = 0

    def add(self, entry: Entry) -> None:
        usage = entry.answer.usage
        self.answers += 1
        self.body_bytes += len(entry.answer.body)
        self.finish.update(word for word in entry.finish or () if word is not None)
        self.refused_answers += entry.refusal is not None
        if usage is None or usage.input_tokens is None:
            self.uncounted_answers += 1
        else:
            self.input_tokens += usage.input_tokens
            self.output_tokens += usage.output_tokens or 0
        if entry.cost_usd is None:
            self.unpriced_answers += 1
            self.unpriced_reasons[_why_unpriced(usage)] += 1
        else:
            self.usd += Decimal(entry.cost_usd)

    def as_dict(self) -> dict[str, Any]:
        # If no part is known, the sum is unknown, not 0.
        is_counted = self.uncounted_answers < self.answers
        return {
            "answers": self.answers,
            "body_bytes": self.body_bytes,
            "input_tokens": self.input_tokens if is_counted else None,
            "output_tokens": self.output_tokens if is_counted else None,
            "uncounted_answers": self.uncounted_answers,
            "usd": str(self.usd) if self.unpriced_answers < self.answers else None,
            "unpriced_answers": self.unpriced_answers,
            "unpriced_reasons": dict(self.unpriced_reasons.most_common()),
            "finish": dict(self.finish.most_common()),
            "refused_answers": self.refused_answers,
        }


def _why_unpriced(usage: Usage | None) -> str:
    """Return why an answer has no price, as far as its line shows; version 1 lines do not show the tier."""
    if usage is None or usage.input_tokens is None:
        return "no token count"
    if usage.unpriced:
        return usage.unpriced
    if usage.tier not in (None, STANDARD):
        return f"tier {usage.tier}"
    if usage.audio_input_tokens or usage.audio_output_tokens:
        return "audio tokens"
    return "not in the price table"


def _without_price(count: int) -> _Sum:
    """Return the sums of recorded prompts, whose cost is unknown."""
    reasons = Counter({"recorded prompt": count})
    return _Sum(answers=count, uncounted_answers=count, unpriced_answers=count, unpriced_reasons=reasons)


def totals(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Sum live records by upstream, endpoint and model, most answers first. Unknown prices are counted separately."""
    sums: dict[tuple[str, str, str], _Sum] = defaultdict(_Sum)
    prompts: dict[str, int] = defaultdict(int)
    for record in records:
        match record:
            case Entry():
                sums[record.upstream, record.endpoint, record.model or ""].add(record)
            case Prompt():
                prompts[record.model] += 1
    rows = [
        {"upstream": upstream, "endpoint": endpoint, "model": model or None, **found.as_dict()}
        for (upstream, endpoint, model), found in sums.items()
    ]
    rows += [
        {"upstream": None, "endpoint": "prompt", "model": model, **_without_price(count).as_dict()}
        for model, count in prompts.items()
    ]
    return sorted(rows, key=lambda row: (-row["answers"], str(row["model"])))
