"""`runs list` and `runs show`: attempts, their samples, what was never read, and what a run has bought."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdproxy.core.models import LineName
from kdproxy.core.run_history import History, Sample
from kdproxy.core.run_list import OpenedAttempt, Run
from kdproxy.ops.context import JobContext
from kdproxy.ops.event import Events, Result
from kdproxy.ops.runs.bill import Bill, read_bill

MOST_LISTED = 1_000
"""Samples that are listed one by one; all are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListRunsArguments:
    """`runs list` takes no arguments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShowRunArguments:
    """The arguments of `runs show`."""

    run: str
    bill: bool = True
    """Read both logs for what the run has bought."""


def list_runs(context: JobContext, arguments: ListRunsArguments) -> Events:
    """Return all runs, the latest last."""
    runs = sorted(context.library.run_list().runs.values(), key=lambda run: run.attempts[-1].opened_at)
    used = context.library.run_history([each.name for run in runs for each in run.attempts]).deliveries()
    yield Result({"runs": [_row(run, used) for run in runs]})


def _row(run: Run, used: dict[LineName, int]) -> dict[str, Any]:
    return {
        "run": run.label,
        "attempts": len(run.attempts),
        "last_attempt": run.attempts[-1].token,
        "opened_at": run.attempts[0].opened_at,
        "last_opened_at": run.attempts[-1].opened_at,
        "used": sum(used.get(each.name, 0) for each in run.attempts),
        "used_in_last_attempt": used.get(run.attempts[-1].name, 0),
    }


def show_run(context: JobContext, arguments: ShowRunArguments) -> Events:
    """Return one run."""
    run = context.library.run_list().known(arguments.run)
    history = context.library.run_history([each.name for each in run.attempts])
    attempts, unread = [], []
    for attempt in run.attempts:
        lost = history.unread(attempt.name)
        attempts.append(_attempt(attempt, history, lost))
        unread += [
            {"attempt": attempt.token, "key": sample.key, "ordinal": sample.ordinal, "was_reset": was_reset}
            for sample, was_reset in lost.items()
        ]
    bought = None
    if arguments.bill:
        bill = Bill()
        yield from read_bill(context.library, run.run_id, bill)
        bought = bill.as_dict()
    yield Result(
        {
            "run": run.label,
            "run_id": str(run.run_id),
            "attempts": attempts,
            "unread": unread[-MOST_LISTED:],
            "unread_samples": len(unread),
            "bought": bought,
        }
    )


def _attempt(attempt: OpenedAttempt, history: History, lost: Mapping[Sample, bool]) -> dict[str, Any]:
    scopes = history.used_by_scope(attempt.name)
    return {
        "attempt": attempt.token,
        "name": str(attempt.name),
        "opened_at": attempt.opened_at,
        "used": sum(scopes.values()),
        "used_by_scope": dict(sorted(scopes.items())),
        "unread": len(lost),
    }
