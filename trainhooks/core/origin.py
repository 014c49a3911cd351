"""Where a batch came from: the samples in it, and the teacher's answers that they were made of."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Id: TypeAlias = int | str
"""What identifies a sample in its data."""

Keys: TypeAlias = tuple[tuple[str, int | None], ...]
"""Stored answers as (key, ordinal); the ordinal is None where it is not known. None of them: not known."""

_KEY_DIGITS = 64
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What is known of one batch of one rank."""

    epoch: int | None = None
    """None if unknown."""
    ids: tuple[Id, ...] | None = None
    """Of each sample: its index, its number in its worker's stream, or what its column `id` says; None: not known."""
    worker: int | None = None
    """Whose stream the ids count in; None where they are not counted by a worker."""
    keys: tuple[Keys, ...] | None = None
    """Of each sample; None where no sample's are known."""


def is_key(value: Any) -> bool:
    """Whether it is written as kdproxy writes a key: SHA-256 as 64 lower hex digits."""
    return isinstance(value, str) and len(value) == _KEY_DIGITS and _HEX.issuperset(value)


def keys_of_row(row: Any) -> Keys:
    """Return what a row's own columns (or fields) `key` and `ordinal` name, as `kdproxy export --format chat` does."""
    if isinstance(row, Mapping):
        return _keys(row.get("key"), row.get("ordinal"))
    return _keys(getattr(row, "key", None), getattr(row, "ordinal", None))


def origin_of_batch(batch: Any, *, epoch: int | None) -> Origin:
    """Return what a batch's own columns `id`, `key` and `ordinal` name; numbers on a device are not waited for."""
    if not isinstance(batch, Mapping):
        return Origin(epoch=epoch)
    ids = _column(batch.get("id"))
    keys = _column(batch.get("key"))
    known: tuple[Keys, ...] | None = None
    if keys is not None:
        ordinals = _column(batch.get("ordinal")) or []
        if len(ordinals) != len(keys):
            ordinals = [None] * len(keys)
        known = tuple(map(_keys, keys, ordinals))
    if ids is not None and (not all(type(each) in (int, str) for each in ids) or _differ(ids, known)):
        ids = None
    return Origin(epoch=epoch, ids=None if ids is None else tuple(ids), keys=known if known and any(known) else None)


def together(origins: Iterable[Origin]) -> Origin:
    """Return the origin of a step that takes several batches of one loader; what one of them lacks is not known."""
    each = list(origins)
    epochs = {one.epoch for one in each}
    ids = [one.ids for one in each if one.ids is not None]
    keys = [one.keys for one in each if one.keys is not None]
    return Origin(
        epoch=epochs.pop() if len(epochs) == 1 else None,
        ids=sum(ids, ()) if len(ids) == len(each) > 0 else None,
        keys=sum(keys, ()) if len(keys) == len(each) > 0 else None,
    )


def _keys(key: Any, ordinal: Any) -> Keys:
    return ((key, ordinal if type(ordinal) is int else None),) if is_key(key) else ()


def _column(values: Any) -> list[Any] | None:
    if hasattr(values, "tolist"):  # a tensor or an array
        if getattr(values, "is_cuda", False) or getattr(values, "ndim", 1) != 1:
            return None
        values = values.tolist()
    if type(values) in (int, str):  # a loader without batches
        return [values]
    return list(values) if isinstance(values, list | tuple) and values else None


def _differ(ids: list[Any], keys: tuple[Keys, ...] | None) -> bool:
    return keys is not None and len(keys) != len(ids)
