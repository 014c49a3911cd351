"""What the answers to some questions cost, according to kdproxy's journal. Read-only."""

from collections.abc import Set
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

_SEGMENTS = "api_recovery*.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """All purchases for some questions, each counted once, however often it was used."""

    questions: int
    found: int
    """Questions with an answer in the journal."""
    answers: int
    """A question may be bought more than once: as a stream too, or again on purpose."""
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal
    without_cost: int
    """Answers with unknown price, not in `cost_usd`."""


def read_bill(journal: Path, keys: Set[str]) -> Bill:
    """Read a data directory of kdproxy, including sealed segments; damaged and torn lines are skipped.

    Raises:
        OSError: it cannot be read.
    """
    from kdproxy.core import record

    found: set[str] = set()
    answers = input_tokens = output_tokens = without_cost = 0
    cost = Decimal(0)
    for path in sorted(journal.glob(_SEGMENTS)):
        with path.open("rb") as file:
            for line in file:
                bought = record.read_bill(line)
                if bought is None and (start := record.remainder(line)):
                    bought = record.read_bill(line[start:])
                if bought is None or bought[0] not in keys:
                    continue
                key, usage, price = bought
                found.add(key)
                answers += 1
                if usage is not None:
                    input_tokens += usage.input_tokens or 0
                    output_tokens += usage.output_tokens or 0
                if price is None:
                    without_cost += 1
                else:
                    cost += Decimal(price)
    return Bill(
        questions=len(keys),
        found=len(found),
        answers=answers,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cost_usd=cost,
        without_cost=without_cost,
    )
