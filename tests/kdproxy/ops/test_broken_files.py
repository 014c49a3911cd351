"""Files that are cut off, of another format, or beside what a reader of JSON takes: all of it is told."""

import bz2
import gzip
import lzma
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdproxy.core import record
from kdproxy.core.models import Form
from kdproxy.ops.warm import source
from kdproxy.ops.warm.warm import WarmArguments

zstd = pytest.importorskip("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")

PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": lambda text: b"".join(bz2.compress(text[at : at + 2_000]) for at in range(0, len(text), 2_000)),
    "xz": lzma.compress,
    "zst": zstd.compress,
}
ROWS = [b'{"prompt":"%d","response":"%d","model":"m"}\n' % (n, n * 7919 % 100_003) for n in range(500)]


def warmed(shelf: Any, *files: Any, **arguments: Any) -> Any:
    return shelf.run(WarmArguments(files=tuple(map(str, files)), **arguments))


@pytest.mark.parametrize("packing", PACKINGS)
def test_each_packing_is_read(packing: str, shelf: Any, tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(PACKINGS[packing](b"".join(ROWS)))
    assert warmed(shelf, tmp_path / "rows").result["prompts"] == 500


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_cut_file_says_how_much_of_it_was_read(packing: str, shelf: Any, tmp_path: Path) -> None:
    packed = PACKINGS[packing](b"".join(ROWS))
    cut = packed[: len(packed) * 2 // 3]
    (tmp_path / "rows").write_bytes(cut)
    outcome = warmed(shelf, tmp_path / "rows")
    read = outcome.result["prompts"]
    assert outcome.result["broken"] == 1
    assert read < 500
    (finding,) = outcome.findings
    assert "cut off" in finding["reason"]
    assert f"; {read:,} lines were read ({len(cut):,} of {len(cut):,} bytes)" in finding["reason"]
    if packing != "zst":  # its one block of rows comes whole or not at all
        assert read > 0


def test_a_plain_file_that_ends_within_a_line_is_cut(shelf: Any, write: Callable[..., str]) -> None:
    outcome = warmed(shelf, write("cut", *ROWS[:7], ROWS[7][:-20]))
    assert (outcome.result["prompts"], outcome.result["broken"], outcome.result["bad"]) == (7, 1, 1)
    assert "7 lines were read" in outcome.findings[0]["reason"]
    # whole, but without a line break: nothing is missing
    outcome = warmed(shelf, write("whole", *ROWS[:7], ROWS[7].rstrip()))
    assert (outcome.result["prompts"], outcome.result["broken"]) == (1, 0)


def test_a_journal_that_ends_within_a_line_is_cut(shelf: Any, write: Callable[..., str], entry: Any) -> None:
    line = record.encode(entry("a"))
    outcome = warmed(shelf, write("journal", line, record.encode(entry("b"))[:-30]))
    assert (outcome.result["answers"], outcome.result["broken"]) == (1, 1)


@pytest.mark.parametrize(
    ("head", "word"),
    [
        ("{}".encode("utf-16"), "UTF-16"),
        ("{}".encode("utf-16-be"), "UTF-16"),
        ("{}".encode("utf-16-le"), "UTF-16"),
        (gzip.compress("{}".encode("utf-16")), "UTF-16"),
        (b"PAR1\x15\x04", "Parquet"),
        (b"ARROW1\x00\x00", "Arrow"),
        (b"PK\x03\x04\x14", "zip"),
    ],
)
def test_another_format_is_named(head: bytes, word: str, shelf: Any, tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(head + b"\x00" * 20)
    outcome = warmed(shelf, tmp_path / "rows")
    assert outcome.result["broken"] == 1
    assert word in outcome.findings[0]["reason"]


def test_files_put_together_bring_their_byte_order_marks(shelf: Any, write: Callable[..., str]) -> None:
    mark = b"\xef\xbb\xbf"
    assert warmed(shelf, write("rows", mark + ROWS[0], mark + ROWS[1])).result["prompts"] == 2


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity"])
def test_what_is_no_number_beside_the_texts(number: bytes, shelf: Any, write: Callable[..., str]) -> None:
    row = b'{"prompt":"q","response":"a","model":"m","score":%b,"scores":[1.5,%b],"label":null}\n' % (number, number)
    assert warmed(shelf, write("rows", row)).result["prompts"] == 1
    assert shelf.prompt("q", model="m") == "a"
    array = b"[" + row.replace(b'"q"', b'"in an array"') + b"]"
    assert warmed(shelf, write("array", array)).result["prompts"] == 1


def test_lines_are_as_long_as_the_proxy_writes_them(
    shelf: Any, write: Callable[..., str], entry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "MAX_LINE_BYTES", 1 << 20)
    body = b'{"choices":[{"message":{"content":"%b"},"finish_reason":"stop"}]}' % (b"x" * (3 << 20))
    row = b'{"prompt":"%b","response":"a","model":"m"}\n' % (b"y" * (3 << 20))
    outcome = warmed(shelf, write("rows", record.encode(entry("long", body)), row))
    assert (outcome.result["answers"], outcome.result["bad"]) == (1, 1)
    assert shelf.answer("long", Form.JSON) == body
    assert "longer than 1 MiB" in outcome.findings[0]["reason"] or "longer than" in outcome.findings[0]["reason"]


def test_strict_stops_at_a_cut_file(shelf: Any, write: Callable[..., str]) -> None:
    outcome = warmed(shelf, write("cut", ROWS[0], ROWS[1][:-5]), write("good", ROWS[2]), strict=True)
    assert outcome.result["is_stopped"]
    assert outcome.result["prompts"] == 1
