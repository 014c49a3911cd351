"""Questions already read, by the raw request: equal bytes need no second parse."""

import hashlib
from collections import OrderedDict
from collections.abc import Hashable

from kdproxy.core.models import Question
from kdproxy.core.sightings import Sightings
from kdproxy.engine.call import Incoming
from kdproxy.providers.base import NotAQuestion

MAX_ENTRIES = 16_384
"""About 10 MB: a question is some 600 bytes."""


class QuestionCache:
    """Least recently used first out."""

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self._max_entries = max_entries
        self._sightings = Sightings()
        self._questions: OrderedDict[Hashable, Question | NotAQuestion] = OrderedDict()

    def identity(self, incoming: Incoming, body: bytes) -> Hashable:
        """Return everything that the key depends on, the body by its digest."""
        headers = incoming.headers
        return (
            hashlib.sha256(body).digest(),
            incoming.namespace,
            incoming.upstream.name,
            incoming.method,
            incoming.path,
            incoming.query,
            headers.get("Content-Type"),
            headers.get("Content-Encoding"),
            incoming.keyed_headers,
        )

    def get(self, identity: Hashable) -> Question | NotAQuestion | None:
        """Return what was read before, or None."""
        question = self._questions.get(identity)
        if question is not None:
            self._questions.move_to_end(identity)
        return question

    def put(self, identity: Hashable, question: Question | NotAQuestion) -> None:
        """Remember a reading, from its second time on."""
        if not self._sightings.is_second(identity):
            return
        self._questions[identity] = question
        if len(self._questions) > self._max_entries:
            self._questions.popitem(last=False)
