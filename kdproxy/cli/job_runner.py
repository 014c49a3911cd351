"""Where jobs run: in this process, if it can lock the data directory; else in the proxy that owns it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kdproxy.app import job_context, open_directory, read_directory
from kdproxy.cli.progress import shown
from kdproxy.cli.remote import RemoteJobRunner
from kdproxy.errors import DirectoryBusy, KdproxyError
from kdproxy.ops import job
from kdproxy.ops.context import JobContext
from kdproxy.ops.event import Events, Finding, Line, Result
from kdproxy.ops.export import ExportArguments
from kdproxy.settings import Settings
from kdproxy.storage.directory import DataDirectory
from kdproxy.storage.layout import is_data_directory
from kdproxy.storage.lock import read_owner
from kdproxy.storage.reading import ReadOnlyDirectory
from kdproxy.telemetry.log import configure

Report = Callable[[dict[str, Any]], None]


class JobRunner(Protocol):
    """Runs jobs."""

    def start(self, arguments: job.Arguments) -> Events:
        """Start a job. Raises KdproxyError, here or while its events are read."""


@dataclass(frozen=True, slots=True)
class LocalJobRunner:
    """Runs jobs in this process."""

    context: JobContext

    def start(self, arguments: job.Arguments) -> Events:
        """Start a job."""
        return job.start(self.context, arguments)


@contextmanager
def open_runner(
    settings: Settings, *, command: str, writes: bool, creates: bool = False, accepts_loss: bool = False
) -> Iterator[JobRunner]:
    """Open the data directory, or find the proxy that has it open.

    Args:
        writes: whether jobs will change the data; if not, no byte of the directory changes.
        creates: create a missing directory; otherwise a missing one is an error.
        accepts_loss: accept the journal as it is, even where lines are known to be lost.

    Raises:
        KdproxyError: the data directory does not exist, or a process without an API owns it.
    """
    configure(settings.log_level)
    path = settings.data_dir.expanduser()
    if not creates and not is_data_directory(path):
        raise KdproxyError(
            f"{path} is not a kdproxy data directory.",
            hint="Name it with --data-dir or KDPROXY_DATA_DIR; `kdproxy serve` and `kdproxy warm` create one.",
            code="no_data_dir",
        )
    directory: DataDirectory | ReadOnlyDirectory
    try:
        if writes:
            directory = open_directory(settings, command=f"kdproxy {command}", accepts_loss=accepts_loss)
        else:
            directory = read_directory(settings)
    except DirectoryBusy as busy:
        if accepts_loss:
            raise
        yield _owner_of(path, busy)
        return
    try:
        yield LocalJobRunner(job_context(settings, directory))
    finally:
        directory.close()


def run(runner: JobRunner, arguments: job.Arguments, *, title: str, report: Report) -> dict[str, Any]:
    """Run a job to its end with a progress bar and return its result; `report` gets each finding."""
    result: dict[str, Any] | None = None
    for event in shown(runner.start(arguments), title=title):
        match event:
            case Finding(members=members):
                report(members)
            case Result(members=members):
                result = members
    assert result is not None  # the last event of every job, or it raised
    return result


def live_lines(runner: JobRunner, *, title: str) -> Iterator[bytes]:
    """Yield the journal's live lines (those that a request would get now), with a progress bar."""
    for event in shown(runner.start(ExportArguments()), title=title):
        if isinstance(event, Line):
            yield event.text


def _owner_of(path: Path, busy: DirectoryBusy) -> JobRunner:
    owner = read_owner(path)
    if owner is None or owner.address is None:
        raise busy
    return RemoteJobRunner(owner.address, owner.token)
