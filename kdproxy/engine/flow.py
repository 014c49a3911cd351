"""One request, top to bottom: read the question, look it up, decide, lead or join, reply."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from kdproxy.core import cache_status, key
from kdproxy.core.cache_status import Forward
from kdproxy.core.models import Address, Answer, Disposition, Form, Prompt, Question
from kdproxy.core.policy import Mode
from kdproxy.core.ports import Archive, Clock, Intent, UpstreamRequest
from kdproxy.core.run_ref import SAMPLE_HEADER
from kdproxy.engine import keepalive, lookup
from kdproxy.engine.cached_call import CachedCall, entry_of, kept_headers
from kdproxy.engine.call import Asked, Incoming, Reply
from kdproxy.engine.coalescing import Coalescer
from kdproxy.engine.errors import draining, not_replayable, not_stored
from kdproxy.engine.flights import FlightId, Flights
from kdproxy.engine.offload import INLINE_BYTES
from kdproxy.engine.question_cache import QuestionCache
from kdproxy.engine.relay import Relay
from kdproxy.engine.runs import Hold
from kdproxy.engine.samples import Samples
from kdproxy.engine.uncached_call import UncachedCall
from kdproxy.providers import compose, question, replay
from kdproxy.providers.base import Complete, Endpoint, NotAQuestion
from kdproxy.providers.models_list import same_models

MODELS_LIMIT_BYTES = 16 << 20

_WITH_USAGE = "usage"


class Flow:
    """Answers requests. One per process, on its event loop."""

    def __init__(
        self,
        archive: Archive,
        relay: Relay,
        flights: Flights,
        cached_call: CachedCall,
        uncached_call: UncachedCall,
        samples: Samples,
        clock: Clock,
        *,
        allow_hosted_tools: bool,
        match_prompts: bool,
        keep_alive_seconds: float,
    ) -> None:
        self._archive = archive
        self._relay = relay
        self._flights = flights
        self._cached_call = cached_call
        self._uncached_call = uncached_call
        self._uncached = itertools.count()
        self._samples = samples
        self._clock = clock
        self._allow_hosted_tools = allow_hosted_tools
        self._match_prompts = match_prompts
        self._keep_alive_seconds = keep_alive_seconds
        self._coalescer = Coalescer(flights, archive, keep_alive_seconds=keep_alive_seconds)
        self._memo = QuestionCache()
        self.passing = relay.passing
        self._is_buying = True

    async def answer(self, incoming: Incoming, endpoint: Endpoint, body: bytes) -> Reply:
        """Answer a request to a cacheable endpoint.

        Raises:
            KdproxyError: the proxy's own refusal, or the upstream could not be had.
        """
        asked = await self._read(incoming, endpoint, body)
        if isinstance(asked, NotAQuestion):
            return await self._pass_uncached(incoming, endpoint, body, asked.reason)
        if incoming.run_ref is None and incoming.taking is None:
            return await self._answer(asked, Address(incoming.namespace, asked.question.key))
        address, hold = await self._samples.take(asked)
        is_fresh = hold is None and self._samples.is_fresh(incoming)
        try:
            reply = await self._answer(asked, address, hold)
        except BaseException:
            if hold is not None:
                hold.close()
            if is_fresh:
                self._samples.release_fresh(address)
            raise
        reply.hold = hold
        if is_fresh:
            reply.close = partial(self._close_fresh, address, reply.close)
        if incoming.mode is not Mode.BYPASS:
            reply.headers = (*reply.headers, (SAMPLE_HEADER, str(address.ordinal)))
        return reply

    def _close_fresh(self, address: Address, close: Callable[[], None] | None) -> None:
        if close is not None:
            close()
        self._samples.release_fresh(address)

    async def _answer(self, asked: Asked, address: Address, hold: Hold | None = None) -> Reply:
        mode = asked.incoming.mode
        if mode.reads:
            reply = self._from_store(asked, address)
            if reply is not None:
                return reply
        if not mode.buys:
            raise not_stored(asked.question.key)
        return await self._from_upstream(asked, address, hold)

    async def pass_through(self, incoming: Incoming, body: bytes | AsyncIterator[bytes] | None) -> Reply:
        """Hand a request that is no question to the upstream, and its answer back, both as they come."""
        is_models = incoming.method == "GET" and body is None and question.MODELS.path.search(incoming.path)
        if is_models and key.has_public_query(incoming.query):
            return await self._models(incoming)
        forward = Forward.BYPASS if incoming.method == "POST" else Forward.METHOD
        return await self._pass(incoming, body, forward, detail=None)

    def stop_buying(self) -> None:
        """Serve what is stored, refuse what needs an upstream call, end what waits unsent."""
        self._is_buying = self._coalescer.may_lead = False
        self._flights.cancel_unsent(draining())

    # -- reading ----------------------------------------------------------------------------------------------

    async def _read(self, incoming: Incoming, endpoint: Endpoint, body: bytes) -> Asked | NotAQuestion:
        is_large = len(body) > INLINE_BYTES
        identify = self._memo.identity
        identity = await asyncio.to_thread(identify, incoming, body) if is_large else identify(incoming, body)
        known, members = self._memo.get(identity), None
        if known is None:
            read = self._read_new
            found, members = (
                await asyncio.to_thread(read, incoming, endpoint, body) if is_large else read(incoming, endpoint, body)
            )
            self._memo.put(identity, found)
        else:
            found = known
        if isinstance(found, NotAQuestion):
            return found
        previous = found.previous_response_id
        if previous is not None and not self._archive.knows_response(incoming.namespace, previous):
            return NotAQuestion("previous_response_id is not in this store")
        asked = Asked(incoming, body, found, members)
        if is_large:
            await asyncio.to_thread(asked.read_all)
        return asked

    def _read_new(
        self, incoming: Incoming, endpoint: Endpoint, body: bytes
    ) -> tuple[Question | NotAQuestion, dict[str, Any] | None]:
        """Return the question, and the members of a JSON body: a miss needs them again."""
        asking = incoming.asking(body)
        content = question.content(endpoint, asking)
        if isinstance(content, NotAQuestion):
            return content, None
        members, parts = content
        found = question.read_content(endpoint, asking, content, self._allow_hosted_tools)
        return found, members if parts is None else None

    # -- from the store ---------------------------------------------------------------------------------------

    def _from_store(self, asked: Asked, address: Address) -> Reply | None:
        found = asked.question
        answer = lookup.find(self._archive, asked, address)
        if answer is not None:
            incoming = asked.incoming
            return self._hit(found, answer, is_collapsed=incoming.run_ref is None and incoming.taking is None)
        if self._match_prompts and self._archive.has_prompts and (match_key := asked.match.match_key) is not None:
            prompt = self._archive.find_prompt(address.namespace, match_key, address.ordinal)
            if prompt is not None:
                return _prompt_hit(found, prompt, asked.match.ignored)
        return None

    def _hit(self, found: Question, answer: Answer, *, is_collapsed: bool = False) -> Reply:
        detail = None
        if is_collapsed and found.is_sampled:
            detail = "collapsed"
        return Reply(
            status=answer.status,
            headers=answer.headers,
            body=replay.fitted(answer, found),
            cache_status=cache_status.hit(found.key, detail=detail, ignored=found.ignored),
            disposition=Disposition.HIT,
            question=found,
        )

    # -- from the upstream ------------------------------------------------------------------------------------

    async def _from_upstream(self, asked: Asked, address: Address, hold: Hold | None) -> Reply:
        incoming, found = asked.incoming, asked.question
        identity: FlightId = (
            address.namespace,
            address.key,
            str(address.ordinal),
            found.form,
            incoming.mode,
            "copy" if found.wants_copy else "",
            _WITH_USAGE if found.wants_stream_usage else "",
        )
        flight = self._flights.under_way(identity)
        if flight is None and not found.wants_stream_usage:
            # A call that was asked with usage has all that this one needs, and not the other way round.
            flight = self._flights.under_way((*identity[:-1], _WITH_USAGE))
        if not incoming.mode.reads:
            is_retry = incoming.is_retry
            if is_retry and flight is None and self._flights.was_missed(identity):
                # The new answer that it asked for is stored: this client asked for it and left before its end.
                reply = self._from_store(asked, address)
                if reply is not None:
                    return reply
            if incoming.mode is Mode.BYPASS and not (is_retry and flight is not None and flight.has_lost):
                # Who bypasses the cache wants a call of its own; who comes back for it, that one.
                flight = None
        forward = self._forward(asked, address)
        joined = await self._coalescer.join(
            asked, identity, flight, lambda started: self._cached_call.fly(started, asked, address)
        )
        flight, head, is_joined = joined.flight, joined.head, joined.is_joined
        before_last = None if hold is None else hold.use
        if head is None:
            detail: str | None = "held"
            head_within = partial(self._coalescer.head_within, joined)
            body: bytes | AsyncIterator[bytes] = keepalive.held(
                lambda: joined.flight, head_within, found, self._keep_alive_seconds, before_last
            )
        elif head.is_whole:
            detail, body = flight.detail, flight.body
        else:
            detail, body = "live", replay.fitted_live(flight.chunks(before_last), flight.stream_options, found)
        status = cache_status.forwarded(
            forward,
            status=None if head is None else head.status,
            is_stored=flight.is_stored,
            is_collapsed=is_joined,
            key=found.key,
            detail=detail,
            ignored=found.ignored,
        )
        return Reply(
            status=200 if head is None else head.status,
            headers=keepalive.head_of(found) if head is None else head.headers,
            body=body,
            cache_status=status,
            disposition=Disposition.JOINED if is_joined else Disposition.MISS,
            question=found,
            flight=lambda: joined.flight,
            close=lambda: self._flights.leave(joined.flight),
        )

    def _forward(self, asked: Asked, address: Address) -> Forward:
        """Say why a question goes to the upstream, as RFC 9211 section 2.2 has it."""
        mode = asked.incoming.mode
        if mode is Mode.BYPASS:
            return Forward.BYPASS
        if not mode.reads and lookup.find(self._archive, asked, address) is not None:
            return Forward.REQUEST
        return Forward.MISS

    # -- past the cache ---------------------------------------------------------------------------------------

    async def _pass_uncached(self, incoming: Incoming, endpoint: Endpoint, body: bytes, reason: str) -> Reply:
        """A model call that cannot be kept: it takes its turn in the lane, since it counts against the same limits."""
        self._check_may_buy(incoming)
        flight = self._flights.start(
            ("uncached", str(next(self._uncached))),
            lambda started: self._uncached_call.fly(started, incoming, body, endpoint),
        )
        flight.is_worth_finishing = False
        self._flights.join(flight)
        try:
            head = await self._coalescer.wait_head(flight, incoming, None)
        except BaseException:
            self._flights.leave(flight)
            raise
        assert head is not None  # nothing else holds a client whose form is not known
        return Reply(
            status=head.status,
            headers=head.headers,
            body=flight.body if head.is_whole else flight.chunks(),
            cache_status=cache_status.forwarded(Forward.BYPASS, status=head.status, detail=reason),
            disposition=Disposition.BYPASS,
            flight=lambda: flight,
            close=lambda: self._flights.leave(flight),
        )

    def _check_may_buy(self, incoming: Incoming) -> None:
        if not incoming.mode.buys:
            raise not_replayable()
        if not self._is_buying:
            raise draining()

    async def _pass(
        self, incoming: Incoming, body: bytes | AsyncIterator[bytes] | None, forward: Forward, *, detail: str | None
    ) -> Reply:
        self._check_may_buy(incoming)
        found = await self._relay.relay(incoming, body)
        response = found.response
        return Reply(
            status=response.status,
            headers=response.headers,
            body=found.body,
            cache_status=cache_status.forwarded(forward, status=response.status, detail=detail),
            disposition=Disposition.BYPASS,
            content_length=response.content_length,
            close=found.close,
        )

    async def _models(self, incoming: Incoming) -> Reply:
        """A GET of models passes; its last answer is kept for replay, since scripts ask for it before they start."""
        asked = _models_question(incoming)
        address = Address(namespace=incoming.namespace, key=asked.question.key)
        stored = lookup.find(self._archive, asked, address)
        if incoming.mode is Mode.REPLAY:
            if stored is None:
                raise not_stored(asked.question.key)
            return self._hit(asked.question, stored)
        if not self._is_buying:
            raise draining()
        request = UpstreamRequest(method="GET", url=incoming.full_url, headers=incoming.forwarded_headers(0), body=None)
        response, body = await self._relay.read(request, limit_bytes=MODELS_LIMIT_BYTES)
        is_stored = False
        judgement = question.MODELS.judge(body)
        if response.status == 200 and incoming.mode.stores and isinstance(judgement, Complete):
            answer = Answer(status=200, headers=kept_headers(response.headers), body=body, form=Form.JSON)
            if stored is None or (incoming.mode is not Mode.RECORD and not same_models(stored.body, body)):
                is_stored = await self._archive.keep(
                    entry_of(
                        asked,
                        address,
                        answer,
                        response_id=None,
                        cost_usd=None,
                        created_at=self._clock.now(),
                        elapsed_seconds=None,
                    ),
                    intent=Intent.REFRESH,
                )
        return Reply(
            status=response.status,
            headers=response.headers,
            body=body,
            cache_status=cache_status.forwarded(Forward.METHOD, status=response.status, is_stored=is_stored),
            disposition=Disposition.BYPASS,
        )


def _models_question(incoming: Incoming) -> Asked:
    models_key = key.request_key(
        upstream=incoming.upstream.name,
        method="GET",
        path=incoming.path,
        query=key.canonical_query(incoming.query),
        headers=incoming.headers,
        body=b"",
    )
    found = Question(
        key=models_key,
        form=Form.JSON,
        provider=question.MODELS.provider,
        endpoint=question.MODELS.name,
        model=None,
        is_sampled=False,
    )
    return Asked(incoming, b"", found)


def _prompt_hit(found: Question, prompt: Prompt, ignored: tuple[str, ...]) -> Reply:
    answer = compose.answer(found, prompt)
    return Reply(
        status=answer.status,
        headers=answer.headers,
        body=answer.body,
        cache_status=cache_status.hit(found.key, detail="prompt-match", ignored=(*found.ignored, *ignored)),
        disposition=Disposition.PROMPT_HIT,
        question=found,
    )
