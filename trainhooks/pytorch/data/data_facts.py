"""What can be known of a data set cheaply: its length, its revision, and the digests of a few records."""

import hashlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trainhooks.core import seed as seeds
from trainhooks.pytorch.data import workers
from trainhooks.pytorch.data.held import HeldGenerators
from trainhooks.pytorch.data.seeding import kept_apart, seed_all

_SECONDS = 2.0
_REVISIONS = ("_fingerprint", "fingerprint", "revision", "version")
"""Where data sets say which data they hold: Hugging Face's `_fingerprint`, and what others call it."""


def facts_of(source: Any, *, num_workers: int = 0) -> dict[str, str | int]:
    """Describe a data set, or the one in a DataLoader: `type`, `revision`, `length`, `record.N`.

    Reads the first record, the last and three more, 2 s at most.
    A record is read under a seed of its own and read twice: one that comes out differently says nothing. Where workers
    will read the data, one worker reads the records, since a file that a data set opens here would be shared with them.
    Of data that can only be iterated no record is read.
    """
    if isinstance(source, DataLoader):
        source, num_workers = source.dataset, source.num_workers
    facts: dict[str, str | int] = {"type": f"{type(source).__module__}.{type(source).__qualname__}"}
    for name in _REVISIONS:
        revision = getattr(source, name, None)
        if isinstance(revision, str | int):
            facts["revision"] = str(revision)
            break
    if not (hasattr(source, "__getitem__") and hasattr(source, "__len__")):
        return facts
    try:
        length = len(source)
    except TypeError:  # a chain of streams has one only if each of them does
        return facts
    facts["length"] = length
    for index, digest in _digests(source, length, num_workers):
        if digest:
            facts[f"record.{index}"] = digest
    return facts


class _Records(Dataset[tuple[int, str]]):
    """Digests of records."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self._held = HeldGenerators({"data set": source})

    def __getitem__(self, index: int) -> tuple[int, str]:
        self._held.look()
        first, second = self._read(index), self._read(index)
        return index, first if first == second else ""

    def _read(self, index: int) -> str:
        with kept_apart(), self._held.kept_apart():
            seed = seeds.derive("fingerprint", index)
            seed_all(seed)
            self._held.seed(seed)
            try:
                record = self.source[index]
            except Exception:  # whatever a data set raises: the training meets it, if it is to be met
                return ""
        digest = hashlib.sha256()
        for piece in _pieces(record):
            if piece is None:
                return ""
            digest.update(piece)
        return digest.hexdigest()[:32]


def _digests(source: Any, length: int, num_workers: int) -> Iterator[tuple[int, str]]:
    if length == 0:
        return
    inner = (seeds.derive("record", length, number) % length for number in range(3))
    indices = sorted({0, length - 1, *inner})
    records = _Records(source)
    end = time.monotonic() + _SECONDS
    if num_workers == 0:
        for index in indices:
            if time.monotonic() > end:
                return
            yield records[index]
    elif torch.multiprocessing.get_start_method() == "fork":  # a new interpreter would take seconds
        loader = DataLoader(
            records, batch_size=None, sampler=indices, num_workers=1, timeout=_SECONDS, generator=torch.Generator()
        )
        workers.shield(loader)
        try:
            yield from workers.begin(loader)
        except RuntimeError:  # the worker has died or takes too long
            return


def _pieces(value: Any) -> Iterator[bytes | None]:
    """Yield a record's content as bytes, with what type it is; None for what has no content that is known here."""
    match value:
        case None | bool() | int() | float() | complex() | str():
            yield f"{type(value).__name__}:{value!r};".encode()
        case bytes():
            yield b"bytes:%d;" % len(value) + value
        case Tensor() if value.layout is torch.strided:
            yield f"tensor:{value.dtype}{tuple(value.shape)};".encode()
            yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        case np.ndarray() | np.generic() if not value.dtype.hasobject:
            yield f"array:{value.dtype}{value.shape};".encode()
            yield value.tobytes()
        case Mapping():
            for name, item in value.items():
                yield f"{name!r}=".encode()
                yield from _pieces(item)
        case list() | tuple():
            yield f"[{len(value)}".encode()
            for item in value:
                yield from _pieces(item)
        case _:
            yield None
