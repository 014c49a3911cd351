"""The data directory's secret, `secret`, for fingerprints of credentials: they mean nothing elsewhere."""

import contextlib
import logging
import os
import re
import secrets
from pathlib import Path

from kdproxy.storage.durable import sync_directory

log = logging.getLogger("kdproxy.storage")

NAME = "secret"
_SECRET = re.compile(r"[0-9a-f]{64}\n?")


def load_secret(directory: Path) -> bytes:
    """Return the secret of a directory that this process owns; create a missing one.

    If it cannot be written, the proxy still serves, and the secret lasts as long as the process.
    """
    path = directory / NAME
    with contextlib.suppress(OSError, UnicodeDecodeError):
        text = path.read_text("ascii")
        if _SECRET.fullmatch(text):
            return bytes.fromhex(text.strip())
        log.warning("the data directory's secret is damaged and replaced: fingerprints of credentials change", extra={})
    made = secrets.token_bytes(32)
    try:
        _write(path, made)
    except OSError as error:
        log.warning("the data directory's secret could not be written", extra={"error": error.strerror})
    return made


def _write(path: Path, secret: bytes) -> None:
    temporary = path.with_name(f"{NAME}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret.hex().encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)
