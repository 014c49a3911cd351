"""Run the teacher as a process: `python -m kdproxy.testing.teacher --port 9000`."""

import argparse
import asyncio
import contextlib
import signal
import sys

from kdproxy.testing.teacher.server import ScriptedTeacher


def main() -> None:
    options = _parser().parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m kdproxy.testing.teacher", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (0: any free one)")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="wait before each answer")
    parser.add_argument("--event-ms", type=float, default=0.0, help="wait before each event of a stream")
    parser.add_argument("--rpm", type=int, help="requests per minute, 429 above it")
    parser.add_argument("--words", type=int, default=10, help="length of an answer")
    parser.add_argument("--deterministic", action="store_true", help="answers depend on the request alone")
    parser.add_argument("--constant", action="store_true", help="the same 1.5 KB to every chat question")
    parser.add_argument("--no-credentials", action="store_true", help="answer calls without an API key too")
    return parser


async def _serve(options: argparse.Namespace) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    teacher = ScriptedTeacher(
        port=options.port,
        latency_seconds=options.latency_ms / 1000,
        seconds_per_event=options.event_ms / 1000,
        deterministic=options.deterministic,
        require_credentials=not options.no_credentials,
        requests_per_minute=options.rpm,
        answer_words=options.words,
        constant=options.constant,
        remember=False,
    )
    async with teacher:
        sys.stdout.write(f"teacher listening on {teacher.base_url}\n")
        sys.stdout.flush()
        await stopped.wait()


if __name__ == "__main__":
    main()
