"""The measurements, one function each. Reference and candidates take turns within one run, and ratios are of pairs."""

import importlib.util
import itertools
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import orjson
import work
from figure import Figure, judged, middle
from fill import URL as NOWHERE
from load import Measured, Order
from process import (
    HERE,
    LOAD_CORE,
    SERVER_CORE,
    BenchmarkFailed,
    Server,
    free_port,
    memory,
    run,
    run_load,
    server,
    spawn,
    stop,
)
from rows import KDPROXY, added_rows, cpu_rows, latency_rows, rate_rows

MAX_STRANGER_SHARE = 0.12
REPEATS_END_SECONDS = 480.0
"""After this long nothing is measured twice any more: a whole run takes less than 20 minutes on a busy machine, too."""
TEACHER_MILLISECONDS = 20
_BARE, _RELAY, _DIRECT, _STOCK = "bare", "relay", "direct", "kdproxy on asyncio's loop"
_HIT, _STORED = "kdproxy; hit", "; stored"


@dataclass(slots=True)
class Bench:
    """One run of the benchmarks."""

    scratch: Path
    is_quick: bool
    has_uvloop: bool = field(default_factory=lambda: importlib.util.find_spec("uvloop") is not None)
    began: float = field(default_factory=time.monotonic)
    _next_number: int = 10_000_000
    _filled: dict[int, Path] = field(default_factory=dict)

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.began

    @property
    def seconds(self) -> float:
        """Length of a window."""
        return 1.0 if self.is_quick else 3.0

    @property
    def rounds(self) -> int:
        """Pairs to take."""
        return 2 if self.is_quick else 5

    @property
    def entries(self) -> int:
        """How many entries a large directory has."""
        return 10_000 if self.is_quick else 100_000

    @property
    def log(self) -> Path:
        """Where processes say what they have to say."""
        return self.scratch / "stderr.log"

    def numbers(self, count: int) -> int:
        """Return the first of so many numbers that nobody asked yet."""
        first, self._next_number = self._next_number, self._next_number + count
        return first

    def filled(self, entries: int) -> Path:
        """Return a data directory with numbered answers, made when first asked for."""
        if entries not in self._filled:
            directory = self.scratch / f"filled-{entries}"
            run([str(HERE / "fill.py"), str(directory), str(entries)], SERVER_CORE, self.log)
            self._filled[entries] = directory
        return self._filled[entries]

    def fresh(self) -> Path:
        """Return a data directory that is not there yet."""
        return self.scratch / f"data-{self.numbers(1)}"

    @property
    def candidates(self) -> tuple[str, ...]:
        """What is held against the reference: the proxy as a user runs it, and on the baselines' loop."""
        return (KDPROXY, _STOCK) if self.has_uvloop else (KDPROXY,)

    def kdproxy(self, name: str, data: Path, upstream: str = NOWHERE, port: int = 0) -> list[str]:
        """Return the arguments that start the proxy."""
        start = [str(HERE / "servers.py"), "stock"] if name == _STOCK else ["-m", "kdproxy"]
        return [*start, *serving(data, upstream, port)]

    @contextmanager
    def running(self, name: str, data: Path, upstream: str = NOWHERE) -> Iterator[Server]:
        """Run a proxy."""
        with server(self.kdproxy(name, data, upstream), core=SERVER_CORE, log=self.log) as running:
            yield running

    @contextmanager
    def other(self, role: str, *arguments: str, core: int | None = SERVER_CORE) -> Iterator[Server]:
        """Run a baseline or the teacher."""
        with server([str(HERE / "servers.py"), role, *arguments], core=core, log=self.log) as running:
            yield running

    def load(self, order: Order) -> Measured:
        """Measure a window; once more if others took too much of the machine meanwhile."""
        measured = run_load(order, self.log)
        is_late = self.elapsed > REPEATS_END_SECONDS
        if self.is_quick or is_late or (measured.stranger_share or 0.0) <= MAX_STRANGER_SHARE:
            return measured
        if order.distinct is None:
            order = replace(order, first=measured.next_number)
        again = run_load(order, self.log)
        return min(measured, again, key=lambda taken: taken.stranger_share or 0.0)

    def take_turns(self, orders: dict[str, Callable[[], Order]]) -> dict[str, list[Measured]]:
        """Measure each order once a round; every other round goes backwards."""
        taken: dict[str, list[Measured]] = {name: [] for name in orders}
        for turn in range(self.rounds):
            names = list(orders) if turn % 2 == 0 else list(reversed(orders))
            for name in names:
                taken[name].append(self.load(orders[name]()))
        return taken


