"""A scripted upstream over raw sockets: sends exact bytes, whatever HTTP says about them.

The two lines that put the real proxy before it (in this process; `run_proxy_process` starts the real command):

    async with WireServer([chat("one")], [chat("two")]) as upstream, run_proxy(upstream.url) as proxy:
        got = await send(proxy.address + "/v1/chat/completions", QUESTION)

Each request takes the next play; the last play also answers every later request. A play is a list of steps, done in
order once the request has been read whole:

- `bytes`: sent as they are. `chat`, `sse`, `json_answer`, `chunked` and `answer` build the usual ones.
- `asyncio.Event`: waits until the test sets it.
- a function of the request that returns bytes, or a coroutine function of `(connection, request)`.
- `Reset()`: ends the connection with RST. `HalfClose()`: sends FIN, goes on reading. `Close()`: FIN, no more reading.
- `Heartbeat(b": ping\\n\\n")`: repeats until the peer leaves.
- `Aside(*steps)`: does its steps beside what follows, so that the server reads the next request meanwhile.
- `Gap()`: puts what follows into a packet of its own. Never use it to wait for a condition.

In place of plays, `WireServer(by_request)` takes one function from `Request` to a play. `greeting` is a play for each
new connection, before any request. `Unread(*steps)` as a play (not as a function's) answers when the head is there
and leaves the body unread. The server records each request (`requests`: raw bytes, connection, time) and counts
`connections`; `wait_for_requests`, `wait_for_connections` and `wait_for_end` wait without polling.
"""

from tests.wire.answers import answer, chat, chat_body, chunked, json_answer, sse, sse_head
from tests.wire.certificate import Certificate
from tests.wire.server import (
    Aside,
    Close,
    Connection,
    Gap,
    HalfClose,
    Heartbeat,
    Play,
    Request,
    Reset,
    Unread,
    WireServer,
)

__all__ = [
    "Aside",
    "Certificate",
    "Close",
    "Connection",
    "Gap",
    "HalfClose",
    "Heartbeat",
    "Play",
    "Request",
    "Reset",
    "Unread",
    "WireServer",
    "answer",
    "chat",
    "chat_body",
    "chunked",
    "json_answer",
    "sse",
    "sse_head",
]
