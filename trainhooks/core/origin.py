"""Where a batch came from: the samples in it, and the teacher's answers that they were made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Keys: TypeAlias = tuple[tuple[str, int | None], ...]
"""Stored answers as (key, ordinal); the ordinal is None where it is not known."""

_KEY_DIGITS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What is known of one batch of one rank."""

    epoch: int
    ids: tuple[int, ...] | None = None
    """Of each sample: its index, or its number in its worker's stream; None where the loader does not tell."""
    worker: int | None = None
    """Whose stream the ids count in; None where they are indices."""
    keys: tuple[Keys, ...] | None = None
    """Of each sample; None where the loader does not tell."""


def keys_of_row(row: Any) -> Keys:
    """Return what a row's own columns `key` and `ordinal` name, as `kdproxy export --format chat` writes them."""
    if not isinstance(row, Mapping):
        return ()
    key = row.get("key")
    if not isinstance(key, str) or len(key) != _KEY_DIGITS:
        return ()
    ordinal = row.get("ordinal")
    return ((key, ordinal if isinstance(ordinal, int) else None),)
