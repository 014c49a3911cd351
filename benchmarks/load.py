"""A closed-loop HTTP load in its own process: blocking sockets behind one selector, some 10 us a request.

Reads an order (JSON) on stdin, writes what it measured (JSON) on stdout. It checks every reply: status, length, that
it answers this request and not another one, and what Cache-Status says. A wrong reply ends the run.
"""

import re
import selectors
import socket
import sys
import time
from array import array
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import work

STUCK_SECONDS = 20.0
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked\r\n", re.IGNORECASE)
_LAST_CHUNK = b"\r\n0\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to ask of whom, for how long."""

    url: str
    connections: int
    seconds: float | None = None
    """Length of the measured window; None: until `count` requests are answered."""
    count: int | None = None
    warm_count: int = 0
    """Requests asked before, from the same numbers and unmeasured."""
    first: int = 0
    """Number of the first request."""
    distinct: int | None = None
    """Numbers to go round in, from `first` on; None: each request is new."""
    is_shuffled: bool = False
    """Go round in an order that has nothing to do with the one on disk."""
    cache_status: str | None = None
    """What Cache-Status must hold."""
    is_echo: bool = True
    """Whether the reply must hold the request's number."""
    is_stream: bool = False
    temperature: int = 0
    """Above 0 a second answer may differ: the requests of a run get a sample each."""
    place: str = ""
    """What comes before the path: a run and an attempt."""
    pids: tuple[int, ...] = ()
    """Processes whose CPU time is read at both ends of the window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a window showed. Times in microseconds."""

    requests: int
    seconds: float
    rate: float
    p50: float
    p99: float
    first_byte_p50: float | None
    first_token_p50: float | None
    """Until the first event of a stream with text in it has come."""
    cpu: tuple[float | None, ...]
    """CPU time a request of each of the order's processes; None where the system does not report it."""
    own_cpu: float
    stranger_share: float | None
    """Part of the machine that others used meanwhile."""
    next_number: int
    """The first number that was not used."""


class WrongReply(Exception):
    """A reply that is not what was ordered."""


class _Connection:
    __slots__ = ("buffer", "first_byte_at", "first_token_at", "number", "sent_at", "sock")

    def __init__(self, address: tuple[str, int]) -> None:
        self.sock = socket.create_connection(address, timeout=STUCK_SECONDS)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.number = 0
        self.sent_at = 0
        self.first_byte_at = 0
        self.first_token_at = 0


