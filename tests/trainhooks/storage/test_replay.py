"""Rows from a step on, found from the file's end: the same as those that a reader of the whole file finds."""

import os
import random
from pathlib import Path
from typing import Any

import pytest

from trainhooks.core import row as rows
from trainhooks.storage import replay
from trainhooks.storage.metrics import read_lines
from trainhooks.storage.replay import rows_from


def write(path: Path, lines: list[dict[str, Any]], torn: bytes = b"") -> None:
    path.write_bytes(b"".join(rows.encode({"v": 1, "seq": seq, **line}) for seq, line in enumerate(lines)) + torn)


@pytest.mark.parametrize("seed", range(40))
def test_it_agrees_with_a_reader_of_the_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Over any number of rewinds, and where blocks end within lines."""
    chance = random.Random(seed)
    monkeypatch.setattr(replay, "_BLOCK_BYTES", chance.choice((1, 7, 64, 1 << 18)))
    lines: list[dict[str, Any]] = []
    reached = 0
    for attempt in range(1, 5):
        start = chance.randint(0, reached)
        lines += [{"attempt": attempt, "kind": "attempt", "from_step": each} for each in (None, start)]
        reached = start + chance.randrange(8)
        for step in range(start, reached):
            parts = chance.choice((1, 1, 2))
            lines += [{"attempt": attempt, "step": step, f"m{part}": chance.random()} for part in range(parts)]
            lines += [{"attempt": attempt, "kind": "inputs"}] * chance.randrange(2)
    path = tmp_path / "metrics.jsonl"
    write(path, lines, torn=b'{"v":1,"seq":99,"att')
    for before in range(2, 6):
        for step in range(reached + 2):
            earlier = [line for line in read_lines(path) if line["attempt"] < before]
            expected = [row for row in rows.settle(earlier) if row["step"] >= step]
            assert rows_from(path, step, before_attempt=before) == expected


def test_a_long_history_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, [{"attempt": 1, "step": step, "text": "x" * 400} for step in range(20_000)])
    decoded = 0
    decode = rows.decode

    def counting(line: bytes) -> Any:
        nonlocal decoded
        decoded += 1
        return decode(line)

    monkeypatch.setattr(rows, "decode", counting)
    assert [row["step"] for row in rows_from(path, 19_990, before_attempt=2)] == list(range(19_990, 20_000))
    assert decoded == 11
    assert os.path.getsize(path) > 8e6


def test_no_file_and_an_empty_one(tmp_path: Path) -> None:
    assert rows_from(tmp_path / "none", 0, before_attempt=2) == []
    write(tmp_path / "empty", [])
    assert rows_from(tmp_path / "empty", 0, before_attempt=2) == []