def serving(data: Path, upstream: str, port: int = 0) -> list[str]:
    """Return the command line of `kdproxy serve`."""
    base = upstream if upstream.endswith("/v1") else f"{upstream}/v1"
    return ["serve", "--port", str(port), "--data-dir", str(data), "--upstream", f"{work.UPSTREAM}={base}"]


# -- hits --------------------------------------------------------------------------------------------------------------


def hit_memory(bench: Bench) -> list[Figure]:
    """Answers that lie in memory, 64 connections."""
    return _hits(bench, connections=64, goal=1.0)


def hit_latency(bench: Bench) -> list[Figure]:
    """Answers that lie in memory, one connection."""
    return _hits(bench, connections=1, goal=1.2)


def _hits(bench: Bench, *, connections: int, goal: float) -> list[Figure]:
    distinct = 1_000
    with ExitStack() as stack:
        bare = stack.enter_context(bench.other(_BARE))
        base = Order(url=bare.url, connections=connections, seconds=bench.seconds, warm_count=200, pids=(bare.pid,))
        orders = {_BARE: _always(replace(base, is_echo=False))}
        for name in bench.candidates:
            # Two processes may not share a directory, so each has its own.
            data = _copy(bench, bench.filled(distinct))
            running = stack.enter_context(bench.running(name, data))
            order = replace(base, url=running.url, pids=(running.pid,), distinct=distinct, cache_status=_HIT)
            orders[name] = _always(replace(order, warm_count=distinct * 2))
        taken = bench.take_turns(orders)
    if connections == 1:
        return latency_rows("hit, one connection, p50", taken, _BARE, goal)
    return rate_rows("hit, in memory, 64 connections", taken, _BARE, goal)


def hit_run(bench: Bench) -> list[Figure]:
    """Sampled questions, answered from memory: within an attempt of a run against without one, 64 connections."""
    distinct = 1_000 if bench.is_quick else 10_000
    plain, scoped = "without a run", KDPROXY
    with bench.other("teacher") as teacher, bench.running(KDPROXY, bench.fresh(), teacher.url) as running:
        base = Order(url=running.url, connections=64, count=distinct, distinct=distinct, temperature=1)
        for _ in range(3):  # bought, then read for the second time: from then on they lie in memory
            bench.load(base)
        base = replace(base, pids=(running.pid,), cache_status=_HIT)
        attempts = itertools.count()
        orders = {
            plain: _always(base),
            scoped: lambda: replace(base, place=f"/runs/bench/attempts/{next(attempts)}"),
        }
        taken = bench.take_turns(orders)
    return cpu_rows("hit within a run, in memory, 64 connections", taken, plain, 1.2)