class Load:
    """One run of an order."""

    def __init__(self, order: Order) -> None:
        parts = urlsplit(order.url)
        self._order = order
        self._request = work.request(
            parts.netloc, is_stream=order.is_stream, temperature=order.temperature, place=order.place
        )
        self._selector = selectors.DefaultSelector()
        self._status = None if order.cache_status is None else order.cache_status.encode()
        self._asked = 0
        self._latencies = array("Q")
        self._first_bytes = array("Q")
        self._first_tokens = array("Q")
        self._connections = []
        for _ in range(order.connections):
            connection = _Connection((parts.hostname or "", parts.port or 80))
            self._selector.register(connection.sock, selectors.EVENT_READ, connection)
            self._connections.append(connection)

    def run(self) -> Measured:
        """Warm up, then measure."""
        order = self._order
        if order.warm_count:
            self._drive(count=order.warm_count, seconds=None)
        del self._latencies[:], self._first_bytes[:], self._first_tokens[:]
        cpu, own, machine = [_cpu(pid) for pid in order.pids], time.process_time(), _machine()
        seconds = self._drive(count=order.count, seconds=order.seconds)
        spent = [_difference(_cpu(pid), before) for pid, before in zip(order.pids, cpu, strict=True)]
        own = time.process_time() - own
        count = len(self._latencies)
        ordered = sorted(self._latencies)
        first, tokens = sorted(self._first_bytes), sorted(self._first_tokens)
        return Measured(
            requests=count,
            seconds=seconds,
            rate=count / seconds,
            p50=ordered[count // 2] / 1e3,
            p99=ordered[count * 99 // 100] / 1e3,
            first_byte_p50=first[len(first) // 2] / 1e3 if first else None,
            first_token_p50=tokens[len(tokens) // 2] / 1e3 if tokens else None,
            cpu=tuple(None if used is None else used / count * 1e6 for used in spent),
            own_cpu=own / count * 1e6,
            stranger_share=_stranger_share(machine, _machine(), sum(used or 0.0 for used in spent) + own),
            next_number=self._number(self._asked) if order.distinct is None else order.first,
        )

    def _number(self, position: int) -> int:
        order = self._order
        if order.distinct is None:
            return order.first + position
        if order.is_shuffled:
            # 7919 is prime, so this meets every number once a round where `distinct` is no multiple of it.
            position *= 7_919
        return order.first + position % order.distinct

    def _drive(self, *, count: int | None, seconds: float | None) -> float:
        clock = time.perf_counter_ns
        began = clock()
        deadline = None if seconds is None else began + int(seconds * 1e9)
        last = None if count is None else self._asked + count
        flying = 0
        for idle in self._connections:
            if last is None or self._asked < last:
                self._ask(idle, clock())
                flying += 1
        is_stream = self._order.is_stream
        while flying:
            ready = self._selector.select(STUCK_SECONDS)
            if not ready:
                raise WrongReply(f"no reply for {STUCK_SECONDS:g} s")
            for key, _ in ready:
                connection: _Connection = key.data
                data = connection.sock.recv(262_144)
                if not data:
                    raise WrongReply(f"the connection was closed after {connection.buffer[:300]!r}")
                now = clock()
                if connection.buffer:
                    data = connection.buffer + data
                if not self._is_complete(connection, data, now):
                    connection.buffer = data
                    continue
                connection.buffer = b""
                self._latencies.append(now - connection.sent_at)
                if is_stream:
                    self._first_bytes.append(connection.first_byte_at - connection.sent_at)
                    self._first_tokens.append(connection.first_token_at - connection.sent_at)
                if (deadline is None or now < deadline) and (last is None or self._asked < last):
                    self._ask(connection, clock())
                else:
                    flying -= 1
        return (clock() - began) / 1e9

    def _ask(self, connection: _Connection, now: int) -> None:
        number = self._number(self._asked)
        self._asked += 1
        connection.number = number
        connection.first_byte_at = connection.first_token_at = 0
        connection.sent_at = now
        connection.sock.sendall(self._request.fill(number))

    def _is_complete(self, connection: _Connection, data: bytes, now: int) -> bool:
        """Whether a reply is there in full. Raises WrongReply."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return False
        if not connection.first_byte_at and len(data) > end + 4:
            connection.first_byte_at = now
        if self._order.is_stream and not connection.first_token_at and work.FIRST_TOKEN in data:
            connection.first_token_at = now
        found = _LENGTH.search(data, 0, end + 2)
        if found is not None:
            size = end + 4 + int(found[1])
            if len(data) < size:
                return False
            is_whole = len(data) == size
        elif _CHUNKED.search(data, 0, end + 2):
            if not data.endswith(_LAST_CHUNK):
                return False
            is_whole = True
        else:
            is_whole = False
        is_right = is_whole and data.startswith(b"HTTP/1.1 200 ")
        if self._order.is_echo:
            is_right = is_right and work.number_text(connection.number) in data
        if self._order.is_stream:
            is_right = is_right and b"data: [DONE]" in data
        if self._status is not None:
            is_right = is_right and self._status in data[:end]
        if not is_right:
            raise WrongReply(f"request {connection.number} got {data[: end + 300]!r}")
        return True


def _cpu(pid: int) -> float | None:
    """Seconds that all threads of a process have run."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
    except OSError:
        return None


def _difference(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before


def _machine() -> tuple[float, float] | None:
    """Seconds that all cores were busy, and seconds in all, since boot; stolen time counts as busy."""
    try:
        fields = [int(field) for field in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
    except OSError:
        return None
    return (sum(fields) - fields[3] - fields[4]) / 100, sum(fields) / 100


def _stranger_share(before: tuple[float, float] | None, after: tuple[float, float] | None, ours: float) -> float | None:
    if before is None or after is None or after[1] <= before[1]:
        return None
    return max(0.0, (after[0] - before[0] - ours) / (after[1] - before[1]))


def main() -> None:
    members: dict[str, Any] = orjson.loads(sys.stdin.buffer.read())
    members["pids"] = tuple(members["pids"])
    try:
        measured = Load(Order(**members)).run()
    except (WrongReply, OSError) as error:
        sys.exit(f"load: {error}")
    sys.stdout.buffer.write(orjson.dumps(asdict(measured)))


if __name__ == "__main__":
    main()
