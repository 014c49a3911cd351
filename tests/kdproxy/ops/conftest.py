"""A data directory of its own for each test, and jobs run on it to their end."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from kdproxy.core import key, record
from kdproxy.core.models import Address, Answer, Entry, Form, Tombstone, Turn, Usage
from kdproxy.core.routing import Router
from kdproxy.engine.clock import SystemClock
from kdproxy.ops import job
from kdproxy.ops.context import JobContext
from kdproxy.ops.event import Finding, Line, Result
from kdproxy.ops.runs.change import runs_at_rest
from kdproxy.storage.archive import FileArchive
from kdproxy.storage.directory import DataDirectory
from tests.kdproxy.sample import ENTRY

YES = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"yes"},"finish_reason":"stop"}]}'
NOW = 1_790_000_000.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a job said."""

    result: dict[str, Any]
    findings: list[dict[str, Any]]
    lines: list[bytes]


@dataclass(slots=True)
class Shelf:
    """A data directory with the jobs that work on it."""

    path: Path
    directory: DataDirectory

    @property
    def archive(self) -> FileArchive:
        return self.directory.archive

    def run(self, arguments: job.Arguments, *, now: float = NOW) -> Outcome:
        context = JobContext(
            library=self.archive,
            router=Router([]),
            on_runs=runs_at_rest(self.archive.calls, SystemClock()),
            now=lambda: now,
        )
        events = list(job.start(context, arguments))
        assert isinstance(events[-1], Result)
        return Outcome(
            events[-1].members,
            [event.members for event in events if isinstance(event, Finding)],
            [event.text for event in events if isinstance(event, Line)],
        )

    def prompt(self, text: str, *, model: str = "gpt-4.1", ordinal: int = 0, system: str | None = None) -> str | None:
        """Return what is recorded for a prompt."""
        turns = [Turn(role="user", text=text)]
        if system is not None:
            turns.insert(0, Turn(role="system", text=system))
        found = self.archive.find_prompt("default", key.match_key(model, turns), ordinal)
        return None if found is None else found.response

    def answer(self, name: str, form: Form = Form.JSON) -> bytes | None:
        """Return the answer that `entry` gave this name."""
        found = self.archive.find(address(name), form)
        return None if found is None else found.body

    def journal(self) -> bytes:
        return (self.path / "api_recovery.jsonl").read_bytes()


@pytest.fixture
def make_shelf(tmp_path: Path) -> Iterator[Callable[[str], Shelf]]:
    """Open data directories by name, again and again; all are closed at the end."""
    opened: dict[str, Shelf] = {}

    def make(name: str) -> Shelf:
        if name in opened:
            opened[name].directory.close()
        opened[name] = Shelf(tmp_path / name, DataDirectory.open(tmp_path / name, command="test"))
        return opened[name]

    yield make
    for shelf in opened.values():
        shelf.directory.close()


@pytest.fixture
def shelf(make_shelf: Callable[[str], Shelf]) -> Shelf:
    return make_shelf("data")


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Write rows to a file, bytes as they are and the rest as JSON; returns its path."""

    def write(name: str, *rows: Any) -> str:
        lines = [row if isinstance(row, bytes) else orjson.dumps(row) + b"\n" for row in rows]
        (tmp_path / name).write_bytes(b"".join(lines))
        return str(tmp_path / name)

    return write


def address(name: str) -> Address:
    return Address(namespace="default", key=key.prompt_hash(name))


@pytest.fixture
def entry() -> Callable[..., Entry]:
    """Make an entry whose key goes by its name."""

    def entry(
        name: str,
        body: bytes = YES,
        *,
        at: float = NOW - 1_000,
        form: Form = Form.JSON,
        request: Any = None,
        **members: Any,
    ) -> Entry:
        asked = {"model": "gpt-4.1", "messages": [{"role": "user", "content": name}]} if request is None else request
        made = ENTRY._replace(
            address=address(name),
            request=orjson.dumps(asked),
            model="gpt-4.1",
            answer=Answer(
                status=200,
                headers=(("Content-Type", "application/json"),),
                body=body,
                form=form,
                usage=Usage(input_tokens=10, output_tokens=5),
            ),
            cost_usd="0.001",
            created_at=at,
            elapsed_seconds=1.0,
        )
        return made._replace(**members)

    return entry


@pytest.fixture
def tombstone() -> Callable[..., Tombstone]:
    """Make the tombstone of an entry's name."""

    def tombstone(name: str, *, at: float = NOW - 500) -> Tombstone:
        return Tombstone(
            namespace="default", key=address(name).key, ordinal=0, kind="answer", reason="test", created_at=at
        )

    return tombstone


@pytest.fixture
def as_v1() -> Callable[[Entry | Tombstone], bytes]:
    """Write a record as a release wrote it that knew version 1 alone."""

    def as_v1(found: Entry | Tombstone) -> bytes:
        members = orjson.loads(record.encode(found))
        for later in ("v", "origin", "seq", "sha256"):
            del members[later]
        return record.seal(orjson.dumps({"v": 1, **members}))

    return as_v1
