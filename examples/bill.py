"""The demo's bill: what each leg bought, what it replayed from disk, and what a paid teacher would have charged."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from rich.table import Table

from kdproxy.core.models import Entry, Usage
from kdproxy.core.pricing import PriceTable
from kdproxy.core.record import decode
from kdproxy.errors import RecordInvalid

SCALE = 100_000  # rows in a typical distillation run


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One run of the script, from its start to its end or its kill."""

    name: str
    rows: int
    """Complete rows in the script's output file."""
    bought: tuple[Usage, ...]
    """Answers that the journal gained."""
    replayed: tuple[Usage, ...]
    """Answers that were in the journal before and were requested again."""
    teacher_moved: int
    """What the teacher itself counted meanwhile."""
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidTeacher:
    """The paid teacher whose list price is applied to the demo's tokens."""

    seller: str
    model: str
    table: PriceTable = field(default_factory=PriceTable.load)

    def cost(self, usages: Sequence[Usage]) -> Decimal | None:
        """Add up the price of answers; None if any of them is unknown."""
        prices = [self.table.price(self.seller, self.model, usage) for usage in usages]
        return None if None in prices else sum((price for price in prices if price is not None), Decimal(0))

    def describe(self) -> str:
        """Say whose price it is, and when it was read."""
        row = self.table.find(self.seller, self.model)
        if row is None:
            return f"{self.seller} {self.model}: no known price"
        return (
            f"{self.seller} {self.model}: ${row.input} in, ${row.output} out per million tokens "
            f"({row.source}, read on {row.read_on})"
        )


def paid_for(data_dir: Path) -> tuple[Usage, ...]:
    """Read from the journal what has been paid for, in the order in which it was stored."""
    usages = []
    for segment in sorted(data_dir.glob("api_recovery*.jsonl")):
        for line in segment.read_bytes().splitlines():
            try:
                record = decode(line)
            except RecordInvalid:  # torn by the kill: the proxy cuts it off at its next start
                continue
            usage = record.answer.usage if isinstance(record, Entry) else None
            if usage is not None:
                # Without the local server's own prompt cache: no paid teacher gives a discount on prompts this short.
                usages.append(Usage(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens))
    return tuple(usages)


def bill(legs: Sequence[Leg], paid: PaidTeacher, teacher_unit: str) -> Table:
    """Show the legs side by side, narrow enough for any terminal."""
    table = Table(title="The bill", caption=f"$ at list price of {paid.describe()}")
    table.add_column("")
    for leg in legs:
        table.add_column(leg.name, justify="right")
    lines: dict[str, Callable[[Leg], str]] = {
        "rows in the output": lambda leg: str(leg.rows),
        "calls bought": lambda leg: str(len(leg.bought)),
        "hits, from disk": lambda leg: str(len(leg.replayed)),
        "tokens bought": lambda leg: f"{_tokens(leg.bought):,}",
        "tokens from disk": lambda leg: f"{_tokens(leg.replayed):,}",
        f"teacher's own count ({teacher_unit})": lambda leg: f"+{leg.teacher_moved:,}",
        "seconds": lambda leg: f"{leg.seconds:.1f}",
        "$ that a paid teacher takes": lambda leg: dollars(paid.cost(leg.bought)),
        "$ saved": lambda leg: dollars(paid.cost(leg.replayed)),
    }
    for name, show in lines.items():
        table.add_row(name, *(show(leg) for leg in legs))
    return table


def at_scale(last: Leg, paid: PaidTeacher) -> str:
    """Say what the last leg's rows would cost in a typical run."""
    cost = paid.cost(last.replayed)
    if cost is None or not last.rows:
        return "What that saves in a longer run is unknown: the paid teacher's price is."
    whole = cost / last.rows * SCALE
    return (
        f"{SCALE:,} rows like these would cost ${whole:,.2f} at that teacher, and $0.00 each time they are asked again."
    )


def dollars(cost: Decimal | None) -> str:
    """Write a sum of money; an unknown one says so."""
    return "unknown" if cost is None else f"{cost:.6f}"


def _tokens(usages: Sequence[Usage]) -> int:
    return sum((usage.input_tokens or 0) + (usage.output_tokens or 0) for usage in usages)
