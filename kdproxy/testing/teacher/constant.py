"""Chat answers prepared once, for benchmarks: about 1.5 KB, the same for every question."""

import re
import time

from aiohttp import web

from kdproxy.testing.teacher.answer import SSE_TYPE, Streamed, Whole
from kdproxy.testing.teacher.call import Outcome, TeacherCall
from kdproxy.testing.teacher.openai.chat import answer_chat
from kdproxy.testing.teacher.stamp import Stamp
from kdproxy.testing.teacher.step import Answer, Step

_BODY = {"model": "teacher-constant", "messages": [{"role": "user", "content": "constant"}]}
_STREAM_FLAG = re.compile(rb'"stream"\s*:\s*true')


class ConstantChat:
    """Holds the two forms of one answer: JSON with a text of about 800 bytes, SSE with ten deltas."""

    def __init__(self) -> None:
        created = int(time.time())
        long = Stamp(serial="0", digest="00000000", created=created, words=116)
        short = Stamp(serial="0", digest="00000000", created=created, words=6)
        whole, streamed = answer_chat(_BODY, long), answer_chat({**_BODY, "stream": True}, short)
        assert isinstance(whole, Whole)
        assert isinstance(streamed, Streamed)
        self._json = whole.body
        self._events = streamed.events

    def takes(self, call: TeacherCall, step: Step) -> bool:
        return isinstance(step, Answer) and call.is_question and call.path.endswith("/chat/completions")

    async def send(self, request: web.BaseRequest, call: TeacherCall) -> tuple[web.StreamResponse, Outcome]:
        # A search, not a parser: the question is not read in this mode.
        if _STREAM_FLAG.search(call.body) is None:
            return web.Response(body=self._json, content_type="application/json"), Outcome.ANSWERED
        response = web.StreamResponse(headers={"Content-Type": SSE_TYPE})
        response.enable_chunked_encoding()
        await response.prepare(request)
        for event in self._events:
            await response.write(event)
        await response.write_eof()
        return response, Outcome.ANSWERED
