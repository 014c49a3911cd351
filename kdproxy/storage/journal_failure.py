"""Errors for a log that cannot be written: what happened to its file, and how no line gets lost. No I/O."""

import os
import sys

from kdproxy.errors import StorageFailed


def refused(title: str, error: OSError) -> StorageFailed:
    """Return the error for a write that the disk refused."""
    return StorageFailed(
        f"The {title} could not be written ({error.strerror}).",
        hint="Free disk space. kdproxy holds the lines in memory and retries each second.",
        retryable=True,
    )


def shortened(name: str) -> StorageFailed:
    """Return the error for an active file that became shorter."""
    return StorageFailed(
        f"{name} in the data directory became shorter while this process writes it: another program cut it, such as "
        "logrotate with copytruncate.",
        hint=f"If that program made a copy, `cat COPY > {name}` puts the answers back, and this process continues by "
        "itself. Exclude the data directory from log rotation. Do not restart before: answers in memory would be lost.",
        retryable=True,
    )


def moved(name: str, descriptor: int) -> StorageFailed:
    """Return the error for an active file that was moved, replaced or deleted."""
    held = f" (Linux: cp /proc/{os.getpid()}/fd/{descriptor} FILE)" if sys.platform == "linux" else ""
    return StorageFailed(
        f"{name} in the data directory was moved, replaced or deleted while this process writes it.",
        hint="Put the file back under its name (some editors rename on saving). If it was deleted, copy it out of "
        f"this process{held} before you stop it, put the copy in its place and restart: lost answers would be "
        "bought again.",
        retryable=True,
    )


def taken() -> StorageFailed:
    """Return the error for a file that another process writes."""
    return StorageFailed(
        "Another process has taken or changed the journal.",
        hint="Two processes must not write one journal: stop one of them, then run `kdproxy verify`.",
    )
