"""Installed versions against known faults that matter here: a table with sources and dates.

A version that a distribution has patched keeps its number. So Python is asked how it behaves, and SQLite's fault,
against which kdproxy protects itself, is a note.
"""

import asyncio.selector_events
import os
import re
import sqlite3
import sys
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from typing import NamedTuple

from kdproxy.ops.doctor.check import Checks, note, ok, problem

READ_ON = "2026-11-22"
"""When the sources of the table were read."""


class Fault(NamedTuple):
    """A known fault of a package from PyPI."""

    package: str
    fixed_in: str
    """First release without it."""
    ids: str
    effect: str
    """What it means for this proxy."""
    source: str


FAULTS = (
    Fault(
        "aiohttp",
        "3.14.3",
        "CVE-2026-69244 (fixed in 3.14.3), CVE-2026-69243 and CVE-2026-59881 (3.14.2), or earlier ones",
        "requests can be smuggled in, and malformed ones can make it read outside of its memory or fill it",
        "the changelog and the advisories of aiohttp",
    ),
    Fault(
        "orjson",
        "3.11.6",
        "CVE-2025-67221",
        "deeply nested JSON can end the process",
        "advisory GHSA-hx9q-6w63-j58v",
    ),
)

UNFIXED = (
    Fault(
        "diskcache",
        "",
        "CVE-2025-69872",
        "it runs pickles that it finds in its database; kdproxy stores bytes only and refuses a row with a pickle, so "
        "this does not apply here",
        "grantjenks/python-diskcache#357",
    ),
)
"""Faults without a fixed release, which kdproxy prevents by itself."""

_WAL_RESET_FIXED = (3, 51, 3)
_WAL_RESET_BACKPORTS = ((3, 44, 6), (3, 50, 7))
"""sqlite.org/wal.html, section "The WAL-reset bug", read 2026-11-22."""

_WRITELINES_FIXED = {(3, 12): 9, (3, 13): 2}


def version_of(package: str) -> str | None:
    """Return the installed version."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def numbers_of(version: str) -> tuple[int, ...]:
    """Return the numbers of a release: (3, 14, 0) of 3.14.0rc1."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def check_packages(version_of: Callable[[str], str | None] = version_of) -> Checks:
    """Compare the installed packages with the table."""
    for fault in FAULTS:
        version = version_of(fault.package)
        if version is None:
            yield note("versions", f"The version of {fault.package} is not known: it has no metadata.")
        elif numbers_of(version) < numbers_of(fault.fixed_in):
            yield problem(
                "versions",
                f"{fault.package} {version} has {fault.ids}: {fault.effect} (source: {fault.source}, read {READ_ON}).",
                f"pip install --upgrade '{fault.package}>={fault.fixed_in}' in the environment of kdproxy, then start "
                "the proxy again.",
            )
        else:
            yield ok("versions", f"{fault.package} {version}")
    for fault in UNFIXED:
        version = version_of(fault.package)
        yield ok("versions", f"{fault.package} {version}: scanners report {fault.ids}, {fault.effect}")


def check_parser(has_extension: bool | None = None) -> Checks:
    """Check that aiohttp parses requests with its C extension: its parser in Python is slower and less used.

    Args:
        has_extension: None: look.
    """
    if has_extension is None:
        has_extension = find_spec("aiohttp._http_parser") is not None and not os.environ.get("AIOHTTP_NO_EXTENSIONS")
    if not has_extension:
        yield note(
            "versions",
            "aiohttp parses requests in Python, because its C extension is missing or switched off: that is slower, "
            "and its faults differ (CVE-2025-53643 was one).",
            "Install aiohttp from a wheel, and unset AIOHTTP_NO_EXTENSIONS.",
        )


def check_sqlite(version: str = sqlite3.sqlite_version) -> Checks:
    """Compare the linked SQLite with its WAL-reset bug."""
    if not has_wal_reset_bug(version):
        yield ok("versions", f"SQLite {version}")
        return
    yield note(
        "versions",
        f"SQLite {version} (linked to this Python) has the WAL-reset bug, unless your distribution fixed it: two "
        "connections that write and checkpoint at once can lose rows. kdproxy writes with one connection, so it is "
        "safe, and the index can be rebuilt from the journal.",
        "Do not open index/cache.db with another program while the proxy runs. SQLite 3.51.3, 3.50.7 and 3.44.6 have "
        "the fix.",
    )


def has_wal_reset_bug(version: str) -> bool:
    """Whether a release of SQLite has the bug."""
    numbers = numbers_of(version)
    backports = [fixed for fixed in _WAL_RESET_BACKPORTS if fixed[:2] == numbers[:2]]
    return (3, 7) <= numbers < _WAL_RESET_FIXED and not any(numbers >= fixed for fixed in backports)


def check_python(
    version: tuple[int, ...] = sys.version_info[:3], *, has_uvloop: bool, pauses: bool | None = None
) -> Checks:
    """Check asyncio's `writelines` (CVE-2024-12254), with which the proxy writes answers.

    Args:
        has_uvloop: whether uvloop's transports are used instead.
        pauses: whether it respects a full buffer; None: look at this Python.
    """
    shown = ".".join(map(str, version))
    if pauses is None:
        pauses = writelines_pauses()
    if pauses or has_uvloop or version[:2] not in _WRITELINES_FIXED:
        yield ok("versions", f"Python {shown}")
        return
    fixed = _WRITELINES_FIXED[(version[0], version[1])]
    yield problem(
        "versions",
        f"Python {shown} has CVE-2024-12254 (python/cpython#127655, read 2026-11-30): answers to a client that "
        "does not read are held in memory without a limit.",
        f"Use Python {version[0]}.{version[1]}.{fixed} or later, or install uvloop: pip install 'kdproxy[speed]'.",
    )


def writelines_pauses() -> bool:
    """Whether asyncio's `writelines` asks the protocol to pause; distributions fix releases without a new number."""
    transport = getattr(asyncio.selector_events, "_SelectorSocketTransport", None)
    code = getattr(getattr(transport, "writelines", None), "__code__", None)
    return code is None or "_maybe_pause_protocol" in code.co_names
