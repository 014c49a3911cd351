"""What the experiment database keeps of a run. docs/formats/registry.md."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainhooks.errors import TrainhooksError

RUNNING = "running"
INTERRUPTED = "interrupted"
"""An attempt that ended without saying so: killed, out of memory, a power cut."""
_SHORT = 8
_CUT_OFF = "cut off"
"""What session.json calls it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSummary:
    """One metric of a run under its standard name. Values that are not numbers (NaN) count as not measured."""

    name: str
    best: float | None
    """The least; of what rises (an accuracy, by its name) the greatest: see `core/direction.py`."""
    last: float | None
    rows: int
    """In how many steps it was measured; steps done again count once."""
    step: int | None = None
    """The highest of these steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownCheckpoint:
    """One checkpoint of a run."""

    path: str
    step: int | None = None
    created_at: float | None = None
    """UTC Unix seconds."""
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One attempt at a run: a resume is a new session of the same run. Times are UTC Unix seconds."""

    attempt: int
    started_at: float | None = None
    ended_at: float | None = None
    status: str | None = None
    """`running`, `interrupted`, or how it ended: `closed`, `failed: ERROR`, `preempted: SIGNAL`, `not started`."""
    step: int | None = None
    """Finished steps when it ended."""
    pid: int | None = None
    host: str | None = None
    seen_at: float | None = None
    """When it last wrote to the database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run as the database knows it."""

    run_id: str
    origin: str | None
    """The run that this one was recovered from."""
    name: str = ""
    directory: str
    config: Mapping[str, Any]
    created_at: float
    total_steps: int | None = None
    metrics: tuple[MetricSummary, ...] = ()
    tags: tuple[str, ...] = ()
    checkpoints: tuple[KnownCheckpoint, ...] = ()
    sessions: tuple[Session, ...] = ()


def run_name(config: Mapping[str, Any], folder: str, run_id: str) -> str:
    """Return what a run is called: as its configuration says, else after its folder."""
    return str(config.get("run_name") or config.get("name") or f"{folder}-{run_id[:8]}")


def tags_of(config: Mapping[str, Any], of_checkpoints: Iterable[str]) -> tuple[str, ...]:
    """Return a run's tags: its configuration's `tags` and those of its checkpoints."""
    own = config.get("tags")
    own = (own,) if isinstance(own, str) else own if isinstance(own, list | tuple) else ()
    return tuple(sorted({str(tag) for tag in (*own, *of_checkpoints)}))


def sessions_of(attempts: Iterable[Mapping[str, Any]], *, running: int | None) -> tuple[Session, ...]:
    """Return the attempts of a session.json, of which `running` is the number of the one that still runs."""
    return tuple(
        Session(
            attempt=each["attempt"],
            started_at=each.get("started_at"),
            ended_at=each.get("ended_at"),
            status=_status(each.get("end"), is_running=each["attempt"] == running),
            step=each.get("step"),
            pid=each.get("pid"),
            host=each.get("host"),
        )
        for each in attempts
    )


def _status(end: str | None, *, is_running: bool) -> str:
    if end is None:
        return RUNNING if is_running else INTERRUPTED
    return INTERRUPTED if end == _CUT_OFF else end


def pick(runs: Sequence[Run], wanted: str) -> Run:
    """Return the run that is meant by an id, the beginning of one, or a name.

    Raises:
        TrainhooksError: no run matches, or more than one.
    """
    own = [run for run in runs if run.origin is None]
    for found in (
        [run for run in runs if run.run_id == wanted],
        [run for run in own if run.name == wanted],
        [run for run in own if run.run_id.startswith(wanted)],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            raise TrainhooksError(
                f"{wanted} may be each of {', '.join(run.run_id for run in found)}.",
                hint="Give a whole id.",
                code="run_ambiguous",
            )
    raise TrainhooksError(
        f"No run is called {wanted}.",
        hint="`trainhooks sessions list` names all in this database; --database names another one.",
        code="run_not_found",
    )


def short_id(runs: Sequence[Run], run: Run) -> str:
    """Return the shortest beginning of a run's id, of 8 characters or more, by which `pick` finds it."""
    for length in range(_SHORT, len(run.run_id)):
        start = run.run_id[:length]
        others = (other for other in runs if other is not run and other.origin is None)
        if run.origin is None and not any(other.run_id.startswith(start) or other.name == start for other in others):
            return start
    return run.run_id


def best_of(run: Run, name: str) -> float | None:
    """Return the best value of a metric, if it was measured."""
    return next((each.best for each in run.metrics if each.name == name), None)
