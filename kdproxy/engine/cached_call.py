"""One flight of a cacheable call: fetch, record, store, and only then let clients have the end of the answer."""

import asyncio
import logging
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import NamedTuple

from kdproxy.core import key
from kdproxy.core.call_event import question_of
from kdproxy.core.models import Address, Answer, Entry, Form, HeaderPairs, Upstream, Usage
from kdproxy.core.policy import Mode
from kdproxy.core.ports import Archive, Clock, Intent, UpstreamRequest
from kdproxy.core.pricing import Bill
from kdproxy.engine import lookup
from kdproxy.engine.call import Asked
from kdproxy.engine.call_record import CallRecord
from kdproxy.engine.errors import complete_refused, completing
from kdproxy.engine.fetch import Fetcher
from kdproxy.engine.fetch_request import FetchedResponse, FetchRequest, GaveUp
from kdproxy.engine.flights import Flight, Head
from kdproxy.engine.lane import Refusal
from kdproxy.engine.lanes import Lanes
from kdproxy.engine.ledger import CallOutcome, Ledger
from kdproxy.engine.offload import INLINE_BYTES
from kdproxy.engine.receive import again_of, read_to_end, recorder_of
from kdproxy.engine.recorder import Recorder, StreamRecorder
from kdproxy.engine.unkept import Unkept
from kdproxy.engine.validator import Validator
from kdproxy.errors import UpstreamFailed
from kdproxy.providers import replay
from kdproxy.providers.base import Broken, Complete, Judgement, criteria_of
from kdproxy.providers.question import endpoint_named
from kdproxy.providers.rules_cost import OutputGuess, cost_of, used_of
from kdproxy.providers.stored import stored_exchange
from kdproxy.providers.usage import as_served

log = logging.getLogger("kdproxy.engine")

STORED_HEADERS = frozenset({"content-type", "openai-version", "request-id", "x-request-id"})
"""Response headers worth keeping; an allow-list, so that no cookie, account or quota header is ever stored."""

_INTENTS = {Mode.REFRESH: Intent.REFRESH, Mode.RECORD: Intent.RECORD}

Price = Callable[[Upstream, str | None, Usage | None], Bill]
"""Upstream, model and usage to what it cost, as far as that is known."""


