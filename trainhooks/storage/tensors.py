"""Write one safetensors file straight from memory, hashed on the way. The safetensors library reads it.

The format is 8 bytes of header length, a JSON header, and the tensors' bytes (README of huggingface/safetensors,
section Format, read 2026-11). Its own writer wants every tensor as a `bytes` copy and keeps no hash; gigabytes are
written here without a copy.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trainhooks.core.manifest import FileRecord
from trainhooks.storage import atomic

SUFFIX = ".safetensors"
_CHUNK_BYTES = 16 << 20
_ALIGNMENT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """One tensor's bytes, contiguous, little-endian, row-major."""

    name: str
    dtype: str
    """As safetensors spells it: F32, BF16, I64, ..."""
    shape: tuple[int, ...]
    data: memoryview


def write(path: Path, blobs: Iterable[Blob]) -> FileRecord:
    """Write and sync a new file; returns its size and SHA-256."""
    blobs = list(blobs)
    header: dict[str, object] = {}
    end = 0
    for blob in blobs:
        begin, end = end, end + blob.data.nbytes
        header[blob.name] = {"dtype": blob.dtype, "shape": list(blob.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    pieces = [memoryview(len(text).to_bytes(8, "little") + text), *(blob.data for blob in blobs)]
    return write_pieces(path, pieces)


def write_pieces(path: Path, pieces: Iterable[memoryview]) -> FileRecord:
    """Write bytes to a new file, sync it, and return its size and SHA-256."""
    digest = hashlib.sha256()
    size = 0
    with path.open("xb", buffering=0) as file:
        for piece in pieces:
            for start in range(0, piece.nbytes, _CHUNK_BYTES):
                chunk = piece[start : start + _CHUNK_BYTES]
                digest.update(chunk)
                size += _write_whole(file.fileno(), chunk)
        atomic.sync_file(file.fileno())
    return FileRecord(size_bytes=size, sha256=digest.hexdigest())


def _write_whole(descriptor: int, chunk: memoryview) -> int:
    written = 0
    while written < chunk.nbytes:
        written += os.write(descriptor, chunk[written:])
    return written


def digest(path: Path) -> FileRecord:
    """Read a file and return its size and SHA-256."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb", buffering=0) as file:
        buffer = bytearray(_CHUNK_BYTES)
        view = memoryview(buffer)
        while count := file.readinto(view):
            digest.update(view[:count])
            size += count
    return FileRecord(size_bytes=size, sha256=digest.hexdigest())
