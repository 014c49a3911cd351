"""What answers have cost, from a journal with other lines, damage and sealed segments in it."""

from decimal import Decimal
from pathlib import Path

from kdproxy.core import record
from trainhooks.storage.bill import read_bill

SAMPLE = Path(__file__).resolve().parents[3] / "tests" / "data" / "journal_v1.jsonl"


def test_the_samples_answers(tmp_path: Path) -> None:
    lines = SAMPLE.read_bytes().splitlines(keepends=True)
    bills = [found for line in lines if (found := record.read_bill(line)) is not None]
    key = "0f" * 32
    mine = [(usage, cost) for each, usage, cost in bills if each == key]
    assert len(mine) >= 2, "once as JSON, once as a stream"
    assert len(bills) < len(lines), "there are prompts and tombstones, too"
    (tmp_path / "api_recovery.000000.jsonl").write_bytes(b"".join(lines[:1]))
    (tmp_path / "api_recovery.jsonl").write_bytes(b"".join(lines[1:]) + lines[0][:-100])
    bill = read_bill(tmp_path, {key, "a" * 64})
    assert (bill.questions, bill.found, bill.answers) == (2, 1, len(mine))
    assert bill.input_tokens == sum(usage.input_tokens or 0 for usage, _ in mine if usage is not None) > 0
    assert bill.output_tokens == sum(usage.output_tokens or 0 for usage, _ in mine if usage is not None) > 0
    assert bill.cost_usd == sum(Decimal(cost) for _, cost in mine if cost is not None) > 0
    assert bill.without_cost == sum(cost is None for _, cost in mine)


def test_a_changed_line_is_not_billed(tmp_path: Path) -> None:
    [first, *_] = SAMPLE.read_bytes().splitlines(keepends=True)
    (tmp_path / "api_recovery.jsonl").write_bytes(first.replace(b'"output_tokens":4', b'"output_tokens":5'))
    assert read_bill(tmp_path, {"0f" * 32}).answers == 0
    assert read_bill(tmp_path / "nowhere", {"0f" * 32}).answers == 0
