"""Judges whole bodies before a byte of them is out, and says which ones are failed calls that may have been billed.

Of a question it is known what was asked, so whatever is not whole failed: but for what a setting of the upstream would
accept, what is empty, and what its upstream sends to one question after another (that is its habit, and the next call
brings the same). Of a call that is no question only the answer's own words count.
"""

import asyncio
from collections.abc import Callable

from kdproxy.core import sse
from kdproxy.core.models import Upstream
from kdproxy.engine.offload import INLINE_BYTES
from kdproxy.providers.base import Broken, Complete, Criteria, End, Endpoint, Judge, Judgement


class Validator:
    """For the attempts at one answer."""

    def __init__(self, judge: Judge, criteria: Criteria, fails: Callable[[Broken], bool]) -> None:
        self._judge = judge
        self.criteria = criteria
        """What the answer must have."""
        self._fails = fails
        self.failure: Broken | None = None
        """What was wrong with the last body, if it was a failed call."""

    async def check(self, body: bytes) -> Judgement:
        """Judge a body."""
        judge, criteria = self._judge, self.criteria
        if len(body) <= INLINE_BYTES:
            judgement = judge(body, criteria)
        else:
            judgement = await asyncio.to_thread(judge, body, criteria)
        self.failure = self.failed(judgement)
        return judgement

    def failed(self, judgement: Judgement) -> Broken | None:
        """Return what is wrong with an answer, if its call failed."""
        return None if isinstance(judgement, Complete) or not self._fails(judgement) else judgement


class StreamWatch:
    """Reads along with a stream that is not kept."""

    def __init__(self, endpoint: Endpoint, upstream: Upstream) -> None:
        self._judge = endpoint.judge_stream(_unkept_criteria(upstream))
        self._splitter = sse.Splitter()

    def feed(self, chunk: bytes) -> None:
        """Take a chunk."""
        for piece in self._splitter.feed(chunk):
            self._judge.take(piece)

    def finish(self) -> Broken | None:
        """Return what is wrong with it, if it says itself that it failed."""
        if rest := self._splitter.rest():
            self._judge.take(sse.piece(rest))
        judgement = self._judge.finish()
        return judgement if isinstance(judgement, Broken) and judgement.says_failed else None


def of_unkept(endpoint: Endpoint, upstream: Upstream) -> Validator:
    """Make the validator of a call that is no question: what was asked is not known."""
    return Validator(endpoint.judge, _unkept_criteria(upstream), lambda broken: broken.says_failed)


def _unkept_criteria(upstream: Upstream) -> Criteria:
    """Return what an answer must have where it is not known what was asked."""
    return Criteria(choices=None, end=End(upstream.end), keeps_empty=True)
