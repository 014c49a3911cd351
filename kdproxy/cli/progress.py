"""A progress bar on stderr if that is a terminal, else nothing."""

from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from kdproxy.ops.event import Event, Events, Progress


def shown(events: Events, *, title: str) -> Iterator[Event]:
    """Yield a job's events; show its progress as a bar."""
    console = Console(stderr=True)
    with Bar(
        TextColumn(title),
        BarColumn(),
        TaskProgressColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
        redirect_stdout=False,
    ) as bar:
        task = bar.add_task(title, total=None)
        for event in events:
            if isinstance(event, Progress):
                bar.update(task, completed=event.done_bytes, total=event.total_bytes)
            else:
                yield event
