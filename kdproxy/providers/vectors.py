"""Reads the dimensions of vectors, as numbers or as base64, and whether a vector is zero. Pure.

All vectors of one answer come from one model: if their dimensions differ, a row was cut or belongs to another answer.
"""

from collections.abc import Iterable
from typing import Any

from kdproxy.providers.base import Broken

VECTORS_DIFFER = Broken("its vectors differ in length")


def have_one_dimension(vectors: Iterable[Any]) -> bool:
    """Whether vectors, or lists of vectors (one for each token), all have the same dimension and encoding."""
    found: set[tuple[type, int]] = set()
    for vector in vectors:
        _collect(vector, found)
    return len(found) <= 1


def _collect(value: Any, found: set[tuple[type, int]]) -> None:
    if isinstance(value, list):
        if value and isinstance(value[0], list):
            for part in value:
                _collect(part, found)
        else:
            found.add((list, len(value)))
    elif isinstance(value, str):
        found.add((str, len(value.rstrip("="))))
    # An object is an encoding of its own, such as a sparse vector: it has no one length.


def is_zero_text(value: str) -> bool:
    """Whether base64 holds zeros only, or nothing."""
    return not value.strip("A=")
