"""How long a job takes against one's own inference server: through kdproxy, over asking the server itself.

    python benchmarks/own_server.py                  # all, about half an hour
    python benchmarks/own_server.py --quick          # 64 callers, 300 requests, and virtual time: a minute
    python benchmarks/own_server.py --virtual        # virtual time alone: seconds

The server is a model of continuous batching (256 running, steps of 8 ms + 0.06 ms for each that runs, lognormal
lengths) or of slots with a line before them, in a process of its own; callers ask in a closed loop over real sockets.
Each pair is taken one after the other. Answers of 300 s, and deadlines, are measured in virtual time.
"""

import argparse
import asyncio
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import process
import report
from aiohttp import web
from figure import Figure, judged

from kdproxy.core.server_kind import Recognition, ServerKind
from kdproxy.testing.own_job import OWN, direct, through_us
from kdproxy.testing.own_server import CHAT, REASONING, Batching, Slots, lengths
from kdproxy.testing.proxy import run_proxy_process

SPREADS = {"chat": CHAT, "reasoning": REASONING}
JOBS = ((64, 1_000), (256, 2_000), (1_000, 4_000))
GOAL = 1.03
SLOTS_GOAL = 1.05


def main() -> int:
    options = _parser().parse_args()
    if options.serve is not None:
        _serve(options.serve)
        return 0
    started, figures = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="kdproxy-bench-") as scratch:
        real = () if options.virtual else _real(Path(scratch), is_quick=options.quick)
        for figure in itertools.chain(_virtual(), real):
            figures.append(figure)
            print(f"{figure.work}: {figure.ratio:.3f} x", file=sys.stderr, flush=True)
        report.table(figures, "One's own server: the time of a job through kdproxy, over asking the server itself")
        output = options.output
        if output is None and not (options.quick or options.virtual):
            output = report.RESULTS / f"{time.strftime('%Y-%m-%d')}-own-server.json"
        if output is not None:
            seconds = time.monotonic() - started
            report.save(figures, output, Path(scratch), is_quick=options.quick, seconds=seconds)
    return 0 if all(figure.ratio is not None and figure.verdict == "met" for figure in figures) else 1


def _figure(work: str, ours: float, theirs: float, *, goal: float = GOAL, is_met: bool = True, **data: Any) -> Figure:
    return Figure(
        work=work,
        goal=f"<= {goal} x",
        figure=f"{ours:.1f} s",
        reference=f"{theirs:.1f} s",
        ratio=ours / theirs,
        measurement="own_server",
        verdict=judged(is_met and ours <= goal * theirs),
        data=data,
    )


# -- virtual time ---------------------------------------------------------------------------------------------


def _virtual() -> Iterator[Figure]:
    for callers, count in JOBS:
        for name, spread in SPREADS.items():
            tokens = lengths(count, **spread)
            alone = direct(lambda: Batching().serve, callers, tokens)
            ours, server = through_us(lambda: Batching().serve, callers, tokens)
            yield _figure(
                f"virtual: {callers} callers, {name}", ours, alone, is_met=server.full_at <= 3.0, full_at=server.full_at
            )
    for seconds, deadline, kind in ((10.0, 600.0, ServerKind.VLLM), (10.0, 600.0, None), (300.0, 3_600.0, None)):
        tokens = [1] * 512
        alone = direct(lambda each=seconds: Slots(256, each).serve, 256, tokens)  # type: ignore[misc]
        ours, server = through_us(
            lambda each=seconds: Slots(256, each).serve,  # type: ignore[misc]
            256,
            tokens,
            deadline_seconds=deadline,
            found=None if kind is None else Recognition(kind),
        )
        what = "recognised" if kind else "not recognised"
        yield _figure(f"virtual: answers of {seconds:g} s, {what}", ours, alone, full_at=server.full_at)
    for slots in (1, 4):
        tokens = [1] * 600
        alone = direct(lambda each=slots: Slots(each, 2.0).serve, 256, tokens)  # type: ignore[misc]
        ours, server = through_us(
            lambda each=slots: Slots(each, 2.0).serve,  # type: ignore[misc]
            256,
            tokens,
            deadline_seconds=60.0,
            upstream=OWN._replace(billed=False),
        )
        work = f"virtual: {slots} slots, 256 callers, deadline 60 s"
        yield _figure(work, ours, alone, goal=SLOTS_GOAL, is_met=not server.timeouts, timeouts=server.timeouts)


