"""One incoming request as the engine sees it, and the reply it gives back."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from kdproxy.core import key
from kdproxy.core.models import Disposition, HeaderPairs, Headers, Question, Upstream
from kdproxy.core.policy import RUN_HEADER, Mode
from kdproxy.core.run_ref import RunRef
from kdproxy.core.sampling import Taking
from kdproxy.engine.flights import Flight
from kdproxy.engine.ledger import Ledger
from kdproxy.engine.runs import Hold
from kdproxy.providers.base import json_object
from kdproxy.providers.prompt_match import Match, match, prompt_hash
from kdproxy.providers.question import Asking, endpoint_named, v1_key


@dataclass(slots=True, kw_only=True, eq=False)
class Incoming:
    """A request that has passed the doors and been routed. Not frozen: that costs 2 us on every hit."""

    method: str
    path: str
    """Relative to the upstream's own prefix, percent-encoded."""
    query: str
    """Raw."""
    url: str
    """Full upstream URL without the query."""
    upstream: Upstream
    headers: Headers
    namespace: str
    mode: Mode
    forwarded_headers: Callable[[int], HeaderPairs]
    """What goes upstream, with the upstream's credential of that index; made only where something does."""
    credentials: Callable[[], tuple[str, ...]]
    """Makes the fingerprints of the credentials that may be used: names of lanes, not secrets."""
    patience_seconds: float
    """How long the client waits for the answer's head before it gets a 429 or 503 with Retry-After."""
    least_seconds: float = 0.0
    """How long it says itself that it waits; 0: it does not say."""
    run_ref: RunRef | None = None
    """The run whose samples it gets; None: the classic cache, where each question has one answer."""
    taking: Taking | None = None
    """Which sample its own header asks for."""
    ledger: Ledger | None = None
    """Totals of its own attempt, beside those of the process."""
    _keyed_headers: HeaderPairs | None = None

    @property
    def run(self) -> str:
        """Which run it waits for its turn with; empty where it does not say."""
        return self.headers.get(RUN_HEADER) or (self.run_ref.run if self.run_ref is not None else "")

    @property
    def is_retry(self) -> bool:
        """Whether an official client says that it asks again what it has asked before."""
        return self.headers.get("x-stainless-retry-count", "0").strip() not in ("", "0")

    def asking(self, body: bytes) -> Asking:
        """Return what the key depends on."""
        return Asking(self.upstream, self.path, self.query, self.headers, body, self.keyed_headers)

    @property
    def keyed_headers(self) -> HeaderPairs:
        """The headers that are in the key, as it holds them; read when first asked for."""
        if self._keyed_headers is None:
            self._keyed_headers = key.header_values(self.headers, self.upstream.key_headers)
        return self._keyed_headers

    @property
    def full_url(self) -> str:
        """The upstream URL with the query."""
        return f"{self.url}?{self.query}" if self.query else self.url


@dataclass(slots=True, kw_only=True, eq=False)
class Reply:
    """What goes back: a whole body, or one that streams. Not frozen, as above."""

    status: int
    headers: HeaderPairs
    body: bytes | AsyncIterator[bytes]
    cache_status: str
    disposition: Disposition
    content_length: int | None = None
    """Length of a streamed body, if the upstream named it."""
    question: Question | None = None
    flight: Callable[[], Flight] | None = None
    """Returns the flight that it is on: a client that is held may change it."""
    close: Callable[[], None] | None = None
    """Must be called when the reply is done with, read to its end or not."""
    hold: Hold | None = None
    """The sample of a run that it delivers; to be closed too."""


class Asked:
    """A cacheable call: the request, its body, and the question that it is."""

    __slots__ = (
        "_has_v1_key",
        "_is_read",
        "_match",
        "_members",
        "_v1_key",
        "body",
        "incoming",
        "question",
    )

    def __init__(
        self, incoming: Incoming, body: bytes, question: Question, members: dict[str, Any] | None = None
    ) -> None:
        self.incoming = incoming
        self.body = body
        self.question = question
        self._match: Match | None = None
        self._members = members
        self._v1_key: str | None = None
        self._has_v1_key = False
        self._is_read = members is not None

    def read_all(self) -> None:
        """Read at once what would be read when first asked for: on a thread, of a large body."""
        _ = self.match, self.v1_key

    @property
    def members(self) -> dict[str, Any] | None:
        """The members of a JSON body, for looking; None where it is none. Read when first asked for."""
        if not self._is_read:
            self._is_read, self._members = True, json_object(self.body)
        return self._members

    @property
    def v1_key(self) -> str | None:
        """The key that version 1 gave the request, or None; made when first asked for, since a hit does not need it."""
        if not self._has_v1_key:
            endpoint = endpoint_named(self.question.provider, self.question.endpoint)
            self._has_v1_key, self._v1_key = True, v1_key(endpoint, self.incoming.asking(self.body))
        return self._v1_key

    @property
    def prompt_hash(self) -> str | None:
        """SHA-256 of the prompt's text alone, where the question is one text."""
        if self._match is not None:
            return self._match.prompt_hash
        incoming = self.incoming
        return prompt_hash(self.question, path=incoming.path, query=incoming.query, members=self.members)

    @property
    def match(self) -> Match:
        """How a recorded prompt finds the question; read when first asked for."""
        if self._match is None:
            incoming = self.incoming
            self._match = match(self.question, path=incoming.path, query=incoming.query, members=self.members)
        return self._match
