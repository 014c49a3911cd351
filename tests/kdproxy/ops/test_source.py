"""Files of every packing are read line by line, and none can fill the memory."""

import gzip
import sys
import tracemalloc
import zlib
from pathlib import Path

import pytest

from kdproxy.errors import KdproxyError
from kdproxy.ops.warm import source
from kdproxy.ops.warm.source import Source, SourceBroken, SourceLine

zstd = pytest.importorskip("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")

PACKINGS = {"plain": bytes, "gzip": gzip.compress, "zstd": zstd.compress}


def lines(path: Path) -> list[SourceLine]:
    return list(Source(path).lines())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rows"


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", []),
        (b"\n\n", []),
        (b"a\nb\n", [(1, b"a"), (2, b"b")]),
        (b"a\nb", [(1, b"a"), (2, b"b")]),
        (b"\xef\xbb\xbfa\r\n \r\n\tb \r\n", [(1, b"a"), (3, b"b")]),
    ],
)
def test_lines_come_numbered_and_bare(packing: str, text: bytes, expected: list[tuple[int, bytes]], file: Path) -> None:
    file.write_bytes(PACKINGS[packing](text))
    assert [(line.number, line.text) for line in lines(file)] == expected


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_members_one_after_the_other_are_one_file(packing: str, file: Path) -> None:
    pack = PACKINGS[packing]
    file.write_bytes(pack(b"a\nb") + pack(b"c\nd\n") + pack(b""))
    assert [line.text for line in lines(file)] == [b"a", b"bc", b"d"]


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_line_across_chunks_stays_whole(packing: str, file: Path) -> None:
    long = b"".join(b"%08d" % number for number in range(500_000))
    file.write_bytes(PACKINGS[packing](b"a\n" + long + b"\nb\n"))
    assert [line.text for line in lines(file)] == [b"a", long, b"b"]


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_a_bomb_is_left_in_time(packing: str, file: Path) -> None:
    if packing == "gzip":
        packer = zlib.compressobj(9, wbits=31)
        zeros = b"".join(packer.compress(b" " * (1 << 20)) for _ in range(200)) + packer.flush()
    else:
        zeros = zstd.compress(b" " * (200 << 20))
    file.write_bytes(zeros)
    tracemalloc.start()
    try:
        with pytest.raises(SourceBroken, match="100 times"):
            lines(file)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_a_line_that_is_too_long_is_skipped_without_being_held(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAX_LINE_BYTES", 3 << 20)
    file.write_bytes(b"a\n" + b"x" * (20 << 20) + b"\nb\n" + b"y" * (5 << 20))
    tracemalloc.start()
    try:
        found = [(line.number, line.text) for line in Source(file).lines()]
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()
    assert found == [(1, b"a"), (2, None), (3, b"b"), (4, None)]


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_a_file_that_is_cut_off_gives_what_is_whole_and_says_so(packing: str, file: Path) -> None:
    text = b"".join(b'{"row":%d}\n' % (number * 7919 % 100_003) for number in range(400_000))
    file.write_bytes(PACKINGS[packing](text)[:-20])
    found: list[SourceLine] = []
    with pytest.raises(SourceBroken, match="cut off"):
        found.extend(Source(file).lines())
    assert len(found) > 100_000


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_a_damaged_file_says_so(packing: str, file: Path) -> None:
    packed = bytearray(PACKINGS[packing](b"".join(b"%d\n" % (n * n) for n in range(5_000))))
    packed[len(packed) // 2] ^= 0xFF
    packed[len(packed) // 2 + 1] ^= 0xFF
    file.write_bytes(packed)
    with pytest.raises(SourceBroken, match=r"damaged|cut off"):
        lines(file)


def test_utf16_is_named(file: Path) -> None:
    file.write_bytes("{}".encode("utf-16"))
    with pytest.raises(SourceBroken, match="UTF-16"):
        lines(file)


def test_a_missing_file_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(KdproxyError, match="cannot be read"):
        source.size_of(tmp_path / "none")


def test_a_missing_zstandard_is_an_error_with_a_hint(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ImportError(name)

    file.write_bytes(zstd.compress(b"a\n"))
    monkeypatch.setattr(source.importlib, "import_module", refuse)
    with pytest.raises(KdproxyError, match=r"backports.zstd"):
        lines(file)