def hit_disk(bench: Bench) -> list[Figure]:
    """Each key asked once of a process that has just started: its memory is cold, the system's page cache is warm."""
    data, entries = bench.filled(bench.entries), bench.entries
    taken: dict[str, list[Measured]] = {name: [] for name in (_BARE, *bench.candidates)}
    with bench.other(_BARE) as bare:
        base = Order(url=bare.url, connections=64, warm_count=200, pids=(bare.pid,))
        for turn in range(bench.rounds if bench.is_quick else 3):
            names = list(taken) if turn % 2 == 0 else list(reversed(taken))
            for name in names:
                if name == _BARE:
                    taken[name].append(bench.load(replace(base, seconds=bench.seconds, is_echo=False)))
                    continue
                _read_through(data)
                with bench.running(name, data) as running:
                    order = replace(base, url=running.url, pids=(running.pid,), warm_count=0, count=entries)
                    taken[name].append(
                        run_load(replace(order, distinct=entries, is_shuffled=True, cache_status=_HIT), bench.log)
                    )
    return rate_rows(f"hit, on disk, {entries:,} distinct keys", taken, _BARE, 0.7)


def _read_through(directory: Path) -> None:
    """Fill the page cache, which some machines empty on their own: the disk is not what is measured."""
    for path in directory.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                while file.read(1 << 20):
                    pass


# -- misses ------------------------------------------------------------------------------------------------------------


def miss_latency(bench: Bench) -> list[Figure]:
    """Bought, durable, one connection, a teacher that answers at once."""
    taken = _misses(bench, connections=1, teacher=())
    return added_rows("miss, durable, one connection, p50", taken, _RELAY, "p50", goal_ms=1.0)


def miss_rate(bench: Bench) -> list[Figure]:
    """Bought, durable, 64 connections, a teacher that takes its time."""
    taken = _misses(bench, connections=64, teacher=("--latency-ms", str(TEACHER_MILLISECONDS)))
    return rate_rows(f"miss, durable, 64 connections, {TEACHER_MILLISECONDS} ms teacher", taken, _RELAY, 0.85)


def stream(bench: Bench) -> list[Figure]:
    """First token of a stream, an event each 2 ms, every question new; and the first byte of its body.

    The first event is a role. It waits for the token behind it, so that an error before that can be tried again: the
    first byte comes an event later than it was sent, and the first token as soon as it can.
    """
    taken = _misses(bench, connections=1, teacher=("--event-ms", "2"), is_stream=True)
    rows = added_rows("stream, first token, p50", taken, _DIRECT, "first_token_p50", goal_ms=1.0)
    rows += added_rows("stream, first byte, p50", taken, _DIRECT, "first_byte_p50", goal_ms=None)
    # What any proxy on these libraries adds is in the goal's figure; this one is ours alone.
    pair = {KDPROXY: taken[KDPROXY], _RELAY: taken[_RELAY]}
    return rows + added_rows("  (kdproxy above the bare relay)", pair, _RELAY, "first_token_p50", goal_ms=None)


def _misses(
    bench: Bench, *, connections: int, teacher: tuple[str, ...], is_stream: bool = False
) -> dict[str, list[Measured]]:
    # A stream is stored once its head is out: that it was, hits after it would show, not this header.
    status = None if is_stream else _STORED

    def new(order: Order) -> Callable[[], Order]:
        return lambda: replace(order, first=bench.numbers(1_000_000))

    with ExitStack() as stack:
        upstream = stack.enter_context(bench.other("teacher", *teacher, core=LOAD_CORE))
        relay = stack.enter_context(bench.other(_RELAY, "--upstream", upstream.url))
        base = Order(url=relay.url, connections=connections, seconds=bench.seconds, warm_count=200, is_stream=is_stream)
        orders = {}
        if is_stream:
            orders[_DIRECT] = new(replace(base, url=upstream.url, pids=(upstream.pid,)))
        for name in bench.candidates:
            running = stack.enter_context(bench.running(name, bench.fresh(), upstream.url))
            orders[name] = new(replace(base, url=running.url, pids=(running.pid,), cache_status=status))
        orders[_RELAY] = new(replace(base, pids=(relay.pid,)))
        return bench.take_turns(orders)


# -- jobs and footprint ------------------------------------------------------------------------------------------------


