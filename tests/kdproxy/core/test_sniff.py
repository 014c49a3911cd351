"""What a body is by its first bytes, however few of them have come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdproxy.core.sniff import Kind, is_html, sniff


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"choices":[]}', Kind.JSON),
        (b'[{"candidates":[]}]', Kind.JSON),
        (b'\xef\xbb\xbf{"a":1}', Kind.JSON),
        (b'\n \r\n\t{"a":1}', Kind.JSON),
        (b"data: {}\n\n", Kind.EVENTS),
        (b"data:{}\n\n", Kind.EVENTS),
        (b"\xef\xbb\xbfdata: {}\n\n", Kind.EVENTS),
        (b"\n\nevent: ping\n\n", Kind.EVENTS),
        (b": comment\n\n", Kind.EVENTS),
        (b"id: 1\n", Kind.EVENTS),
        (b"retry: 5\n", Kind.EVENTS),
        (b"<!DOCTYPE html><html>", Kind.HTML),
        (b"\r\n<html>\n<head><title>502 Bad Gateway</title></head>", Kind.HTML),
        (b"<!-- cloudflare -->", Kind.HTML),
        (b"<silence> Hello", Kind.OTHER),
        (b"database is locked", Kind.OTHER),
        (b"identity", Kind.OTHER),
        (b"Internal Server Error", Kind.OTHER),
        (b"ID3\x04\x00", Kind.OTHER),
        (b"\xff\xfb\x90\x00", Kind.OTHER),
        (b"", Kind.EMPTY),
        (b" \r\n\n", Kind.EMPTY),
        (b"\xef\xbb\xbf", Kind.EMPTY),
    ],
)
def test_each_kind_and_no_beginning_of_it_is_taken_for_another(body: bytes, kind: Kind) -> None:
    assert sniff(body, is_whole=True) is kind
    assert all(sniff(body[:length]) in (kind, None) for length in range(len(body)))
    assert is_html(body) == (kind is Kind.HTML)


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_what_is_decided_stays_so(start: bytes, rest: bytes) -> None:
    decided = sniff(start)
    assert decided is None or sniff(start + rest) is decided
    assert sniff(start, is_whole=True) is not None
