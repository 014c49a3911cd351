"""docs/formats/metrics.md: its sample is read by every release, and its own reader agrees with ours."""

import math
import random
import re
from pathlib import Path
from typing import Any

import pytest

from trainhooks.core import row as rows
from trainhooks.storage.lineage import read_lineage
from trainhooks.storage.metrics import read_lines, read_metrics

ROOT = Path(__file__).resolve().parents[3]
SAMPLE = ROOT / "tests" / "data" / "metrics_v1.jsonl"


def test_version_1_is_read() -> None:
    first, second, third, fourth = read_metrics(SAMPLE)
    assert (first["step"], first["loss"], first["attempt"]) == (0, 2.5, 1)
    assert first["loss_components"] == {"ce": 1.25, "kl": -math.inf}
    assert math.isnan(second["loss"])
    assert (third["attempt"], third["loss"], third["ids"], third["note"]) == (2, None, [7, 2**70], "ünï")
    kinds = {line["kind"] for line in read_lines(SAMPLE) if "kind" in line}
    assert kinds == {"attempt", "checkpoint", "checkpoint_failure", "connection_failure", "connection_recovery"}
    assert [line["seq"] for line in read_lines(SAMPLE)] == list(range(15))
    assert fourth["replay"] == {"batch": "0f0f0f0f0f0f0f0f", "random": "1e1e1e1e1e1e1e1e"}


def test_the_lineage_of_version_1_is_read() -> None:
    first, second = list(read_lineage(SAMPLE).steps.values())[2:]
    assert first.ids == (7, 1)
    assert first.keys == (((("a" * 64), 0),), ())
    assert (second.epoch, second.worker, second.ids, second.keys) == (1, None, (1, 7), ((), (("a" * 64, 0),)))
    assert (second.asked, second.ranks) == ((("b" * 64, None),), 2)


@pytest.mark.parametrize("seed", range(50))
def test_the_pages_reader_agrees(seed: int, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "formats" / "metrics.md").read_text(encoding="utf-8")
    [program] = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(program, names)
    chance, lines = random.Random(seed), []
    for attempt in range(1, 5):
        start = chance.randrange(20)
        lines.append({"attempt": attempt, "kind": "attempt", "from_step": None})
        if chance.random() < 0.5:
            lines.append({"attempt": attempt, "kind": "attempt", "from_step": start})
        for step in range(start, start + chance.randrange(12)):
            lines += [{"attempt": attempt, "step": step, "loss": chance.random()}] * chance.choice((1, 1, 2))
            lines.append({"attempt": attempt, "kind": "unknown"})
        lines.append({"attempt": chance.randint(1, attempt), "step": start, "val": chance.random()})
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"".join(rows.encode({"v": 1, "seq": seq, **line}) for seq, line in enumerate(lines)))
    assert names["rows_of"](path) == list(rows.settle(read_lines(path)))
