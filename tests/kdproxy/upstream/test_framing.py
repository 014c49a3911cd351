"""Heads and bodies: what RFC 9112 leaves in no doubt is read, what leaves doubt is refused, however it arrives."""

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdproxy.upstream import framing
from kdproxy.upstream.framing import BadFraming, ChunkedBody, End, Head, parse_head, split_head

OK = b"HTTP/1.1 200 OK\r\n"


def read(
    data: bytes, *, method: str = "POST", cuts: tuple[int, ...] = (), eof: bool = False
) -> tuple[Head, bytes, bytes]:
    """Read a response that arrives in pieces; return its head, its body, and what came after it."""
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    buffer, head, body, extra = b"", None, b"", b""
    for start, stop in itertools.pairwise(edges):
        piece = data[start:stop]
        if head is None:
            buffer += piece
            found = split_head(buffer)
            if found is None:
                continue
            raw, piece = found
            head = parse_head(raw, method=method)
        if head.body.end is not End.OPEN:
            extra += piece
            continue
        got, more = head.body.feed(piece)
        body += got
        extra += more
    assert head is not None
    if eof and head.body.end is End.OPEN:
        head.body.feed_eof()
    return head, body, extra


TAKEN: dict[str, tuple[bytes, bytes, End, bool]] = {
    "a length": (OK + b"Content-Length: 2\r\n\r\nok", b"ok", End.WHOLE, True),
    "a length twice and equal": (OK + b"Content-Length: 2\r\ncontent-length: 2\r\n\r\nok", b"ok", End.WHOLE, False),
    "a length twice in one line": (OK + b"Content-Length: 2, 2\r\n\r\nok", b"ok", End.WHOLE, False),
    "a length beside chunked": (
        OK + b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"ok",
        End.WHOLE,
        False,
    ),
    "two lengths beside chunked": (
        OK + b"Content-Length: 9\r\nContent-Length: 8\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"ok",
        End.WHOLE,
        False,
    ),
    "chunked twice": (
        OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"ok",
        End.WHOLE,
        False,
    ),
    "chunks with extensions, spaces, zeros and a trailer": (
        OK + b'Transfer-Encoding: chunked\r\n\r\n0001 ;a="b"\r\no\r\n1  \r\nk\r\n000\r\nX-T: 1\r\n\r\n',
        b"ok",
        End.WHOLE,
        True,
    ),
    "a line feed alone everywhere": (
        b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\nok\n0\n\n",
        b"ok",
        End.WHOLE,
        True,
    ),
    "a space before the colon": (OK + b"Content-Length : 2\r\nX-A\t: b\r\n\r\nok", b"ok", End.WHOLE, True),
    "an identity coding beside a length": (
        OK + b"Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok",
        b"ok",
        End.WHOLE,
        True,
    ),
    "a line break before the status": (b"\r\n" + OK + b"Content-Length: 2\r\n\r\nok", b"ok", End.WHOLE, True),
    "a folded line": (OK + b"X-A: b\r\n  c\r\nContent-Length: 2\r\n\r\nok", b"ok", End.WHOLE, True),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", b"ok", End.WHOLE, True),
    "HTTP/1.0 with a length": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok", End.WHOLE, False),
    "close beside a length": (OK + b"Connection: Close\r\nContent-Length: 2\r\n\r\nok", b"ok", End.WHOLE, False),
    "no length at all": (OK + b"\r\nok", b"ok", End.UNMARKED, False),
    "no last chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", b"ok", End.UNMARKED, True),
    "no line break after the only chunk": (
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok",
        b"ok",
        End.UNMARKED,
        True,
    ),
    "a last chunk without its empty line": (
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n",
        b"ok",
        End.WHOLE,
        True,
    ),
    "a header of 70 KB": (OK + b"X-A: " + b"x" * 70_000 + b"\r\nContent-Length: 2\r\n\r\nok", b"ok", End.WHOLE, True),
    "bytes that are not UTF-8": (OK + b"X-A: caf\xe9\r\nContent-Length: 2\r\n\r\nok", b"ok", End.WHOLE, True),
    "204 with a length": (b"HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n", b"", End.WHOLE, True),
    "nothing in chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"", End.WHOLE, True),
    "a cut length": (OK + b"Content-Length: 3\r\n\r\nok", b"ok", End.OPEN, True),
    "a cut chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nok", b"ok", End.OPEN, True),
    "a cut size": (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1", b"ok", End.OPEN, True),
    "no chunk at all": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"", End.OPEN, True),
}


@pytest.mark.parametrize(("data", "body", "end", "keeps_alive"), TAKEN.values(), ids=TAKEN)
def test_a_response_is_read(data: bytes, body: bytes, end: End, keeps_alive: bool) -> None:
    head, got, extra = read(data, eof=True)
    assert (got, extra, head.body.end, head.keeps_alive) == (body, b"", end, keeps_alive)


