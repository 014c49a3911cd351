"""What a run has bought: the calls that name it in the events log, and the answers that name these calls."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from kdproxy.core import record as record_format
from kdproxy.core.call_event import Ended, NamedEvent, Sent, read_event
from kdproxy.core.models import Entry, LineName, Usage
from kdproxy.core.ports import Library
from kdproxy.core.record import name_from
from kdproxy.core.run_event import Opened, RunRenamed
from kdproxy.errors import RecordInvalid
from kdproxy.ops.event import Progress

_KIND = re.compile(rb'\{"v":2,"kind":"(sent|ended|opened|renamed)"')
_CALL = re.compile(rb'"call":"([0-9a-f]{24}/[0-9]+)"')
_PROGRESS_LINES = 1_000


@dataclass(slots=True)
class Bill:
    """The sums of the calls of a run."""

    open: set[LineName] = field(default_factory=set)
    """Calls without an end."""
    calls: int = 0
    kept: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    input_tokens: int = 0
    output_tokens: int = 0
    usd: Decimal = Decimal(0)
    priced: int = 0

    def add(self, usage: Usage | None, cost_usd: str | None) -> None:
        """Add what a call has cost."""
        if usage is not None:
            self.input_tokens += usage.input_tokens or 0
            self.output_tokens += usage.output_tokens or 0
        if cost_usd is not None:
            self.usd += Decimal(cost_usd)
            self.priced += 1

    def as_dict(self) -> dict[str, Any]:
        """Return the sums. Dollars of which nothing is known are None, not 0."""
        return {
            "calls": self.calls,
            "kept": self.kept,
            **{outcome: self.outcomes[outcome] for outcome in ("answered", "refused", "maybe_billed", "abandoned")},
            "without_end": len(self.open),
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "usd": str(self.usd) if self.priced or not self.calls else None,
            "unpriced": self.calls - self.priced - self.outcomes["refused"],
        }


def read_bill(library: Library, run_id: LineName, bill: Bill) -> Iterator[Progress]:
    """Read both logs for what a run has bought."""
    total = library.snapshot().journal_bytes
    yield Progress(done_bytes=0, total_bytes=total)
    labels: dict[str, LineName] = {}
    """Which run has a label, at the place in the log that is read."""
    for line in library.event_lines():
        if _KIND.match(line.raw) is not None:
            try:
                _take(read_event(line.raw), run_id, labels, bill)
            except RecordInvalid:
                continue
    if not bill.open:
        return
    done = 0
    for number, line in enumerate(library.lines()):
        done += len(line.raw)
        if number % _PROGRESS_LINES == 0:
            yield Progress(done_bytes=done, total_bytes=total)
        for match in _CALL.finditer(line.raw):
            call = name_from(match[1].decode())
            if call in bill.open:
                _keep(line.raw, call, bill)


def _take(named: NamedEvent, run_id: LineName, labels: dict[str, LineName], bill: Bill) -> None:
    match named.event:
        case Opened() as opened:
            labels[opened.run] = opened.run_id or named.name
        case RunRenamed() as renamed:
            for label in [label for label, run in labels.items() if run == renamed.run_id]:
                del labels[label]
            labels[renamed.run] = renamed.run_id
        case Sent() as sent if sent.run and labels.get(sent.run) == run_id:
            bill.calls += 1
            bill.open.add(named.name)
        case Ended() as ended if ended.call in bill.open:
            bill.open.discard(ended.call)
            bill.outcomes[ended.outcome] += 1
            bill.add(ended.usage, ended.cost_usd)


def _keep(raw: bytes, call: LineName, bill: Bill) -> None:
    try:
        record = record_format.decode(raw)
    except RecordInvalid:
        return
    if isinstance(record, Entry) and record.call == str(call):
        bill.open.discard(call)
        bill.kept += 1
        bill.add(record.answer.usage, record.cost_usd)
