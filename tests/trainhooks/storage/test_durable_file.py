"""A file is hashed, synced and read back while it is written, and what comes back otherwise is not kept."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from trainhooks.errors import CheckpointInvalid
from trainhooks.storage import atomic, durable_file

CHUNK, SPAN = 64 << 10, 256 << 10


@pytest.fixture
def small_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable_file, "CHUNK_BYTES", CHUNK)
    monkeypatch.setattr(durable_file, "_SPAN_BYTES", SPAN)


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1, 4 * SPAN, 7 * SPAN + 12345])
@pytest.mark.usefixtures("small_spans")
def test_the_hash_is_the_file_s(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    record = durable_file.write(tmp_path / "x", [memoryview(data[: size // 3]), memoryview(data[size // 3 :])])
    assert (tmp_path / "x").read_bytes() == data
    assert record.sha256 == hashlib.sha256(data).hexdigest()
    assert record.size_bytes == size
    assert durable_file.digest(tmp_path / "x") == record


@pytest.mark.parametrize("size", [1, 7, 8, 9, 4099])
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_one_differing_byte_is_seen_wherever_it_is(size: int, kind: type) -> None:
    data = os.urandom(size)
    written = memoryview(kind(b"x" + data))[1:]
    assert durable_file.are_equal(memoryview(bytearray(data)), written)
    for at in {0, size // 2, size - 1}:
        other = bytearray(data)
        other[at] ^= 1
        assert not durable_file.are_equal(memoryview(other), written)


@pytest.mark.parametrize("at", [0, SPAN, 5 * SPAN + 9_999, 8 * SPAN - 1])
@pytest.mark.usefixtures("small_spans")
def test_a_byte_that_comes_back_otherwise_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """The disk keeps another byte than it was given, in a span that is synced on the way or at the end."""
    path, real, written = tmp_path / "x", durable_file.write_whole, 0

    def write(descriptor: int, chunk: list[memoryview]) -> int:
        nonlocal written
        pieces = b"".join(chunk)
        if written <= at < written + len(pieces):
            pieces = pieces[: at - written] + bytes([pieces[at - written] ^ 1]) + pieces[at - written + 1 :]
        written += len(pieces)
        return real(descriptor, [memoryview(pieces)])

    monkeypatch.setattr(durable_file, "write_whole", write)
    with pytest.raises(CheckpointInvalid, match="does not match what was written"):
        durable_file.write(path, [memoryview(os.urandom(8 * SPAN))])


@pytest.mark.usefixtures("small_spans")
def test_every_byte_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read back is compared with what is in memory: hashing takes longer than reading."""
    hashed, real = 0, hashlib.sha256

    class Counted:
        def __init__(self) -> None:
            self._digest = real()
            self.hexdigest = self._digest.hexdigest

        def update(self, data: memoryview) -> None:
            nonlocal hashed
            hashed += data.nbytes
            self._digest.update(data)

    monkeypatch.setattr(hashlib, "sha256", Counted)
    for size in (5, 5 * SPAN + 3):
        hashed = 0
        durable_file.write(tmp_path / str(size), [memoryview(os.urandom(size))])
        assert hashed == size


@pytest.mark.usefixtures("small_spans")
def test_what_is_cut_off_meanwhile_is_found(tmp_path: Path) -> None:
    data = memoryview(os.urandom(6 * SPAN))

    def pieces() -> Iterator[memoryview]:
        yield data
        os.truncate(tmp_path / "x", SPAN)

    with pytest.raises(CheckpointInvalid):
        durable_file.write(tmp_path / "x", pieces())


@pytest.mark.usefixtures("small_spans")
def test_large_files_are_synced_in_spans_and_small_ones_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: Counter[str] = Counter()

    def counted(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*given: Any) -> Any:
            counts[name] += 1
            return real(*given)

        return call

    for name in ("writev", "write", "fsync", "fdatasync"):
        monkeypatch.setattr(os, name, counted(name))
    durable_file.write(tmp_path / "small", [memoryview(b"x"), memoryview(b"y")])
    assert counts == {"writev": 1, "fsync": 1}
    counts.clear()
    durable_file.write(tmp_path / "large", [memoryview(bytes(4 * SPAN))])
    assert counts == {"writev": 4 * SPAN // CHUNK, "fdatasync": 4, "fsync": 1}


@pytest.mark.usefixtures("small_spans")
def test_where_only_a_whole_sync_is_offered_it_is_read_back_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "sync_data", lambda descriptor: False)
    data = os.urandom(5 * SPAN)
    assert durable_file.write(tmp_path / "x", [memoryview(data)]).sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.usefixtures("small_spans")
def test_what_the_disk_refuses_on_the_way_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        durable_file.write(tmp_path / "x", [memoryview(bytes(5 * SPAN))])
