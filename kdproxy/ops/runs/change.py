"""`runs rewind` and `runs rename`. A change is made by the one `Runs` of the directory, on its own event loop."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from kdproxy.core.models import DEFAULT_NAMESPACE
from kdproxy.core.ports import Clock, RunLog
from kdproxy.core.run_history import Sample
from kdproxy.engine.rewind import Back, rewind
from kdproxy.engine.runs import Runs
from kdproxy.ops.context import JobContext, OnRuns, malformed
from kdproxy.ops.event import Events, Result

T = TypeVar("T")

MOST_LISTED = 1_000
"""Samples that are listed one by one; all are counted."""
CHANGE_SECONDS = 120.0
"""How long a change of a running proxy may take: the history of its run may have to be read first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewindRunArguments:
    """The arguments of `runs rewind`; one of `unread`, `last` and `to` is given."""

    run: str
    attempt: str | None = None
    """Its token; None: the last one."""
    unread: bool = False
    last: int | None = None
    to: str | None = None
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameRunArguments:
    """The arguments of `runs rename`."""

    run: str
    new: str


def runs_at_work(runs: Runs) -> OnRuns:
    """Return what changes the runs of a proxy, from another thread. Call it on the proxy's event loop."""
    loop = asyncio.get_running_loop()

    def on_runs(change: Callable[[Runs], Coroutine[Any, Any, T]]) -> T:
        return asyncio.run_coroutine_threadsafe(change(runs), loop).result(CHANGE_SECONDS)

    return on_runs


def runs_at_rest(run_log: RunLog, clock: Clock) -> OnRuns:
    """Return what changes the runs of a directory that no proxy owns."""

    def on_runs(change: Callable[[Runs], Coroutine[Any, Any, T]]) -> T:
        return asyncio.run(change(Runs(run_log, clock)))

    return on_runs


def rewind_run(context: JobContext, arguments: RewindRunArguments) -> Events:
    """Give samples back, or say which would be."""
    back = Back(unread=arguments.unread, last=arguments.last, cursor=arguments.to)
    if arguments.unread + (arguments.last is not None) + (arguments.to is not None) != 1:
        raise malformed("give one of unread, last and to")
    token, samples = context.on_runs(
        lambda runs: rewind(runs, arguments.run, arguments.attempt, back, is_dry_run=arguments.dry_run)
    )
    listed = samples[-MOST_LISTED:]
    stored = {key: context.library.samples_of(DEFAULT_NAMESPACE, key) for key in {sample.key for sample in samples}}
    yield Result(
        {
            "run": arguments.run,
            "attempt": token,
            "samples": [_members(sample, stored) for sample in listed],
            "given_back": len(samples),
            "stored": sum(sample.ordinal in stored[sample.key] for sample in samples),
            "is_dry_run": arguments.dry_run,
        }
    )


def _members(sample: Sample, stored: dict[str, frozenset[int]]) -> dict[str, Any]:
    return {"key": sample.key, "ordinal": sample.ordinal, "is_stored": sample.ordinal in stored[sample.key]}


def rename_run(context: JobContext, arguments: RenameRunArguments) -> Events:
    """Give a run another name."""
    run = context.on_runs(lambda runs: runs.rename(arguments.run, arguments.new))
    yield Result({"run": run.label, "was": arguments.run, "attempts": len(run.attempts)})
