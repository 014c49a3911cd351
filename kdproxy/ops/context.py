"""What a job works with."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from kdproxy.core.ports import Library
from kdproxy.core.routing import Router
from kdproxy.engine.runs import Runs
from kdproxy.errors import RequestRefused
from kdproxy.storage.manifest import Manifest

T = TypeVar("T")


class OnRuns(Protocol):
    """Changes runs on the event loop that owns them, and waits: the proxy's, or one for this change alone."""

    def __call__(self, change: Callable[[Runs], Coroutine[Any, Any, T]]) -> T:
        """Return what the change returns. Raises KdproxyError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobContext:
    """The archive, and the other inputs of a job."""

    library: Library
    router: Router
    on_runs: OnRuns
    now: Callable[[], float]
    """UTC Unix seconds."""
    manifest: Manifest | None = None
    """The state of the sealed segments when they were sealed."""
    index_trouble: str | None = None
    """What is wrong with the index, if it cannot be used."""
    serving: Callable[[], dict[str, Any]] | None = None
    """Totals and address of the proxy that owns the archive; None if no proxy runs."""


def malformed(what: str) -> RequestRefused:
    """Return the error that says why a job cannot be started."""
    return RequestRefused(
        f"The job cannot be started: {what}.", hint="Use the kdproxy command of the same release.", code="bad_arguments"
    )
