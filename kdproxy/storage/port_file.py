"""The port file: a proxy's address, its process, and the secret that identifies it. docs/formats/port-file.md.

It appears once the proxy listens, complete and readable only for its owner, and is removed at a clean exit.
"""

import contextlib
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kdproxy.errors import KdproxyError

_LINE = re.compile(r"([a-z]+)=([\w.:/\[\]-]*)")
"""Safe for a shell to source: no blank, quote, dollar or glob."""
_LARGEST = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """A proxy that listens."""

    address: str
    """Base URL without a path."""
    port: int
    pid: int
    secret: str


def prepare(path: Path) -> None:
    """Remove the file of an earlier run, and check that a new one can be written.

    Raises:
        KdproxyError: it cannot be written.
    """
    try:
        path.unlink(missing_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(descriptor)
        Path(name).unlink()
    except OSError as error:
        raise _unwritable(path, error) from error


def write(path: Path, listening: Listening) -> None:
    """Write the file whole, or not at all. Raises KdproxyError."""
    lines = {
        "version": "1",
        "address": listening.address,
        "port": str(listening.port),
        "pid": str(listening.pid),
        "secret": listening.secret,
    }
    text = "".join(f"{name}={value}\n" for name, value in lines.items())
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
        try:
            with open(descriptor, "w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise
    except OSError as error:
        raise _unwritable(path, error) from error


def read(path: Path) -> Listening | None:
    """Return the content of a port file; None if it is missing or not a port file."""
    try:
        with path.open(encoding="ascii") as file:
            lines = file.read(_LARGEST).splitlines()
        found = {match[1]: match[2] for line in lines if (match := _LINE.fullmatch(line)) is not None}
        if found["version"] != "1":
            return None
        return Listening(
            address=found["address"], port=int(found["port"]), pid=int(found["pid"]), secret=found["secret"]
        )
    except (OSError, UnicodeDecodeError, KeyError, ValueError):
        return None


def remove(path: Path, listening: Listening) -> None:
    """Remove the file if it is still this proxy's."""
    if read(path) == listening:
        with contextlib.suppress(OSError):
            path.unlink()


def _unwritable(path: Path, error: OSError) -> KdproxyError:
    return KdproxyError(
        f"The port file {path} cannot be written ({error.strerror}).",
        hint="Give --port-file a path in an existing, writable directory, preferably on a local disk.",
        code="port_file_unwritable",
    )
