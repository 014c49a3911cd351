"""Rows of metrics.jsonl from a step on, read backwards from the file's end, so that a long history is not read."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainhooks.core import row as rows
from trainhooks.core.certificate import BEGUN

_BLOCK_BYTES = 1 << 18


def rows_from(path: Path, step: int, *, before_attempt: int) -> list[dict[str, Any]]:
    """Return one settled row per step, from `step` on, as attempts before `before_attempt` recorded them.

    The `begun` events of the last of these attempts follow: steps that it may not have finished.

    Lines before the last row of a smaller step have smaller steps too, or are superseded by the attempt of that row.
    """
    lines = list[dict[str, Any]]()
    try:
        for line in _backwards(path):
            if line["attempt"] >= before_attempt:
                continue
            lines.append(line)
            if "kind" not in line and isinstance(line.get("step"), int) and line["step"] < step:
                break
    except FileNotFoundError:
        return []
    newest = max((line["attempt"] for line in lines), default=0)
    begun = [line for line in reversed(lines) if line.get("kind") == BEGUN and line["attempt"] == newest]
    return [row for row in [*rows.settle(reversed(lines)), *begun] if row["step"] >= step]


def _backwards(path: Path) -> Iterator[dict[str, Any]]:
    """Yield whole lines, last first."""
    with path.open("rb", buffering=0) as file:
        at, rest = file.seek(0, os.SEEK_END), b""
        while at > 0:
            length = min(_BLOCK_BYTES, at)
            at -= length
            file.seek(at)
            pieces = (file.read(length) + rest).split(b"\n")
            rest = pieces[0] if at > 0 else b""
            for piece in reversed(pieces[1:] if at > 0 else pieces):
                if piece and (members := rows.decode(piece)) is not None:
                    yield members
