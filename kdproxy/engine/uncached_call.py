"""Model calls whose answers are not kept: at the pace of their lane and tried again as any other, then as they come."""

import hashlib
from functools import partial

from kdproxy.core.call_event import question_of
from kdproxy.core.models import Address
from kdproxy.core.ports import UpstreamRequest
from kdproxy.core.sniff import Kind
from kdproxy.engine import validator
from kdproxy.engine.call import Incoming
from kdproxy.engine.errors import complete_refused, completing
from kdproxy.engine.fetch import Fetcher
from kdproxy.engine.fetch_request import FetchedResponse, FetchRequest
from kdproxy.engine.flights import Flight, Head
from kdproxy.engine.lanes import Lanes
from kdproxy.engine.offload import offload
from kdproxy.engine.validator import StreamWatch
from kdproxy.providers.base import Endpoint, json_object
from kdproxy.providers.question import model_of
from kdproxy.providers.rules_cost import OutputGuess, cost_of


class UncachedCall:
    """Runs the flights of calls to cacheable endpoints that are no questions (hosted tools, unclear JSON)."""

    def __init__(self, fetcher: Fetcher, lanes: Lanes, *, answer_limit_bytes: int) -> None:
        self._fetcher = fetcher
        self._lanes = lanes
        self._answer_limit_bytes = answer_limit_bytes

    async def fly(self, flight: Flight, incoming: Incoming, body: bytes, endpoint: Endpoint) -> None:
        """Fetch the answer and complete the flight, whatever happens."""
        with completing(flight):
            await self._fetch(flight, incoming, body, endpoint)

    async def _fetch(self, flight: Flight, incoming: Incoming, body: bytes, endpoint: Endpoint) -> None:
        rules = self._lanes.rules(incoming.upstream, endpoint.provider)
        members = await offload(body, lambda: json_object(body))
        model = model_of(incoming.path, members) or ""
        queue = self._lanes.queue(incoming.upstream, incoming.credentials(), model, rules)
        cost = await offload(body, lambda: cost_of(members, OutputGuess(), body_bytes=len(body)))
        fetch_request = FetchRequest(
            request=partial(_request, incoming, body),
            cost=cost,
            rules=rules,
            run=incoming.run,
            deadline_seconds=incoming.patience_seconds,
            whole_bytes=self._answer_limit_bytes,
            question=_identity(incoming, body),
            validator=validator.of_unkept(endpoint, incoming.upstream),
        )
        result = await self._fetcher.fetch(fetch_request, flight, queue)
        if not isinstance(result, FetchedResponse):
            complete_refused(flight, result)
            return
        response = result.response
        watch = StreamWatch(endpoint, incoming.upstream) if result.kind is Kind.EVENTS else None
        try:
            flight.set_head(Head(status=response.status, headers=response.headers, is_whole=False))
            async for chunk in response.chunks():
                flight.add(chunk)
                if watch is not None:
                    watch.feed(chunk)
        except BaseException as error:
            await self._fetcher.aborted(fetch_request, result, error)
            raise
        finally:
            response.close()
        failure = None if watch is None else watch.finish()
        if failure is None:
            self._fetcher.completed(fetch_request, result)
        else:
            self._fetcher.incomplete(fetch_request, result, failure)
        await self._fetcher.call_log.settle()
        flight.complete()


def _identity(incoming: Incoming, body: bytes) -> Address:
    """Return the identity of a question that is not stored: it has no key."""
    digest = hashlib.sha256(body).hexdigest()
    parts = ("unkept", incoming.upstream.name, incoming.path, incoming.query, digest)
    key = hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
    return question_of(Address(incoming.namespace, key))


def _request(incoming: Incoming, body: bytes, key_index: int) -> UpstreamRequest:
    return UpstreamRequest(
        method=incoming.method,
        url=incoming.full_url,
        headers=incoming.forwarded_headers(key_index),
        body=body,
        least_seconds=incoming.least_seconds,
    )
