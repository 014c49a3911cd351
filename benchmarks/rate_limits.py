"""How much of a provider's limit is used, and what a script sees of it: kdproxy, the official client alone, tenacity.

    python benchmarks/rate_limits.py                       # all, about two hours: the windows are real minutes
    python benchmarks/rate_limits.py --jobs 6              # the same, six measurements side by side
    python benchmarks/rate_limits.py --quick               # 200 requests, kdproxy alone, two scenarios: two minutes
    python benchmarks/rate_limits.py --scenario sliding --contender kdproxy --requests 600

A teacher process enforces the limit; 64 callers ask through the official `openai` client at its defaults. Each
measurement has processes of its own: callers, teacher, proxy. Goodput is what was answered over what the limit allows
at its steady rate in the time that it took. Rows are saved one by one; a later run into the same file replaces those
that it measures again.
"""

import argparse
import asyncio
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import openai
import orjson
import tenacity
from report import RESULTS, commit, is_dirty, machine
from rich.console import Console
from rich.table import Table

from kdproxy.testing.proxy import run_proxy_process
from kdproxy.testing.teacher import Enforcer, ScriptedTeacher

CALLERS = 64
LATENCY_SECONDS = 0.3
PER_MINUTE = 600
KNOWN_AFTER_SECONDS = 30.0

SCENARIOS: dict[str, dict[str, Any]] = {
    "fixed": {"window": "fixed"},
    "sliding": {"window": "sliding"},
    "bucket": {"window": "bucket"},
    "tokens": {"window": "sliding", "tokens_per_window": 60_000.0},
    "changing": {"window": "fixed", "change_after_seconds": 60.0, "change_factor": 0.5},
    "errors": {"window": "fixed", "error_share": 0.1},
    "neighbour": {"window": "fixed", "neighbour_share": 0.5},
    "bare": {"window": "fixed", "has_headers": False, "has_retry_after": False},
    "bare-sliding": {"window": "sliding", "has_headers": False, "has_retry_after": False},
}
QUICK = ("fixed", "bare")
GOALS = {"bare": (0.90, 0.05), "bare-sliding": (0.90, 0.05)}
"""Least goodput and most 429s, where not 0.97 and 0.01."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How one contender did in one scenario."""

    scenario: str
    contender: str
    answered: int
    failed: int
    seconds: float
    attempts: int
    refused: int
    refused_share: float
    refused_share_known: float
    """Of the attempts after half a minute, when limits are known."""
    goodput: float
    ended_at: str
    commit: str
    is_dirty: bool
    side_by_side: int
    """How many measurements ran at once."""


def main() -> int:
    options = _parser().parse_args()
    scenarios = options.scenario or list(QUICK if options.quick else SCENARIOS)
    contenders = options.contender or (["kdproxy"] if options.quick else list(CONTENDERS))
    requests = options.requests or (200 if options.quick else 2_000)
    if not options.quick and options.output is None:
        options.output = RESULTS / f"{time.strftime('%Y-%m-%d')}-rate-limits.json"
    pairs = [(scenario, contender) for contender in contenders for scenario in scenarios]
    rows = []
    for row in _rows(pairs, requests, options.jobs):
        rows.append(row)
        print(f"{row.scenario}, {row.contender}: {row.answered} in {row.seconds} s", file=sys.stderr, flush=True)
        if options.output is not None:
            _save(row, requests, options.output)
    _show(rows)
    return 0 if all(_is_met(row) for row in rows if row.contender == "kdproxy") else 1


def _rows(pairs: list[tuple[str, str]], requests: int, jobs: int) -> Iterator[Row]:
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        running = [pool.submit(_measure, *pair, requests, min(jobs, len(pairs))) for pair in pairs]
        for done in as_completed(running):
            yield done.result()


def _save(row: Row, requests: int, path: Path) -> None:
    members = orjson.loads(path.read_bytes()) if path.exists() else {"commands": [], "rows": []}
    command = " ".join(["python", "benchmarks/rate_limits.py", *sys.argv[1:]])
    kept = [each for each in members["rows"] if (each["scenario"], each["contender"]) != (row.scenario, row.contender)]
    members = {
        "machine": machine(Path(tempfile.gettempdir())),
        "commands": [*(each for each in members["commands"] if each != command), command],
        "requests": requests,
        "callers": CALLERS,
        "requests_per_minute": PER_MINUTE,
        "latency_seconds": LATENCY_SECONDS,
        "rows": sorted(
            [*kept, asdict(row)], key=lambda each: (list(SCENARIOS).index(each["scenario"]), each["contender"])
        ),
    }
    path.write_bytes(orjson.dumps(members, option=orjson.OPT_INDENT_2) + b"\n")


def _measure(scenario: str, contender: str, requests: int, side_by_side: int) -> Row:
    ours, theirs = multiprocessing.Pipe()
    teacher = multiprocessing.get_context("spawn").Process(target=_teach, args=(SCENARIOS[scenario], theirs))
    teacher.start()
    try:
        url = ours.recv()
        answered, failed, seconds = asyncio.run(CONTENDERS[contender](url, requests))
        ours.send("stop")
        counts = ours.recv()
    finally:
        teacher.terminate()
        teacher.join()
    attempts = counts["admitted"] + counts["refused"] + counts["failed"]
    late = sum(1 for at in counts["refused_at"] if at > KNOWN_AFTER_SECONDS)
    late_attempts = max(1.0, attempts * max(0.0, seconds - KNOWN_AFTER_SECONDS) / seconds)
    return Row(
        scenario=scenario,
        contender=contender,
        answered=answered,
        failed=failed,
        seconds=round(seconds, 1),
        attempts=attempts,
        refused=counts["refused"],
        refused_share=round(counts["refused"] / max(1, attempts), 4),
        refused_share_known=round(late / late_attempts, 4),
        goodput=round(answered / _allowed(SCENARIOS[scenario], seconds), 4),
        ended_at=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=commit(),
        is_dirty=is_dirty(),
        side_by_side=side_by_side,
    )


