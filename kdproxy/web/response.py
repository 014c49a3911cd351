"""Replies that carry what the upstream sent and nothing else: aiohttp adds its name and a guessed content type."""

from aiohttp import hdrs, web


class _Bare(web.StreamResponse):
    async def _prepare_headers(self) -> None:
        headers = self.headers
        has_type, has_server = hdrs.CONTENT_TYPE in headers, hdrs.SERVER in headers
        await super()._prepare_headers()
        if not has_type:
            headers.popall(hdrs.CONTENT_TYPE, None)
        if not has_server:
            headers.popall(hdrs.SERVER, None)


class StreamReply(_Bare):
    """A reply whose body comes in pieces."""


class WholeReply(_Bare, web.Response):
    """A reply whose body is there."""
