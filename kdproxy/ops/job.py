"""The jobs by name, for the command line and the proxy's own API."""

import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from kdproxy.errors import RequestRefused
from kdproxy.ops.context import JobContext, malformed
from kdproxy.ops.event import Events
from kdproxy.ops.export import ExportArguments, export
from kdproxy.ops.forget.withdraw import WithdrawArguments, withdraw
from kdproxy.ops.runs.change import RenameRunArguments, RewindRunArguments, rename_run, rewind_run
from kdproxy.ops.runs.show import ListRunsArguments, ShowRunArguments, list_runs, show_run
from kdproxy.ops.stats import StatsArguments, stats
from kdproxy.ops.verify import VerifyArguments, verify
from kdproxy.ops.warm.warm import WarmArguments, warm

A = TypeVar("A")

Arguments = (
    WarmArguments
    | ExportArguments
    | VerifyArguments
    | StatsArguments
    | WithdrawArguments
    | ListRunsArguments
    | ShowRunArguments
    | RewindRunArguments
    | RenameRunArguments
)


@dataclass(frozen=True, slots=True)
class Job:
    """A job: its arguments and its function."""

    arguments: type[Any]
    run: Callable[[JobContext, Any], Events]
    writes: bool
    """Whether it changes the archive; such jobs run one at a time."""


JOBS: Mapping[str, Job] = {
    "warm": Job(WarmArguments, warm, writes=True),
    "export": Job(ExportArguments, export, writes=False),
    "verify": Job(VerifyArguments, verify, writes=True),
    "stats": Job(StatsArguments, stats, writes=False),
    "withdraw": Job(WithdrawArguments, withdraw, writes=True),
    "list-runs": Job(ListRunsArguments, list_runs, writes=False),
    "show-run": Job(ShowRunArguments, show_run, writes=False),
    "rewind-run": Job(RewindRunArguments, rewind_run, writes=True),
    "rename-run": Job(RenameRunArguments, rename_run, writes=True),
}


def name_of(arguments: Arguments) -> str:
    """Return the name of the job that takes these arguments."""
    return next(name for name, job in JOBS.items() if job.arguments is type(arguments))


def start(context: JobContext, arguments: Arguments) -> Events:
    """Start a job; it works while its events are read."""
    return JOBS[name_of(arguments)].run(context, arguments)


def arguments_of(name: str, members: Any) -> Arguments:
    """Read a job's arguments from JSON.

    Raises:
        RequestRefused: the job does not exist, or the arguments do not match it.
    """
    job = JOBS.get(name)
    if job is None:
        raise RequestRefused(
            f"The job {name!r:.40} does not exist.",
            hint=f"Use one of: {', '.join(JOBS)}.",
            code="no_such_job",
            http_status=404,
        )
    if not isinstance(members, dict):
        raise malformed("the arguments are not a JSON object")
    hints = get_type_hints(job.arguments)
    unknown = members.keys() - hints.keys()
    if unknown:
        raise malformed(f"{min(unknown)!r:.40} is not an argument of {name}")
    values = {}
    for member, value in members.items():
        if isinstance(value, list):
            value = tuple(value)
        if not _fits(value, hints[member]):
            raise malformed(f"{member} has the wrong type")
        values[member] = value
    missing = {field.name for field in fields(job.arguments) if field.default is MISSING} - values.keys()
    if missing:
        raise malformed(f"{min(missing)} is missing")
    found: Arguments = job.arguments(**values)
    return found


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(hint, types.UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if get_origin(hint) is tuple:
        item = get_args(hint)[0]
        return isinstance(value, tuple) and all(isinstance(part, get_origin(item) or item) for part in value)
    return isinstance(value, hint)
