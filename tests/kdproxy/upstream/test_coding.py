"""Codings undone piece by piece."""

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdproxy.upstream.coding import Decoder


def decoded(*chunks: bytes) -> tuple[bytes, bool]:
    decoder = Decoder()
    return b"".join(piece for chunk in chunks for piece in decoder.feed(chunk)), decoder.is_whole


@given(st.binary(max_size=300), st.integers(0, 400), st.sampled_from([gzip.compress, zlib.compress]))
def test_any_cut_gives_the_same(data: bytes, place: int, compress: object) -> None:
    coded = compress(data)  # type: ignore[operator]
    assert decoded(coded[:place], coded[place:]) == (data, True)


def test_members_may_follow_one_another() -> None:
    assert decoded(gzip.compress(b"one") + gzip.compress(b"two")) == (b"onetwo", True)


def test_each_flushed_piece_comes_at_once() -> None:
    press, decoder = zlib.compressobj(wbits=31), Decoder()
    for word in (b"one", b"two"):
        assert b"".join(decoder.feed(press.compress(word) + press.flush(zlib.Z_SYNC_FLUSH))) == word
    assert not decoder.is_whole


def test_a_cut_is_seen() -> None:
    assert decoded(gzip.compress(b"something")[:-1])[1] is False
    assert decoded() == (b"", True)


def test_damage_is_an_error() -> None:
    with pytest.raises(zlib.error):
        decoded(b"this is not gzip")


def test_a_bomb_comes_in_bounded_pieces() -> None:
    bomb = gzip.compress(bytes(64 << 20))
    assert len(bomb) < 100_000
    decoder = Decoder()
    sizes = [len(piece) for piece in decoder.feed(bomb)]
    assert (sum(sizes), max(sizes)) == (64 << 20, 1 << 20)
