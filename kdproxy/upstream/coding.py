"""Content codings (RFC 9110 section 8.4.1): decodes gzip and deflate as they arrive. Sync."""

import zlib
from collections.abc import Iterator

DECODED = frozenset({"gzip", "x-gzip", "deflate"})
"""Bodies in other codings are forwarded unchanged, with their header."""

_PIECE_BYTES = 1 << 20
_ANY_HEADER = 32 + zlib.MAX_WBITS
"""Tells zlib to accept a gzip or a zlib header."""


class Decoder:
    """Decodes one coding piece by piece, so that a small body that expands to a huge one does not fill memory."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(_ANY_HEADER)
        self._has_begun = False

    @property
    def is_whole(self) -> bool:
        """Whether the coded data is complete."""
        return self._inflate.eof or not self._has_begun

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Take coded bytes, yield decoded ones. Raises zlib.error if they are not valid."""
        while chunk:
            if self._inflate.eof:
                # Members may follow one another (RFC 1952 section 2.2).
                self._inflate = zlib.decompressobj(_ANY_HEADER)
            self._has_begun = True
            decoded = self._inflate.decompress(chunk, _PIECE_BYTES)
            if decoded:
                yield decoded
            chunk = self._inflate.unconsumed_tail or self._inflate.unused_data
