"""What the answers to some questions have cost, as kdproxy's journal has it. Changes nothing there."""

from collections.abc import Set
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

_SEGMENTS = "api_recovery*.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """Everything that was bought for some questions, each purchase once, however often it was used."""

    questions: int
    found: int
    """Of them, those that the journal has an answer to."""
    answers: int
    """A question that was asked as a stream too, or again on purpose, was bought more than once."""
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal
    without_cost: int
    """Answers whose price is not known; they are in no sum of money."""


def read_bill(journal: Path, keys: Set[str]) -> Bill:
    """Read a data directory of kdproxy, sealed segments too; damaged lines and one without its end are left out.

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
