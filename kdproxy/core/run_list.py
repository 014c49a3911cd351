"""The runs of a data directory and their attempts, as the events log has them. Pure; kept in the index."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

import orjson

from kdproxy.core.models import DEFAULT_NAMESPACE, LineName
from kdproxy.core.record import name_from
from kdproxy.core.run_event import Opened, RunEvent, RunRenamed
from kdproxy.errors import RequestRefused


class OpenedAttempt(NamedTuple):
    """One attempt of a run."""

    name: LineName
    """Of its `opened` line."""
    token: str
    opened_at: float
    """UTC Unix seconds."""


class Run(NamedTuple):
    """A run: its attempts, in the order in which they were opened. It never changes: an event makes another one."""

    run_id: LineName
    label: str
    namespace: str = DEFAULT_NAMESPACE
    attempts: tuple[OpenedAttempt, ...] = ()

    def attempt(self, token: str | None) -> OpenedAttempt | None:
        """Return the latest attempt of a token, or of any (None)."""
        return next((each for each in reversed(self.attempts) if token is None or each.token == token), None)

    def known_attempt(self, token: str | None) -> OpenedAttempt:
        """Return the same. Raises RequestRefused: there is none."""
        found = self.attempt(token)
        if found is None:
            what = "no attempt" if token is None else f"no attempt {token!r}"
            raise RequestRefused(
                f"The run {self.label!r} has {what}.{_near(token, [each.token for each in self.attempts])}",
                hint="`kdproxy runs show NAME` lists its attempts.",
                code="unknown_attempt",
                http_status=404,
            )
        return found

    def next_token(self) -> str:
        """Return a token that no attempt has: the number of the next attempt."""
        number = len(self.attempts) + 1
        while self.attempt(str(number)) is not None:
            number += 1
        return str(number)


class RunList:
    """All runs, by id. Each index transaction makes a copy and a dump, which cost nothing while nothing changes."""

    def __init__(self, runs: dict[LineName, Run] | None = None) -> None:
        """Take runs over."""
        self.runs: dict[LineName, Run] = {} if runs is None else runs
        self._run_of: dict[LineName, LineName] = {
            each.name: run.run_id for run in self.runs.values() for each in run.attempts
        }
        self._is_shared = False
        """Whether a copy has the same dicts: a change makes new ones first."""
        self._dumped: bytes | None = None

    def take(self, event: RunEvent, name: LineName) -> None:
        """Take an event; one that was taken before changes nothing."""
        match event:
            case Opened() if name not in self._run_of:
                run_id = event.run_id or name
                run = self.runs.get(run_id) or Run(run_id, event.run, event.namespace)
                opened = OpenedAttempt(name, event.token, event.opened_at)
                self._put(run._replace(attempts=(*run.attempts, opened)))
                self._run_of[name] = run_id
            case RunRenamed(run_id=run_id) if run_id in self.runs:
                self._put(self.runs[run_id]._replace(label=event.run))

    def _put(self, run: Run) -> None:
        if self._is_shared:
            self.runs, self._run_of, self._is_shared = dict(self.runs), dict(self._run_of), False
        self.runs[run.run_id] = run
        self._dumped = None

    def find(self, label: str, namespace: str = DEFAULT_NAMESPACE) -> Run | None:
        """Return the latest run of a label, or None."""
        return next(
            (run for run in reversed(self.runs.values()) if run.label == label and run.namespace == namespace), None
        )

    def known(self, label: str) -> Run:
        """Return the same. Raises RequestRefused: there is none."""
        found = self.find(label)
        if found is None:
            raise RequestRefused(
                f"No run is named {label!r}.{_near(label, [run.label for run in self.runs.values()])}",
                hint="`kdproxy runs list` shows the runs of this data directory.",
                code="unknown_run",
                http_status=404,
            )
        return found

    def of_attempt(self, name: LineName) -> Run | None:
        """Return the run that an attempt belongs to, or None."""
        run_id = self._run_of.get(name)
        return None if run_id is None else self.runs[run_id]

    def dump(self) -> bytes:
        """Return JSON that `load` reads."""
        if self._dumped is None:
            self._dumped = orjson.dumps(
                [
                    [str(run.run_id), run.label, run.namespace, [[str(each.name), *each[1:]] for each in run.attempts]]
                    for run in self.runs.values()
                ]
            )
        return self._dumped

    @classmethod
    def load(cls, rows: list[Any]) -> "RunList":
        """Read the rows that `dump` wrote. Raises TypeError or ValueError."""
        found: dict[LineName, Run] = {}
        for run_id, label, namespace, attempts in rows:
            name = name_from(run_id)
            opened = (OpenedAttempt(name_from(each), str(token), float(at)) for each, token, at in attempts)
            found[name] = Run(name, str(label), str(namespace), tuple(opened))
        return cls(found)

    def copy(self) -> "RunList":
        """Return an independent copy."""
        self.dump()
        copy = RunList.__new__(RunList)
        copy.runs, copy._run_of, copy._dumped = self.runs, self._run_of, self._dumped
        copy._is_shared = self._is_shared = True
        return copy


def _near(name: str | None, names: Sequence[str]) -> str:
    close = [] if name is None else get_close_matches(name, names, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
