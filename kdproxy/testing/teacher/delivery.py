"""Puts a reply on the wire, in the manner that a step asks for. Knows HTTP and TCP, no provider."""

import asyncio
import gzip
import socket
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from kdproxy.testing.teacher.answer import Reply, Streamed, Whole
from kdproxy.testing.teacher.call import Outcome
from kdproxy.testing.teacher.step import (
    CutBody,
    CutStream,
    EndTooEarly,
    EndWithoutTerminator,
    ErrorEvent,
    Gzip,
    HoldAfter,
    KeepAlive,
    Slow,
    Step,
)

_PIECE_BYTES = 64
_SERVER = "scripted-teacher"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How one reply is to be sent."""

    request: web.BaseRequest
    headers: dict[str, str]
    step: Step
    seconds_per_event: float
    error_event: Callable[[int], bytes]

    async def send(self, reply: Reply) -> tuple[web.StreamResponse, Outcome]:
        match self.step, reply:
            case CutBody(at_bytes=at_bytes), _:
                return await self._send_part(reply, at_bytes)
            case ((CutStream() | HoldAfter() | Slow() | KeepAlive()), Whole()):
                return await self._send_events(reply, _pieces_of(reply, self.step))
            case _, Whole():
                return await self._send_whole(reply)
            case _, Streamed():
                return await self._send_events(reply, _events_of(reply, self.step, self.error_event))
        raise AssertionError("every reply is whole or streamed")

    async def _send_whole(self, reply: Whole) -> tuple[web.StreamResponse, Outcome]:
        body, headers = reply.body, self._head(reply)
        if isinstance(self.step, Gzip):
            body, headers["Content-Encoding"] = gzip.compress(body), "gzip"
        response = web.Response(status=reply.status, body=body, headers=headers)
        await response.prepare(self.request)
        await response.write_eof()
        return response, Outcome.ANSWERED

    async def _send_part(self, reply: Reply, at_bytes: int) -> tuple[web.StreamResponse, Outcome]:
        body = reply.body if isinstance(reply, Whole) else b"".join(reply.events)
        response = web.StreamResponse(status=_status(reply), headers=self._head(reply))
        response.content_length = len(body)
        await response.prepare(self.request)
        # At least one byte is kept back, else nothing would be cut.
        await response.write(body[: min(at_bytes, len(body) - 1)])
        close(self.request)
        return response, Outcome.BROKEN

    async def _send_events(self, reply: Reply, events: list[bytes]) -> tuple[web.StreamResponse, Outcome]:
        headers = self._head(reply)
        press = zlib.compressobj(wbits=31) if isinstance(self.step, Gzip) else None
        if press is not None:
            headers["Content-Encoding"] = "gzip"
        response = web.StreamResponse(status=_status(reply), headers=headers)
        response.enable_chunked_encoding()
        await response.prepare(self.request)
        for position, event in enumerate(events):
            await self._wait_before(position)
            # Flushed per event: a reader must be able to decode each one as it comes.
            data = event if press is None else press.compress(event) + press.flush(zlib.Z_SYNC_FLUSH)
            await response.write(data)
        await self._wait_before(len(events))
        if isinstance(self.step, CutStream):
            close(self.request)
            return response, Outcome.BROKEN
        if press is not None:
            await response.write(press.flush())
        await response.write_eof()
        return response, Outcome.ANSWERED

    async def _wait_before(self, position: int) -> None:
        if isinstance(self.step, HoldAfter) and position == self.step.events:
            await self.step.gate.wait()
        pause = self.step.seconds_per_event if isinstance(self.step, Slow) else self.seconds_per_event
        if pause:
            await asyncio.sleep(pause)

    def _head(self, reply: Reply) -> dict[str, str]:
        return {"Content-Type": reply.content_type, "Server": _SERVER, **self.headers, **reply.headers}


def _status(reply: Reply) -> int:
    return reply.status if isinstance(reply, Whole) else 200


def _events_of(reply: Streamed, step: Step, error_event: Callable[[int], bytes]) -> list[bytes]:
    match step:
        case CutStream(after_events=count):
            return list(reply.events[:count])
        case ErrorEvent(after_events=count):
            return [*reply.events[:count], error_event(count)]
        case EndTooEarly():
            return list(reply.lead)
        case EndWithoutTerminator():
            return list(reply.lead + reply.finish)
        case KeepAlive(comments=count):
            return [b": keep-alive\n\n"] * count + list(reply.events)
        case _:
            return list(reply.events)


def _pieces_of(reply: Whole, step: Step) -> list[bytes]:
    body = reply.body
    pieces = [body[start : start + _PIECE_BYTES] for start in range(0, len(body), _PIECE_BYTES)]
    match step:
        case CutStream(after_events=count):
            return pieces[:count]
        case KeepAlive(comments=count):
            return [b"\n"] * count + pieces
        case _:
            return pieces


def close(request: web.BaseRequest) -> None:
    """Close the connection as a peer does that thinks it is done: what was written arrives, then FIN."""
    if request.transport is not None:
        request.transport.close()


def reset(request: web.BaseRequest) -> None:
    """Drop the connection with an RST."""
    transport = request.transport
    if transport is None:
        return
    connection = transport.get_extra_info("socket")
    # Lingering for 0 s makes the kernel send RST where it would send FIN.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