class CachedCall:
    """Runs the flights of all cacheable calls."""

    def __init__(
        self,
        archive: Archive,
        fetcher: Fetcher,
        lanes: Lanes,
        clock: Clock,
        ledger: Ledger,
        price: Price,
        *,
        answer_limit_bytes: int,
    ) -> None:
        self._archive = archive
        self._fetcher = fetcher
        self._lanes = lanes
        self._clock = clock
        self._ledger = ledger
        self._price = price
        self._answer_limit_bytes = answer_limit_bytes
        self._unkept = Unkept()
        self._guesses: dict[str, OutputGuess] = {}

    async def fly(self, flight: Flight, asked: Asked, address: Address) -> None:
        """Fetch the answer and complete the flight, whatever happens."""
        with completing(flight):
            await self._buy(flight, asked, address)

    async def _buy(self, flight: Flight, asked: Asked, address: Address) -> None:
        incoming, question = asked.incoming, asked.question
        if incoming.mode.stores and not self._archive.is_writable:
            # With a full disk no new call is sent: an answer that cannot be stored would be paid for twice.
            flight.waits_for_disk = True
            await self._archive.wait_writable()
            flight.waits_for_disk = False
            if incoming.mode.reads and (stored := lookup.find(self._archive, asked, address)) is not None:
                # It was delivered while the disk refused it, and has been written since.
                flight.is_stored, flight.usage = True, stored.usage
                flight.set_head(Head(status=stored.status, headers=stored.headers, is_whole=True))
                flight.add(replay.fitted(stored, question))
                flight.complete()
                return
        rules = self._lanes.rules(incoming.upstream, question.provider)
        queue = self._lanes.queue(incoming.upstream, incoming.credentials(), question.model or "", rules)
        guess = self._guesses.setdefault(question.model or "", OutputGuess())
        size = len(asked.body)
        if size <= INLINE_BYTES:
            cost = cost_of(asked.members, guess, body_bytes=size)
        else:
            cost = await asyncio.to_thread(lambda: cost_of(asked.members, guess, body_bytes=size))
        upstream, is_habit = incoming.upstream, self._unkept.is_habit
        validator = Validator(
            endpoint_named(question.provider, question.endpoint).judge,
            criteria_of(question, upstream),
            lambda broken: broken.is_failure and not is_habit(upstream, broken),
        )
        fetch_request = FetchRequest(
            request=partial(_request, asked),
            cost=cost,
            rules=rules,
            run=incoming.run,
            deadline_seconds=incoming.patience_seconds,
            # A binary answer is forwarded as it arrives, so it cannot be fetched again.
            whole_bytes=0 if question.form is Form.BINARY else self._answer_limit_bytes,
            question=question_of(address),
            validator=validator,
        )
        started = self._clock.monotonic()
        result = await self._fetcher.fetch(fetch_request, flight, queue)
        match result:
            case Refusal() | GaveUp():
                if isinstance(result, GaveUp) and validator.failure is not None:
                    flight.detail = "incomplete"
                    self._unkept.broken(upstream, validator.failure, incoming.path, address)
                complete_refused(flight, result)
            case FetchedResponse() as delivery:
                try:
                    judgement, given = await self._receive(flight, asked, address, delivery, started, validator)
                except BaseException as error:
                    await self._fetcher.aborted(fetch_request, delivery, error)
                    raise
                if (failure := validator.failed(judgement)) is not None:
                    self._fetcher.incomplete(fetch_request, delivery, failure)
                elif isinstance(judgement, Broken) and given is not None:
                    self._fetcher.unstored(fetch_request, delivery, judgement.reason, given, used_of(flight.usage))
                else:
                    self._fetcher.completed(fetch_request, delivery, used_of(flight.usage))
                if isinstance(judgement, Broken):
                    self._unkept.broken(upstream, judgement, incoming.path, address)
                if flight.usage is not None:
                    guess.learn(flight.usage)

    async def _receive(
        self,
        flight: Flight,
        asked: Asked,
        address: Address,
        delivery: FetchedResponse,
        started: float,
        validator: Validator,
    ) -> tuple[Judgement, Refusal | None]:
        """Read the answer to its end, store and deliver it. Also returns what to give again if it cannot be stored."""
        upstream, response = asked.incoming.upstream, delivery.response
        recorder, misfit = recorder_of(
            asked.question, validator.criteria, delivery, limit_bytes=self._answer_limit_bytes
        )
        is_live = isinstance(recorder, StreamRecorder) or recorder.is_live
        if is_live:
            flight.set_head(Head(status=response.status, headers=response.headers, is_whole=False))
        try:
            await read_to_end(response, recorder, flight)
        except UpstreamFailed:
            if is_live:
                flight.add(recorder.held)
            flight.detail = "cut"
            raise
        finally:
            response.close()
        judgement = Broken(misfit, may_be_good=True) if misfit else recorder.finish()
        if isinstance(judgement, Complete):
            flight.usage = judgement.usage
            flight.detail = judgement.note
            self._unkept.whole(upstream, judgement)
            entry = self._entry(asked, address, delivery, recorder, judgement, started, flight.attempts)
            if asked.incoming.mode.stores:
                flight.is_stored = await self._keep(entry, asked, flight, delivery.call)
            await self._close(delivery, flight, usage=entry.answer.usage, cost_usd=entry.cost_usd)
        else:
            flight.detail = "empty" if judgement.is_empty else "incomplete"
            outcome = CallOutcome.ANSWERED if validator.failed(judgement) is None else CallOutcome.MAYBE_BILLED
            await self._close(delivery, flight, outcome, reason=f"The answer is not kept: {judgement.reason}.")
        if not is_live:
            flight.set_head(Head(status=response.status, headers=response.headers, is_whole=True))
        flight.add(recorder.held)
        flight.complete()
        return judgement, again_of(judgement, response, recorder, misfit)

    async def _close(
        self,
        delivery: FetchedResponse,
        flight: Flight,
        outcome: CallOutcome = CallOutcome.ANSWERED,
        *,
        usage: Usage | None = None,
        cost_usd: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Record the end of a call whose answer has come in full; nothing, where its answer line says so."""
        if delivery.call.is_over:
            return
        delivery.call.end(
            outcome,
            is_billed=self._fetcher.costs(delivery.permit.queue),
            is_detached=not flight.waiters,
            reason=reason,
            usage=usage,
            cost_usd=cost_usd,
        )
        await self._fetcher.call_log.settle()

    async def _keep(self, entry: Entry, asked: Asked, flight: Flight, call: CallRecord) -> bool:
        intent = _INTENTS.get(asked.incoming.mode, Intent.FILL)
        if intent is Intent.RECORD:
            if lookup.find(self._archive, asked, entry.address) is not None:
                return False
            if lookup.has_form(self._archive, asked, entry.address, entry.answer.form):
                intent = Intent.FILL  # what is there in this form cannot answer this request: kept beside it
        old = lookup.old_address(self._archive, asked, entry.address)
        v1_key = None if old is None else old.key
        is_kept = await self._archive.keep(entry, intent=intent, v1_key=v1_key)
        if not is_kept:
            flight.detail = "not-stored"
        if not is_kept or call.has_answer_line:
            call.kept()
        usage = entry.answer.usage
        for ledger in (self._ledger, asked.incoming.ledger):
            if ledger is not None:
                ledger.bought(
                    input_tokens=None if usage is None else usage.input_tokens,
                    output_tokens=None if usage is None else usage.output_tokens,
                    usd=None if entry.cost_usd is None else Decimal(entry.cost_usd),
                )
        return is_kept

    def _entry(
        self,
        asked: Asked,
        address: Address,
        delivery: FetchedResponse,
        recorder: Recorder,
        judgement: Complete,
        started: float,
        attempts: int,
    ) -> Entry:
        response = delivery.response
        usage = as_served(judgement.usage, asked=asked.members, headers=response.headers)
        bill = self._price(asked.incoming.upstream, asked.question.model, usage)
        return entry_of(
            asked,
            address,
            Answer(
                status=response.status,
                headers=kept_headers(response.headers),
                body=recorder.recording,
                form=recorder.form,
                usage=usage,
                stream_options=asked.question.stream_options,
                asked_form=asked.question.form if recorder.form is not asked.question.form else None,
            ),
            response_id=judgement.response_id,
            cost_usd=None if bill.usd is None else str(bill.usd),
            created_at=self._clock.now(),
            elapsed_seconds=round(self._clock.monotonic() - started, 6),
            bought=Bought(
                judgement.finish,
                judgement.refusal,
                bill.row,
                "yes" if self._fetcher.costs(delivery.permit.queue) else "free",
                attempts,
                delivery.permit.lane.identity[1],
                None if delivery.call.name is None else str(delivery.call.name),
            ),
        )


class Bought(NamedTuple):
    """How the answer was obtained, beside the bill: see the members of `Entry`."""

    finish: tuple[str | None, ...] | None = None
    refusal: str | None = None
    price: str | None = None
    billed: str | None = None
    attempts: int | None = None
    credential: str | None = None
    call: str | None = None


_NOT_BOUGHT = Bought()


def entry_of(
    asked: Asked,
    address: Address,
    answer: Answer,
    *,
    response_id: str | None,
    cost_usd: str | None,
    created_at: float,
    elapsed_seconds: float | None,
    bought: Bought = _NOT_BOUGHT,
) -> Entry:
    """Put together what the journal keeps of a call."""
    incoming, question = asked.incoming, asked.question
    endpoint = endpoint_named(question.provider, question.endpoint)
    request, body = None, answer.body
    if asked.body and not endpoint.takes_form:
        request, body = stored_exchange(endpoint.members, asked.body, answer.body, asked.members)
    # One tuple, made once: each `_replace` of its thirty members takes 3 us.
    return Entry(
        address=address,
        upstream=incoming.upstream.name,
        provider=question.provider,
        endpoint=question.endpoint,
        method=incoming.method,
        path=incoming.path,
        query=key.stored_query(incoming.query),
        request_headers=incoming.keyed_headers,
        request=request,
        prompt_hash=asked.prompt_hash,
        model=question.model,
        answer=answer if body is answer.body else answer._replace(body=body),
        cost_usd=cost_usd,
        created_at=created_at,
        elapsed_seconds=elapsed_seconds,
        response_id=response_id,
        key_version=_KEY_VERSION,
        finish=bought.finish,
        refusal=bought.refusal,
        price=bought.price,
        billed=bought.billed,
        attempts=bought.attempts,
        store=question.wants_copy,
        credential=bought.credential,
        call=bought.call,
    )


_KEY_VERSION = int(key.KEY_VERSION)


def kept_headers(headers: HeaderPairs) -> HeaderPairs:
    """Return the response headers that the journal keeps."""
    return tuple([pair for pair in headers if pair[0].lower() in STORED_HEADERS])


def _request(asked: Asked, key_index: int) -> UpstreamRequest:
    incoming = asked.incoming
    return UpstreamRequest(
        method=incoming.method,
        url=incoming.full_url,
        headers=incoming.forwarded_headers(key_index),
        body=asked.body,
        least_seconds=incoming.least_seconds,
    )