# -- real sockets ---------------------------------------------------------------------------------------------


def _real(scratch: Path, *, is_quick: bool) -> Iterator[Figure]:
    jobs = ((64, 300),) if is_quick else JOBS
    for callers, count in jobs:
        for name, spread in SPREADS.items():
            for is_stream in (False, True) if callers == 64 else (False,):
                tokens = lengths(count, **spread)
                ours, theirs, data = _pair(scratch, "batching", callers, tokens, is_stream=is_stream)
                form = ", streams" if is_stream else ""
                yield _figure(f"{callers} callers, {name}{form}", ours, theirs, **data)
    for slots in () if is_quick else (1, 4):
        ours, theirs, data = _pair(scratch, f"slots-{slots}", 256, [1] * 400, is_stream=False)
        yield _figure(f"{slots} slots, 256 callers", ours, theirs, goal=SLOTS_GOAL, **data)


def _pair(
    scratch: Path, kind: str, callers: int, tokens: Sequence[int], *, is_stream: bool
) -> tuple[float, float, dict[str, Any]]:
    arguments = [str(Path(__file__).resolve()), "--serve", kind]
    with process.server(arguments, core=process.LOAD_CORE, log=scratch / "server.log") as server:
        theirs, _ = asyncio.run(_job(server.url, callers, tokens, is_stream=is_stream))
    with process.server(arguments, core=process.LOAD_CORE, log=scratch / "server.log") as server:
        ours, data = asyncio.run(_through(server.url, callers, tokens, is_stream=is_stream))
    return ours, theirs, data


async def _through(url: str, callers: int, tokens: Sequence[int], *, is_stream: bool) -> tuple[float, dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="kdproxy-bench-") as directory:
        async with run_proxy_process(url, Path(directory)) as proxy:
            return await _job(proxy.address, callers, tokens, is_stream=is_stream)


async def _job(url: str, callers: int, tokens: Sequence[int], *, is_stream: bool) -> tuple[float, dict[str, Any]]:
    left, failed = enumerate(tokens), 0
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:

        async def caller() -> None:
            nonlocal failed
            for number, count in left:
                body = {
                    "model": "m",
                    "messages": [{"role": "user", "content": f"Question {number}"}],
                    "max_tokens": count,
                    "stream": is_stream,
                }
                async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
                    await answer.read()
                    failed += answer.status != 200

        started = time.monotonic()
        await asyncio.gather(*(caller() for _ in range(callers)))
        seconds = time.monotonic() - started
    if failed:
        raise process.BenchmarkFailed(f"{failed} of {len(tokens)} requests failed")
    return seconds, {"callers": callers, "requests": len(tokens)}


# -- the server, in a process of its own ----------------------------------------------------------------------


def _serve(kind: str) -> None:
    asyncio.run(_listen(kind))


async def _listen(kind: str) -> None:
    model = Batching() if kind == "batching" else Slots(int(kind.partition("-")[2]), 0.5)

    async def answer(request: web.Request) -> web.StreamResponse:
        asked = await request.json(loads=orjson.loads)
        if not asked["stream"]:
            await model.serve(asked["max_tokens"])
            return web.Response(body=_WHOLE, content_type="application/json")
        streamed = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await streamed.prepare(request)
        await streamed.write(_event({"role": "assistant", "content": "Yes"}, None))
        await model.serve(asked["max_tokens"])
        await streamed.write(_event({"content": "."}, "stop") + b"data: [DONE]\n\n")
        return streamed

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=2_048)
    await site.start()
    host, port = runner.addresses[0][:2]
    print(f"listening on http://{host}:{port}", flush=True)
    await asyncio.Event().wait()


_HEAD = {"id": "chatcmpl-1", "created": 1, "model": "m"}
_WHOLE = orjson.dumps(
    {
        **_HEAD,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }
)


def _event(delta: dict[str, Any], reason: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return b"data: " + orjson.dumps({**_HEAD, "object": "chat.completion.chunk", "choices": [choice]}) + b"\n\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--virtual", action="store_true")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