def _allowed(scenario: dict[str, Any], seconds: float) -> float:
    """Return what the limit allows at its steady rate; a token limit of ours allows as many as it has tokens for."""
    per_minute = float(PER_MINUTE)
    if "tokens_per_window" in scenario:
        per_minute = min(per_minute, scenario["tokens_per_window"] / TOKENS)
    per_minute *= 1 - scenario.get("neighbour_share", 0.0)
    change_at = scenario.get("change_after_seconds", seconds)
    before = min(seconds, change_at)
    return per_minute * (before + (seconds - before) * scenario.get("change_factor", 1.0)) / 60


# -- the teacher, in a process of its own ---------------------------------------------------------------------

ASK = "Explain in one sentence why the sky is blue on day number {number}, to a reader who likes physics."
MAX_TOKENS = 100
TOKENS = MAX_TOKENS + len(ASK) / 4


def _teach(scenario: dict[str, Any], pipe: Connection) -> None:
    async def teach() -> None:
        enforcer = Enforcer(**{"requests_per_window": float(PER_MINUTE), **scenario})
        async with ScriptedTeacher(latency_seconds=LATENCY_SECONDS, enforcer=enforcer, remember=False) as teacher:
            pipe.send(teacher.base_url)
            await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
            counts = {name: getattr(enforcer, name) for name in ("admitted", "refused", "failed", "refused_at")}
            pipe.send(counts)

    asyncio.run(teach())


# -- the contenders -------------------------------------------------------------------------------------------


Outcome = tuple[int, int, float]
"""Answered, failed, and seconds from the first question to the last answer."""


async def _callers(client: openai.AsyncOpenAI, requests: int, *, tenacious: bool = False) -> Outcome:
    numbers = iter(range(requests))
    answered = failed = 0

    async def ask(number: int) -> None:
        await client.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": ASK.format(number=number)}],
            max_tokens=MAX_TOKENS,
        )

    if tenacious:
        ask = tenacity.retry(
            wait=tenacity.wait_random_exponential(min=1, max=60), stop=tenacity.stop_after_attempt(6), reraise=True
        )(ask)

    async def caller() -> None:
        nonlocal answered, failed
        for number in numbers:
            try:
                await ask(number)
                answered += 1
            except openai.OpenAIError:
                failed += 1

    started = time.monotonic()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return answered, failed, time.monotonic() - started


async def _kdproxy(url: str, requests: int) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="kdproxy-bench-") as scratch:
        async with (
            run_proxy_process(url, Path(scratch) / "data") as proxy,
            openai.AsyncOpenAI(base_url=proxy.base_url, api_key="x") as client,
        ):
            return await _callers(client, requests)


async def _sdk(url: str, requests: int) -> Outcome:
    async with openai.AsyncOpenAI(base_url=url, api_key="x") as client:
        return await _callers(client, requests)


async def _tenacity(url: str, requests: int) -> Outcome:
    async with openai.AsyncOpenAI(base_url=url, api_key="x", max_retries=0) as client:
        return await _callers(client, requests, tenacious=True)


CONTENDERS = {"kdproxy": _kdproxy, "sdk": _sdk, "tenacity": _tenacity}


# -- what came out --------------------------------------------------------------------------------------------


def _is_met(row: Row) -> bool:
    goodput, refused = GOALS.get(row.scenario, (0.97, 0.01))
    return row.failed == 0 and row.goodput >= goodput and row.refused_share_known <= refused


def _show(rows: list[Row]) -> None:
    shown = Table(title=f"{PER_MINUTE} requests a minute, {LATENCY_SECONDS} s latency, {CALLERS} callers")
    for column in ("scenario", "contender"):
        shown.add_column(column)
    for column in ("answered", "failed", "seconds", "goodput", "attempts", "429s", "share", "share once known", "goal"):
        shown.add_column(column, justify="right")
    for row in rows:
        goal = "" if row.contender != "kdproxy" else "met" if _is_met(row) else "missed"
        shown.add_row(
            row.scenario,
            row.contender,
            str(row.answered),
            str(row.failed),
            f"{row.seconds:.0f}",
            f"{row.goodput:.1%}",
            str(row.attempts),
            str(row.refused),
            f"{row.refused_share:.2%}",
            f"{row.refused_share_known:.2%}",
            goal,
        )
    Console(width=None if sys.stdout.isatty() else 150).print(shown)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python benchmarks/rate_limits.py", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a look in two minutes; saves nothing")
    parser.add_argument("--scenario", action="append", choices=list(SCENARIOS), help="may be repeated; default: all")
    parser.add_argument("--contender", action="append", choices=list(CONTENDERS), help="may be repeated; default: all")
    parser.add_argument("--requests", type=int, help="how many; default: 2000")
    parser.add_argument("--jobs", type=int, default=1, help="how many measurements run side by side; default: 1")
    parser.add_argument("--output", type=Path, help="where to save the figures")
    return parser


if __name__ == "__main__":
    sys.exit(main())
