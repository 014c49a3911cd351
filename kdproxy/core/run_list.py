"""The runs of a data directory and their attempts, as the events log has them. Pure; kept in the index."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kdproxy.core.models import DEFAULT_NAMESPACE, LineName
from kdproxy.core.record import name_from
from kdproxy.core.run_event import Opened, RunEvent, RunRenamed


class OpenedAttempt(NamedTuple):
    """One attempt of a run."""

    name: LineName
    """Of its `opened` line."""
    token: str
    opened_at: float
    """UTC Unix seconds."""


@dataclass(slots=True)
class Run:
    """A run: its attempts, in the order in which they were opened."""

    run_id: LineName
    label: str
    namespace: str = DEFAULT_NAMESPACE
    attempts: list[OpenedAttempt] = field(default_factory=list)

    def attempt(self, token: str | None) -> OpenedAttempt | None:
        """Return the latest attempt of a token, or of any (None)."""
        return next((each for each in reversed(self.attempts) if token is None or each.token == token), None)

    def next_token(self) -> str:
        """Return a token that no attempt has: the number of the next attempt."""
        number = len(self.attempts) + 1
        while self.attempt(str(number)) is not None:
            number += 1
        return str(number)


class RunList:
    """All runs, by id."""

    def __init__(self) -> None:
        self.runs: dict[LineName, Run] = {}

    def take(self, event: RunEvent, name: LineName) -> None:
        """Take an event; one that was taken before changes nothing."""
        match event:
            case Opened():
                run_id = event.run_id or name
                run = self.runs.get(run_id)
                if run is None:
                    run = self.runs[run_id] = Run(run_id, event.run, event.namespace)
                if all(each.name != name for each in run.attempts):
                    run.attempts.append(OpenedAttempt(name, event.token, event.opened_at))
            case RunRenamed(run_id=run_id) if run_id in self.runs:
                self.runs[run_id].label = event.run

    def find(self, label: str, namespace: str = DEFAULT_NAMESPACE) -> Run | None:
        """Return the latest run of a label, or None."""
        return next(
            (run for run in reversed(self.runs.values()) if run.label == label and run.namespace == namespace), None
        )

    def of_attempt(self, name: LineName) -> Run | None:
        """Return the run that an attempt belongs to, or None."""
        return next((run for run in self.runs.values() if any(each.name == name for each in run.attempts)), None)

    def dump(self) -> list[Any]:
        """Return what `load` reads."""
        return [
            [str(run.run_id), run.label, run.namespace, [[str(each.name), *each[1:]] for each in run.attempts]]
            for run in self.runs.values()
        ]

    @classmethod
    def load(cls, rows: list[Any]) -> "RunList":
        """Read what `dump` wrote. Raises TypeError or ValueError."""
        found = cls()
        for run_id, label, namespace, attempts in rows:
            name = name_from(run_id)
            rows_of = [OpenedAttempt(name_from(each), str(token), float(at)) for each, token, at in attempts]
            found.runs[name] = Run(name, str(label), str(namespace), rows_of)
        return found

    def copy(self) -> "RunList":
        """Return an independent copy."""
        return self.load(self.dump())
