"""The errors of runs and their attempts."""

from kdproxy.errors import KdproxyError, RequestRefused


def not_durable(what: str, trouble: str) -> KdproxyError:
    """The events of a run are in memory only."""
    return KdproxyError(
        f"{what}: the events of the run are not on disk. {trouble}",
        hint="Free space on the data directory's disk and try again.",
        code="disk_refuses",
        http_status=503,
    )


def taken(label: str, token: str) -> KdproxyError:
    """A new attempt cannot have the token of an earlier one."""
    return RequestRefused(
        f"The run {label!r} has an attempt {token!r} already.",
        hint="Nothing was sent. Choose another token, or continue that attempt.",
        code="attempt_taken",
        http_status=409,
    )


def label_taken(label: str) -> KdproxyError:
    """A run cannot have the label of another one."""
    return RequestRefused(
        f"Another run is named {label!r}.",
        hint="Nothing was changed. Choose another name.",
        code="run_taken",
        http_status=409,
    )


def label_in_use(label: str) -> KdproxyError:
    """A run cannot have the label that requests of this process use for a renamed one."""
    return RequestRefused(
        f"A run was named {label!r} before, and clients of this proxy that use the name stay with that run.",
        hint="Nothing was changed. Choose another name, or restart the proxy and rename the run then.",
        code="run_name_in_use",
        http_status=409,
    )


def unknown_cursor(label: str) -> KdproxyError:
    """A cursor names no event of a run."""
    return RequestRefused(
        f"The cursor is not in the log of run {label!r}.",
        hint="It was taken in another data directory or another run, or the events log was lost. Nothing was changed.",
        code="unknown_cursor",
        http_status=409,
    )


def broken_history(label: str) -> KdproxyError:
    """The log lacks an event that a restored attempt names."""
    return KdproxyError(
        f"An attempt of run {label!r} was restored from a cursor whose event is not in the events log any more.",
        hint="Nothing was sent to the provider. Open a new attempt: it replays the stored samples from the first on.",
        code="broken_history",
        http_status=409,
    )
