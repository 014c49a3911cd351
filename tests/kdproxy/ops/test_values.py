"""Values that are not one a line come out as they went in, wherever the pieces are cut, and one at a time."""

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdproxy.ops.warm import source
from kdproxy.ops.warm.source import Source, SourceBroken
from kdproxy.ops.warm.values import BadShape, Splitter, is_spread

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.sampled_from('ab"\\[]{},:\n\té'), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.text(st.sampled_from('ab"\\{}'), min_size=1, max_size=3), VALUES, min_size=1, max_size=3)


def split(text: bytes, piece: int) -> list[tuple[int, Any]]:
    splitter = Splitter(1 << 20)
    found = [
        (number, json.loads(value or b"0"))
        for start in range(0, len(text), piece)
        for number, value in splitter.feed(text[start : start + piece])
    ]
    splitter.finish()
    return found


@given(st.lists(OBJECTS, min_size=1, max_size=4), st.integers(1, 40), st.sampled_from([None, 0, 2]))
def test_an_array_gives_its_members(rows: list[Any], piece: int, indent: int | None) -> None:
    text = json.dumps(rows, indent=indent, ensure_ascii=False).encode()
    assert is_spread(text)
    assert [value for _, value in split(text, piece)] == rows


@given(st.lists(OBJECTS, min_size=1, max_size=4), st.integers(1, 40))
def test_objects_over_many_lines_come_one_by_one(rows: list[Any], piece: int) -> None:
    text = "\n".join(json.dumps(row, indent=2) for row in rows).encode() + b"\n"
    assert is_spread(text)
    assert [value for _, value in split(text, piece)] == rows


def test_each_has_the_line_that_it_begins_in() -> None:
    text = b'\n [\n  {"a":\n 1},\n\n  {"b": "x,]"} ,{"c": []}\n]\n'
    assert split(text, 7) == [(3, {"a": 1}), (6, {"b": "x,]"}), (6, {"c": []})]
    assert split(b"[]", 1) == []
    assert split(b'[1, [2], "x"]', 3) == [(1, 1), (1, [2]), (1, "x")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'[{"a": 1}', "the array has no end"),
        (b'[{"a": "', "the array has no end"),
        (b'{\n"a": 1}\n{\n"a": ', "the last object has no end"),
        (b'[{"a": 1}]\n[{"a": 2}]', "follows the end of the array"),
    ],
)
def test_what_is_cut_or_continues_is_reported(text: bytes, reason: str) -> None:
    with pytest.raises(BadShape, match=reason):
        split(text, 4)


def test_lines_are_lines() -> None:
    assert not any(
        map(is_spread, (b'{"a": 1}\n', b'{"a":\n', b"", b"x", b'"[', b"[]\n{}", b"[[[", b'[{"a": 1}]\n[]\n'))
    )
    assert all(map(is_spread, (b'[{"a": 1}]\n', b"[\n", b"[", b'\n [ {"a": []\n}]', b'[{"a":', b"{\n", b"{ \r\n")))


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_file_that_is_an_array_is_read_like_any_other(tmp_path: Path, pack: Any) -> None:
    file = tmp_path / "rows.json"
    rows = [{"prompt": f"why {number}?", "response": "so\n" * 50} for number in range(3_000)]
    file.write_bytes(pack(b"\xef\xbb\xbf" + json.dumps(rows, indent=2).encode()))
    lines = list(Source(file).lines())
    assert [json.loads(line.text or b"") for line in lines] == rows
    assert [line.number for line in lines[:2]] == [2, 6]
    assert all(b"\n" not in (line.text or b"") for line in lines)
    file.write_bytes(pack(b'[{"a": 1}, {'))
    with pytest.raises(SourceBroken, match="no end"):
        list(Source(file).lines())


def test_memory_holds_one_value_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAX_LINE_BYTES", 1 << 20)
    file = tmp_path / "rows.json"
    with file.open("wb") as out:
        out.write(b"[\n")
        for _ in range(40):
            out.write(b'{"a": "' + b"x" * 600_000 + b'"},\n')
        out.write(b'{"a": "' + b"y" * 9_000_000 + b'"},\n{"b": 1}]')
    tracemalloc.start()
    try:
        found = [(line.number, line.text and len(line.text)) for line in Source(file).lines()]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found[-2:] == [(42, None), (43, 8)]
    assert len(found) == 42
    assert peak < 8 << 20