@given(st.sampled_from(list(TAKEN.values())), st.lists(st.integers(0, 1 << 17), max_size=8))
def test_it_is_read_alike_however_it_arrives(case: tuple[bytes, bytes, End, bool], cuts: list[int]) -> None:
    head, got, extra = read(case[0], cuts=tuple(cuts), eof=True)
    assert (got, extra, head.body.end, head.keeps_alive) == (case[1], b"", case[2], case[3])


@given(
    st.sampled_from([case for case in TAKEN.values() if case[2] is End.WHOLE and not case[0].endswith(b"\r\n0\r\n")]),
    st.binary(min_size=1),
    st.lists(st.integers(0, 1 << 17), max_size=8),
)
def test_what_follows_a_whole_response_is_never_its_own(
    case: tuple[bytes, bytes, End, bool], more: bytes, cuts: list[int]
) -> None:
    head, got, extra = read(case[0] + more, cuts=tuple(cuts))
    assert (got, extra, head.body.end) == (case[1], more, End.WHOLE)


REFUSED = {
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "a length that is no number": OK + b"Content-Length: +2\r\n\r\nok",
    "a length below zero": OK + b"Content-Length: -1\r\n\r\n",
    "a length in other digits": OK + "Content-Length: ٢\r\n\r\nok".encode(),
    "an empty length": OK + b"Content-Length:\r\n\r\nok",
    "an absurd length": OK + b"Content-Length: 99999999999999999999\r\n\r\nok",
    "another coding": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "a coding that is none": OK + b"Transfer-Encoding: xchunked\r\n\r\nok",
    "no size": OK + b"Transfer-Encoding: chunked\r\n\r\nok\r\n",
    "a size below zero": OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nok\r\n",
    "a size in 0x": OK + b"Transfer-Encoding: chunked\r\n\r\n0x2\r\nok\r\n",
    "an absurd size": OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 17 + b"\r\nok\r\n",
    "a chunk longer than its size": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n",
    "a size that does not end": OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"0" * 5_000,
    "a line without a colon": OK + b"nonsense\r\n\r\n",
    "a name with a space": OK + b"X A: b\r\n\r\n",
    "no name": OK + b": b\r\n\r\n",
    "a folded line that folds nothing": OK + b" x\r\n\r\n",
    "a NUL": OK + b"X-A: a\0b\r\n\r\n",
    "a CR alone": OK + b"X-A: a\rContent-Length: 2\r\n\r\nok",
    "HTTP/2": b"HTTP/2 200\r\n\r\n",
    "HTTP/0.9": b"<html>\n\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "a status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "a status that begins with 0": b"HTTP/1.1 000 OK\r\n\r\n",
    "headers without end": OK + b"X-A: " + b"x" * (1 << 21),
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_a_response_is_refused_where_its_end_is_in_doubt(data: bytes) -> None:
    with pytest.raises(BadFraming):
        read(data, eof=True)


@given(st.binary())
def test_nothing_else_is_raised_whatever_comes(data: bytes) -> None:
    for start in (b"", OK, OK + b"Transfer-Encoding: chunked\r\n\r\n", OK + b"Content-Length: 4\r\n\r\n"):
        try:
            found = split_head(start + data)
            if found is not None:
                head = parse_head(found[0], method="GET")
                head.body.feed(found[1]) if found[1] else None
                head.body.feed_eof()
        except BadFraming:
            pass


@given(st.lists(st.binary(min_size=1), max_size=5), st.binary())
def test_chunks_are_joined_and_the_rest_is_left(parts: list[bytes], rest: bytes) -> None:
    coded = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    body = ChunkedBody()
    assert body.feed(coded + rest) == (b"".join(parts), rest)
    assert body.end is End.WHOLE


_NAMES = st.sampled_from(["X", "Server", "x y", "", "X ", " X", "X\x0b", "é"])
_VALUES = st.text(st.sampled_from("aé:, \t\x0b\x0c\x1c\x85\xa0\u2028"), max_size=8)


@given(st.lists(st.tuples(_NAMES, st.sampled_from([":", ""]), _VALUES).map("".join).filter(bool), max_size=4))
def test_headers_are_read_alike_in_one_search_and_line_by_line(lines: list[str]) -> None:
    raw = "\n".join(["HTTP/1.1 200 OK", *lines]).encode()
    try:
        one_by_one = framing._read_lines(lines)
    except BadFraming as error:
        with pytest.raises(BadFraming, match=str(error)):
            parse_head(raw, method="POST")
    else:
        assert list(parse_head(raw, method="POST").headers.items()) == one_by_one


@pytest.mark.parametrize("value", [b" " * 30_000, b" a" * 15_000, b"a" + b" " * 30_000, b"a" * 30_000])
def test_a_long_header_is_read_in_a_moment(value: bytes) -> None:
    began = time.process_time()
    parse_head(OK + b"Content-Length: 0\r\nX:" + value + b"\x0b", method="POST")
    assert time.process_time() - began < 2, "the time grows with the square of the length"


def test_an_answer_to_head_has_a_length_and_no_body() -> None:
    head, body, extra = read(OK + b"Content-Length: 9\r\n\r\n", method="HEAD")
    assert (head.length, body, extra, head.body.end) == (9, b"", b"", End.WHOLE)
