"""Server-sent events: whole pieces, whatever the network did, and not a byte changed."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdproxy.core import sse
from kdproxy.core.sse import Piece, Splitter, piece, pieces

LINES = st.sampled_from(
    [
        b"data: x",
        b"data:x",
        b"data",
        b"data:  x",
        b"event: e",
        b"id: 1",
        b": comment",
        b":",
        b"",
        b"",
        b"retry: 5",
        b"x: y",
    ]
)
STREAMS = st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\r\n", b"\r"])), max_size=20).map(
    lambda lines: b"".join(line + end for line, end in lines)
) | st.text(st.sampled_from("\r\n:ad"), max_size=16).map(str.encode)


def fed(chunks: Iterable[bytes]) -> list[Piece]:
    """Feed a stream in chunks; what is left at the end is the last piece."""
    splitter = Splitter()
    found = [whole for chunk in chunks for whole in splitter.feed(chunk)]
    rest = splitter.rest()
    return [*found, piece(rest)] if rest else found


@given(STREAMS, st.data())
def test_pieces_do_not_depend_on_how_the_network_cut_the_stream(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    chunks = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert fed(chunks) == list(pieces(stream))
    assert fed(stream[i : i + 1] for i in range(len(stream))) == list(pieces(stream))


@given(STREAMS.map(lambda stream: stream.replace(b"\r", b"\n")))
def test_a_recording_with_line_feeds_alone_has_the_same_pieces(stream: bytes) -> None:
    assert list(pieces(stream)) == fed([stream])


@given(STREAMS)
def test_the_pieces_put_together_are_the_stream(stream: bytes) -> None:
    assert b"".join(found.raw for found in pieces(stream)) == stream


@given(STREAMS)
def test_each_piece_but_the_last_ends_at_its_only_event_end(stream: bytes) -> None:
    for found in list(pieces(stream))[:-1]:
        lines = _lines(found.raw)
        assert lines[-1] == b""
        assert all(lines[place] or not any(lines[:place]) for place in range(len(lines) - 1))


@given(STREAMS)
def test_a_recording_says_the_same_as_the_stream_without_its_comments(stream: bytes) -> None:
    recording = b"".join(found.recorded for found in pieces(stream))
    assert not any(line.startswith(b":") for line in _lines(recording))
    said = [(found.event, found.data) for found in pieces(stream) if found.data]
    assert [(found.event, found.data) for found in pieces(recording) if found.data] == said
    assert b"".join(found.recorded for found in pieces(recording)) == recording


def _lines(raw: bytes) -> list[bytes]:
    return raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").removesuffix(b"\n").split(b"\n")


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_events_with_each_line_end(end: bytes) -> None:
    stream = end.join([b"event: a", b"data: 1", b"data: 2", b"", b"data:3", b"", b""])
    first, second = pieces(stream)
    assert (first.event, first.data, first.recorded) == ("a", b"1\n2", first.raw)
    assert (second.event, second.data) == (None, b"3")


def test_an_event_is_reported_as_soon_as_it_is_whole() -> None:
    splitter = Splitter()
    assert [found.data for found in splitter.feed(b"data: 1\n\ndata: 2\n")] == [b"1"]
    assert splitter.pending_bytes == len(b"data: 2\n")
    assert [found.data for found in splitter.feed(b"\n")] == [b"2"]
    assert splitter.pending_bytes == 0


def test_a_carriage_return_at_the_end_may_be_half_a_line_break() -> None:
    splitter = Splitter()
    assert list(splitter.feed(b"data: 1\r\n\r")) == []
    assert [found.raw for found in splitter.feed(b"\ndata: 2\r\r")] == [b"data: 1\r\n\r\n"]
    assert [found.raw for found in splitter.feed(b"data: 3")] == [b"data: 2\r\r"]
    assert splitter.rest() == b"data: 3"
    assert splitter.rest() == b""


def test_comments_pass_and_are_not_recorded() -> None:
    stream = b": keep-alive\n\ndata: 1\n: in between\n\n\n\ndata: 2\n\n"
    found = list(pieces(stream))
    assert b"".join(piece.raw for piece in found) == stream
    assert b"".join(piece.recorded for piece in found) == b"data: 1\n\ndata: 2\n\n"
    assert [piece.data for piece in found if piece.data] == [b"1", b"2"]


def test_blank_lines_between_events_are_keep_alive() -> None:
    for blank in (b"\n", b"\r\n", b"\n\n\n"):
        found = list(pieces(b"data: 1\n\n" + blank + b"data: 2\n\n"))
        assert b"".join(piece.recorded for piece in found) == b"data: 1\n\ndata: 2\n\n"


def test_an_unterminated_end_is_a_piece_of_its_own() -> None:
    found = list(pieces(b"data: 1\n\ndata: [DONE]"))
    assert [piece.data for piece in found] == [b"1", b"[DONE]"]
    assert found[-1].raw == b"data: [DONE]"


@pytest.mark.parametrize(
    ("raw", "event", "data"),
    [
        (b"data\n\n", None, b""),
        (b"data:\n\n", None, b""),
        (b"data:  two\n\n", None, b" two"),
        (b"data: a:b\n\n", None, b"a:b"),
        (b"DATA: 1\n\n", None, b""),
        (b"id: 1\nretry: 2\n\n", None, b""),
        (b"event: a\nevent: b\ndata: 1\n\n", "b", b"1"),
        (b"data: \xff\nevent: \xff\n\n", "\ufffd", b"\xff"),
        (b"data: 1\ndata\ndata: 2\n\n", None, b"1\n\n2"),
    ],
)
def test_fields(raw: bytes, event: str | None, data: bytes) -> None:
    found = piece(raw)
    assert (found.event, found.data) == (event, data)


class CountingPattern:
    """Counts the bytes that the search for an event's end may look at."""

    def __init__(self) -> None:
        self.bytes = 0
        self._pattern = sse._EVENT_END

    def search(self, buffer: bytearray, position: int) -> object:
        self.bytes += len(buffer) - position
        return self._pattern.search(buffer, position)


def test_a_huge_event_in_small_chunks_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counting = CountingPattern()
    monkeypatch.setattr(sse, "_EVENT_END", counting)
    event = b"data: " + b"x" * (1 << 20) + b"\n\n"
    assert len(fed(event[i : i + 1024] for i in range(0, len(event), 1024))) == 1
    assert counting.bytes < 1.1 * len(event)
