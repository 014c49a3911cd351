"""Write one safetensors file straight from memory. The safetensors library reads it.

The format is 8 bytes of header length, a JSON header, and the tensors' bytes (README of huggingface/safetensors,
section Format, read 2026-11). The library's writer needs every tensor as a `bytes` copy and keeps no hash; this one
writes gigabytes without a copy, and starts while tensors are still being copied from a device.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from trainhooks.core.manifest import FileRecord
from trainhooks.storage import durable_file

SUFFIX = ".safetensors"
METADATA = "__metadata__"
"""The one name that the format reserves."""
_ALIGNMENT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """One tensor's bytes, contiguous, little-endian, row-major."""

    name: str
    dtype: str
    """As safetensors spells it: F32, BF16, I64, ..."""
    shape: tuple[int, ...]
    data: memoryview
    """Flat bytes; valid once `wait` has returned."""
    wait: Callable[[], None] = lambda: None
    """Returns once the bytes are there."""


def write(path: Path, blobs: Iterable[Blob], *, metadata: Mapping[str, str] | None = None) -> FileRecord:
    """Write and sync a new file; returns its size and SHA-256."""
    blobs = list(blobs)
    header: dict[str, object] = {METADATA: dict(metadata)} if metadata else {}
    end = 0
    for blob in blobs:
        begin, end = end, end + blob.data.nbytes
        header[blob.name] = {"dtype": blob.dtype, "shape": list(blob.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return durable_file.write(path, _pieces(text, blobs))


def _pieces(header: bytes, blobs: Iterable[Blob]) -> Iterator[memoryview]:
    yield memoryview(len(header).to_bytes(8, "little") + header)
    for blob in blobs:
        blob.wait()
        yield blob.data