def warm(bench: Bench) -> list[Figure]:
    """`kdproxy warm` on training rows of 3 KB, the command's start included."""
    count = bench.entries
    source = bench.scratch / "rows.jsonl"
    with source.open("wb") as file:
        for number in range(count):
            file.write(_row(number))
    command = ["-m", "kdproxy", "warm", str(source), "--data-dir", str(bench.fresh())]
    command += ["--upstream", f"{work.UPSTREAM}={NOWHERE}"]
    began = time.perf_counter()
    run(command, SERVER_CORE, bench.log)
    rate = count / (time.perf_counter() - began)
    source.unlink()
    return [
        Figure(
            work=f"`warm`, {count:,} rows of 3 KB",
            goal=">= 8,000 rows/s",
            figure=f"{rate:,.0f} rows/s",
            verdict=judged(rate >= 8_000),
            data={"rows": count, "rows_per_second": rate},
        )
    ]


def _row(number: int) -> bytes:
    prompt, response = work.request_body().fill(number).decode(), work.reply_body().fill(number).decode()
    row = {"prompt": prompt, "response": response, "model": work.MODEL, "step": number, "note": ""}
    row["note"] = "-" * (3_000 - len(orjson.dumps(row)) - 1)
    return orjson.dumps(row) + b"\n"


def start(bench: Bench) -> list[Figure]:
    """From the command to the first hit, and the memory of a proxy that idles afterwards."""
    data, entries = bench.filled(bench.entries), bench.entries
    seconds: list[float] = []
    idle: list[dict[str, float]] = []
    for number in range(bench.rounds):
        port = free_port()
        began = time.perf_counter()
        process = spawn(bench.kdproxy(KDPROXY, data, port=port), SERVER_CORE, bench.log)
        try:
            _first_hit(port, number)
            seconds.append(time.perf_counter() - began)
            time.sleep(0.5)  # what it still does after its start is done then
            idle.append(memory(process.pid))
        finally:
            stop(process)
    rows = [
        Figure(
            work=f"start to first hit, {entries:,} entries",
            goal="<= 1 s",
            figure=f"{middle(seconds):.2f} s",
            verdict=judged(middle(seconds) <= 1.0),
            data={"entries": entries, "seconds": seconds},
        )
    ]
    if all("rss_mb" in found for found in idle):
        rss = middle([found["rss_mb"] for found in idle])
        pss = [found["pss_mb"] for found in idle if "pss_mb" in found]
        rows.append(
            Figure(
                work=f"idle memory, {entries:,} entries",
                goal="<= 80 MB",
                figure=f"{rss:.0f} MB" + (f" (PSS {middle(pss):.0f})" if pss else ""),
                verdict=judged(rss <= 80.0),
                data={"entries": entries, "idle": idle},
            )
        )
    return rows


def _first_hit(port: int, number: int) -> None:
    deadline = time.monotonic() + 60.0
    while True:
        try:
            sock = socket.create_connection(("127.0.0.1", port), timeout=10.0)
            break
        except ConnectionRefusedError as error:
            if time.monotonic() > deadline:
                raise BenchmarkFailed("the proxy did not start") from error
            time.sleep(0.002)
    with sock:
        sock.sendall(work.request(f"127.0.0.1:{port}").fill(number))
        reply = b""
        while work.number_text(number) not in reply:
            chunk = sock.recv(65_536)
            assert chunk, reply
            reply += chunk
    assert _HIT.encode() in reply, reply


def _always(order: Order) -> Callable[[], Order]:
    return lambda: order


def _copy(bench: Bench, directory: Path) -> Path:
    return Path(shutil.copytree(directory, bench.fresh()))


MEASUREMENTS: dict[str, Callable[[Bench], list[Figure]]] = {
    "hit-memory": hit_memory,
    "hit-run": hit_run,
    "hit-disk": hit_disk,
    "hit-latency": hit_latency,
    "miss-latency": miss_latency,
    "miss-rate": miss_rate,
    "stream": stream,
    "warm": warm,
    "start": start,
}
