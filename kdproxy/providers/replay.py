"""What a stored recording becomes for a request that asked for a little less."""

import re

from kdproxy.core import sse
from kdproxy.core.models import Answer, Form, Question
from kdproxy.providers.base import json_object

_NULL_USAGE = re.compile(rb',\s*"usage"\s*:\s*null|"usage"\s*:\s*null\s*,\s*')
"""Quotes inside strings are escaped in JSON, so this can only be a member."""


def fitted(answer: Answer, question: Question) -> bytes:
    """Return the recording as the question wants it.

    Equal `stream_options` get the bytes as they are. A stream recorded with `include_usage` and asked for without
    loses its usage chunk and its `usage: null` members; the reverse is never invented.
    """
    if answer.form is not Form.SSE or not answer.stream_options:
        return answer.body
    if question.wants_stream_usage or not answer.stream_options.get("include_usage"):
        return answer.body
    return b"".join(_without_usage(piece) for piece in sse.pieces(answer.body))


def _without_usage(piece: sse.Piece) -> bytes:
    members = json_object(piece.data) if b'"usage"' in piece.data else None
    if members is None or "usage" not in members:
        return piece.raw
    if members["usage"] is None:
        return _NULL_USAGE.sub(b"", piece.raw)
    return piece.raw if members.get("choices") else b""
