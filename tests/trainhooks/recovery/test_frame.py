"""Rows as columns say what the rows say that `settle` gives."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainhooks.core import row as rows
from trainhooks.recovery import frame
from trainhooks.storage import metrics

VALUES = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**70), 2**70),
    st.none(),
    st.booleans(),
    st.sampled_from(["NaN", "text"]),
    st.dictionaries(st.sampled_from(["kd", "ce"]), st.floats(0, 1), max_size=2),
)
LINES = st.lists(
    st.tuples(
        st.integers(1, 3),
        st.integers(0, 6),
        st.dictionaries(st.sampled_from(["loss", "lr", "parts", "note"]), VALUES, max_size=4),
    ),
    max_size=40,
)


def written(drawn: list[tuple[int, int, dict[str, Any]]]) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for attempt, step, members in sorted(drawn, key=lambda each: each[0]):
        if not lines or lines[-1]["attempt"] != attempt:
            lines.append({"v": 1, "seq": len(lines), "attempt": attempt, "kind": "attempt", "from_step": step})
        lines.append({"v": 1, "seq": len(lines), "attempt": attempt, "step": step, **members})
    return lines


@pytest.mark.parametrize("read_bytes", [1, 150, 1 << 20])
@given(LINES)
def test_every_value_is_where_its_row_is(
    tmp_path_factory: pytest.TempPathFactory, read_bytes: int, drawn: list[tuple[int, int, dict[str, Any]]]
) -> None:
    lines = written(drawn)
    path = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    gaps: list[str] = []
    before, metrics._READ_BYTES = metrics._READ_BYTES, read_bytes
    try:
        table = frame.read(path, gaps)
    finally:
        metrics._READ_BYTES = before
    settled = list(rows.settle(lines))
    assert gaps == []
    assert len(table) == len(settled)
    for name in ("loss", "lr", "note", "parts"):
        nested = any(isinstance(line.get(name), dict) for line in lines)
        for at, row in enumerate(settled):
            value = row.get(name)
            if nested:
                for part in ("kd", "ce"):
                    held = value.get(part) if isinstance(value, dict) else None
                    assert alike(table[f"{name}/{part}"][at] if f"{name}/{part}" in table else None, held)
            else:
                assert alike(table[name][at] if name in table else None, value)


def alike(found: Any, wanted: Any) -> bool:
    if wanted is None or wanted == "NaN":
        return found is None or found == wanted or (isinstance(found, float) and math.isnan(found))
    return bool(found == wanted) or math.isclose(float(found), float(wanted), rel_tol=1e-12)


def test_a_table_of_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"")
    assert frame.read(path, []).empty
