"""One call on the wire, from the `sent` before its first byte to its end: an answer line that names it, or `ended`.

A call that reached no connection leaves nothing. An unknown outcome counts as one that may have been billed.
"""

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, unquote_plus, urlsplit

import orjson

from kdproxy.core.call_event import ERROR_BYTES, Ended, Sent
from kdproxy.core.key import PUBLIC_QUERY
from kdproxy.core.models import HeaderPairs, LineName, Usage
from kdproxy.core.ports import CallLog, Clock, UpstreamRequest
from kdproxy.core.position import is_credential
from kdproxy.engine.ledger import CallOutcome, Ledger

SHORTEST_SECRET = 8
"""Characters; a shorter text may stand in an error for itself."""
_LOOKED_THROUGH_BYTES = 1 << 20
_REQUEST_IDS = ("x-request-id", "request-id", "apim-request-id", "x-amzn-requestid", "x-goog-request-id", "cf-ray")
"""Headers by which providers name a call, the provider's own before a gateway's."""
_BETWEEN_WORDS = re.compile(r"[\s=;,&]+")
_TOKEN = re.compile(r"\b(?:sk|pk|rk|gsk|xai|hf|r8|nvapi|pplx|csk|fw|AIza|ghp|eyJ)[-_A-Za-z0-9][-_.A-Za-z0-9*]{7,}")
"""What credentials look like: a provider quotes the one that it refuses, or another one."""


class NoCalls:
    """The CallLog port where nothing is recorded."""

    async def ready(self) -> None:
        """There is nothing to open."""

    def sent(self, sent: Sent) -> LineName:
        """Name no line."""
        return LineName("0" * 24, 0)

    def ended(self, ended: Ended) -> None:
        """Do nothing."""

    def is_open(self, call: LineName) -> bool:
        """Nothing is."""
        return False

    async def settle(self) -> None:
        """Nothing waits."""

    async def wait_writable(self) -> None:
        """It always is."""


class CallRecord:
    """A call. `end` or `kept` must be called once; more do nothing."""

    __slots__ = ("_body", "_clock", "_headers", "_is_over", "_ledger", "_log", "_request", "_sent", "_status", "name")

    def __init__(self, log: CallLog, ledger: Ledger | None, clock: Clock, sent: Sent) -> None:
        self._log = log
        self._ledger = ledger
        self._clock = clock
        self._sent = sent
        self.name: LineName | None = None
        """Name of its `sent` line, once it is on the wire."""
        self._request: UpstreamRequest | None = None
        self._status: int | None = None
        self._headers: HeaderPairs = ()
        self._body = b""
        self._is_over = False
        if ledger is not None:
            ledger.call_began()

    def recorded(self, request: UpstreamRequest) -> UpstreamRequest:
        """Return the request, which records itself before its first byte."""
        self._request = request
        # Written out, as `Sent` is below: `_replace` takes twice as long.
        method, url, headers, body, least_seconds, _ = request
        return UpstreamRequest(method, url, headers, body, least_seconds, self._put_on_wire)

    def _put_on_wire(self) -> None:
        sent = self._sent
        self._sent = Sent._make((sent.upstream, self._clock.now(), *sent[2:]))
        self.name = self._log.sent(self._sent)

    def heard(self, status: int, headers: HeaderPairs) -> None:
        """Take note of the answer's head."""
        self._status, self._headers = status, headers

    def said(self, body: bytes) -> None:
        """Take note of an error's body."""
        self._body = body

    @property
    def is_over(self) -> bool:
        """Whether its end is recorded."""
        return self._is_over

    @property
    def has_answer_line(self) -> bool:
        """Whether the journal has the answer line that names it."""
        return self.name is None or not self._log.is_open(self.name)

    def kept(self) -> None:
        """Its answer line is its end: it is in the journal, or waits for the disk to get there."""
        if not self._is_over:
            self._is_over = True
            self._count(CallOutcome.ANSWERED)

    def end(
        self,
        outcome: CallOutcome | None,
        *,
        is_billed: bool,
        is_detached: bool = False,
        reason: str | None = None,
        usage: Usage | None = None,
        cost_usd: str | None = None,
    ) -> None:
        """Record its end.

        Args:
            outcome: None: it reached no server.
            is_billed: whether calls to this upstream cost money.
            is_detached: whether no client waits for it any more.
            reason: what went wrong.
        """
        if self._is_over:
            return
        self._is_over = True
        self._count(outcome)
        if self.name is None:
            return
        now = self._clock.now()
        self._log.ended(
            Ended(
                call=self.name,
                outcome=str(outcome or CallOutcome.REFUSED),
                billed=billed_of(outcome, is_billed=is_billed),
                ended_at=now,
                seconds=max(0.0, now - self._sent.sent_at),
                status=self._status,
                request_id=_request_id(self._headers),
                usage=usage,
                cost_usd=cost_usd,
                reason=reason,
                error=self._error_text(),
                is_detached=is_detached,
            )
        )

    def _count(self, outcome: CallOutcome | None) -> None:
        if self._ledger is not None:
            self._ledger.call_ended(outcome)

    def _error_text(self) -> str | None:
        request = self._request
        if not self._body:
            return None
        if request is not None and isinstance(request.body, bytes) and len(request.body) > _LOOKED_THROUGH_BYTES:
            return "(left out: the request is too large to look for credentials in it)"
        text = self._body[: 2 * ERROR_BYTES].decode("utf-8", "replace")
        text = without_secrets(text, request)
        return text.encode()[:ERROR_BYTES].decode("utf-8", "ignore")


def billed_of(outcome: CallOutcome | None, *, is_billed: bool) -> str:
    """Say whether a call cost money: `yes`, `no`, `maybe`, `free`."""
    if not is_billed:
        return "free"
    match outcome:
        case CallOutcome.ANSWERED:
            return "yes"
        case CallOutcome.REFUSED | None:
            return "no"
        case _:
            return "maybe"


def without_secrets(text: str, request: UpstreamRequest | None) -> str:
    """Return a provider's words with stars for the credentials of the request, and for what looks like one."""
    for secret in sorted(set() if request is None else _secrets_of(request), key=len, reverse=True):
        for form in (secret, json.dumps(secret)[1:-1]):
            text = text.replace(form, "*" * 8)
    return _TOKEN.sub("*" * 8, text)


def _secrets_of(request: UpstreamRequest) -> set[str]:
    found = {value for name, value in request.headers if is_credential(name)}
    found |= {word for value in found for word in _BETWEEN_WORDS.split(value)}
    query = urlsplit(request.url).query
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in PUBLIC_QUERY:
            found |= {value, name} if not value else {value}  # a secret may stand alone
            found |= {part for part in _BETWEEN_WORDS.split(query) if unquote_plus(part) == value}
    if isinstance(request.body, bytes):
        with contextlib.suppress(ValueError, RecursionError):
            found.update(_texts_of_credentials(orjson.loads(request.body)))
    return {secret for secret in found if len(secret) >= SHORTEST_SECRET}


def _texts_of_credentials(value: Any, *, is_secret: bool = False) -> Iterator[str]:
    match value:
        case dict():
            for name, member in value.items():
                yield from _texts_of_credentials(member, is_secret=is_secret or is_credential(name))
        case list():
            for item in value:
                yield from _texts_of_credentials(item, is_secret=is_secret)
        case str() if is_secret:
            yield value


def _request_id(headers: HeaderPairs) -> str | None:
    by_name = {name.lower(): value for name, value in headers}
    return next((by_name[name] for name in _REQUEST_IDS if name in by_name), None)
