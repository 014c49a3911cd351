"""Whether two trainings are the same, to the last bit."""

import json
from pathlib import Path
from typing import Any

import torch


def differences(whole: Path, killed: Path) -> list[str]:
    """Return what differs between an uninterrupted training and one that was killed: nothing, or where it is seen."""
    expected: dict[int, dict[str, Any]] = {}
    for row in _trace(whole):  # a step may have several lines
        expected.setdefault(row["step"], {}).update(row)
    found = []
    steps = set()
    for row in _trace(killed):
        steps.add(row["step"])
        found += [f"step {row['step']}: {name}" for name in row if row[name] != expected[row["step"]].get(name)]
    if steps != expected.keys():
        found.append(f"steps {sorted(expected.keys() - steps)} are missing")
    one, other = (torch.load(path / "final.pt", weights_only=True) for path in (whole, killed))
    return found + list(_unequal(one, other, "final"))


def _trace(path: Path) -> list[dict[str, Any]]:
    text = (path / "trace.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def _unequal(one: Any, other: Any, path: str) -> Any:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if one.dtype != other.dtype or not torch.equal(one, other):
            yield path
    elif isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            yield f"{path}: {sorted(map(str, one.keys() ^ other.keys()))}"
        for name in one.keys() & other.keys():
            yield from _unequal(one[name], other[name], f"{path}.{name}")
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from _unequal(a, b, f"{path}[{number}]")
    elif one != other:
        yield f"{path}: {one!r} and {other!r}"[:200]
