"""Where the jobs run: in this process, if it can have the data directory; else in the proxy that owns it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kdproxy.app import job_context, open_directory, read_directory
from kdproxy.cli.progress import shown
from kdproxy.cli.remote import RemoteDesk
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

Told = Callable[[dict[str, Any]], None]


class JobRunner(Protocol):
    """Takes jobs."""

    def start(self, arguments: job.Arguments) -> Events:
        """Start a job. Raises KdproxyError, here or while its events are asked for."""


@dataclass(frozen=True, slots=True)
class LocalJobRunner:
    """Runs jobs here."""

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
        writes: whether jobs will change something; if not, no byte of the directory changes.
        creates: make the directory where there is none; else that is an error.
        accepts_loss: take the journal as it is, whatever is known of lines that are gone.

    Raises:
        KdproxyError: there is no data, or a process without an API owns it.
    """
    configure(settings.log_level)
    path = settings.data_dir.expanduser()
    if not creates and not is_data_directory(path):
        raise KdproxyError(
            f"{path} is no data directory of kdproxy.",
            hint="Name it with --data-dir or KDPROXY_DATA_DIR; `kdproxy serve` and `kdproxy warm` make one.",
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


def run(desk: JobRunner, arguments: job.Arguments, *, title: str, tell: Told) -> dict[str, Any]:
    """Run a job to its end with a progress bar and return its result; `tell` gets what it finds."""
    result: dict[str, Any] | None = None
    for event in shown(desk.start(arguments), title=title):
        match event:
            case Finding(members=members):
                tell(members)
            case Result(members=members):
                result = members
    assert result is not None  # the last event of every job, or it raised
    return result


def live_lines(desk: JobRunner, *, title: str) -> Iterator[bytes]:
    """Yield the lines of the journal that a request would get today, with a progress bar."""
    for event in shown(desk.start(ExportArguments()), title=title):
        if isinstance(event, Line):
            yield event.text


def _owner_of(path: Path, busy: DirectoryBusy) -> JobRunner:
    owner = read_owner(path)
    if owner is None or owner.address is None:
        raise busy
    return RemoteDesk(owner.address, owner.token)
