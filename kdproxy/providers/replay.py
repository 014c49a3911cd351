"""Adapts a stored recording to a request that asks for a little less."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from kdproxy.core import sse
from kdproxy.core.models import Answer, Form, Question
from kdproxy.providers.base import json_object

_NULL_USAGE = re.compile(rb',\s*"usage"\s*:\s*null|"usage"\s*:\s*null\s*,\s*')
"""Quotes inside JSON strings are escaped, so this can only be a member."""


def fitted(answer: Answer, question: Question) -> bytes:
    """Return the recording as the question asks for it.

    Equal `stream_options` get the bytes unchanged. A stream recorded with `include_usage` but requested without it
    loses its usage chunk and its `usage: null` members; missing usage is never invented.
    """
    if answer.form is not Form.SSE or not _has_too_much(answer.stream_options, question):
        return answer.body
    return b"".join(_without_usage(piece) for piece in sse.pieces(answer.body))


def has_enough(answer: Answer, question: Question) -> bool:
    """Whether a recording has everything that a question asks for: usage is neither invented nor silently omitted.

    JSON in place of a stream counts as a stream: it is not known whether its server honours the option.
    """
    is_stream = Form.SSE in (answer.form, answer.asked_form)
    if not is_stream or not question.wants_stream_usage:
        return True
    return bool(answer.stream_options and answer.stream_options.get("include_usage"))


async def fitted_live(
    chunks: AsyncIterator[bytes], options: Mapping[str, Any] | None, question: Question
) -> AsyncIterator[bytes]:
    """Yield a stream in progress, requested with some `stream_options`, as the question asks for it."""
    is_cut_down = _has_too_much(options, question)
    splitter = sse.Splitter()
    async with aclosing(chunks) as source:  # type: ignore[type-var]  # every stream here is a generator
        async for chunk in source:
            fit = b"".join(map(_without_usage, splitter.feed(chunk))) if is_cut_down else chunk
            if fit:
                yield fit
    rest = splitter.rest()
    if rest:
        yield rest


def _has_too_much(options: Mapping[str, Any] | None, question: Question) -> bool:
    return bool(options and options.get("include_usage")) and not question.wants_stream_usage


def _without_usage(piece: sse.Piece) -> bytes:
    members = json_object(piece.data) if b'"usage"' in piece.data else None
    if members is None or "usage" not in members:
        return piece.raw
    if members["usage"] is None:
        return _NULL_USAGE.sub(b"", piece.raw)
    return piece.raw if members.get("choices") else b""
