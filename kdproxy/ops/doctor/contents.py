"""What lies in the data directory: its format, its segments, its owner. Not every line: that is `kdproxy verify`."""

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import orjson

from kdproxy.errors import DirectoryBusy
from kdproxy.ops.doctor.check import Check, Checks, note, ok, problem
from kdproxy.storage.consistency import judge
from kdproxy.storage.directory import INDEX_NAME, check_format
from kdproxy.storage.foreign import copies_beside, refuse_foreign
from kdproxy.storage.lock import Owner, read_owner, refuse_owned
from kdproxy.storage.log_files import ACTIVE_NAME, EVENT_FILES, SEALED
from kdproxy.storage.manifest import Manifest
from kdproxy.storage.reading import copy_index

_TAIL_BYTES = 1 << 20
_TIMES = ("created_at", "at")


def check_contents(path: Path, *, is_owned: bool) -> Checks:
    """Check the format and the files of the journal. Raises KdproxyError for what every verb refuses."""
    check_format(path)
    refuse_foreign(path)
    if copies := copies_beside(path):
        yield note(
            "journal",
            f"Files beside the journal are not read: {', '.join(copies)}.",
            "`kdproxy warm FILE` takes over answers that only they hold.",
        )
    manifest = Manifest.load(path)
    if manifest.is_damaged:
        yield note(
            "journal",
            "segments.json is damaged, so it does not show which sealed segments changed or are gone.",
            "Compare the segments with those of a copy. The next start makes it anew from what is there.",
        )
    changed = list(_changed(path, manifest))
    yield from changed
    if not is_owned:
        _refuse_lost(path, manifest)
    if not changed:
        yield ok("journal", f"{len(manifest.segments)} sealed segments have the size they were sealed with")


def find_owner(path: Path, *, on_network: bool) -> tuple[Owner | None, bool]:
    """Return the owner that the lock file names, and whether it owns the directory now. Raises OSError."""
    try:
        refuse_owned(path, is_network=on_network)
    except DirectoryBusy:
        return read_owner(path), True
    return read_owner(path), False


def check_owner(path: Path, owner: Owner | None, *, is_owned: bool, health: Check | None) -> Checks:
    """Say who owns the directory, and whether the last owner was killed.

    Args:
        health: what the owner's own API says; None: it has none, or was not asked.
    """
    if not is_owned and owner is None:
        yield ok("owner", f"no process uses {path}")
    elif not is_owned and owner is not None:
        yield note(
            "owner",
            f"The last owner, process {owner.pid} on {owner.host} ({owner.command}), ended without closing the "
            "directory: it was killed, or the machine stopped. What it stored is kept, and the directory is free.",
            "Nothing to do: the next start continues. `kdproxy stats` names calls that were in flight.",
        )
    elif owner is None:
        yield ok("owner", f"a process that has not written its name uses {path}")
    else:
        where = f" at {owner.address}" if owner.address else ""
        yield health or ok("owner", f"process {owner.pid} on {owner.host} ({owner.command}) uses it{where}")


def newest_line_at(path: Path) -> float | None:
    """Return the time of the newest line that was written here: of the events log, else of the journal."""
    for name in (EVENT_FILES.active, ACTIVE_NAME):
        with suppress(OSError):
            for line in _last_lines(path / name):
                with suppress(orjson.JSONDecodeError):
                    members = orjson.loads(line)
                    times = [members.get(each) for each in _TIMES] if isinstance(members, dict) else []
                    if found := [each for each in times if isinstance(each, int | float)]:
                        return float(found[0])
    return None


def _last_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
        lines = file.read(_TAIL_BYTES).split(b"\n")
    yield from reversed(lines[:-1])  # the last part has no end yet


def _changed(path: Path, manifest: Manifest) -> Checks:
    present = {each.name: each.stat().st_size for each in path.iterdir() if SEALED.fullmatch(each.name)}
    for name, sealed in sorted(manifest.segments.items()):
        if name not in present:
            yield problem(
                "journal",
                f"The sealed segment {name} ({sealed.bytes:,} bytes) is missing: its answers are bought again when "
                "they are requested.",
                "Restore it from a copy and start again. If it is gone for good: kdproxy verify --accept-loss",
            )
        elif not sealed.is_missing and present[name] != sealed.bytes:
            yield problem(
                "journal",
                f"The sealed segment {name} was changed: it had {sealed.bytes:,} bytes and has {present[name]:,}.",
                "`kdproxy verify` says which lines are damaged. Restore it from a copy and start again.",
            )


def _refuse_lost(path: Path, manifest: Manifest) -> None:
    """Raise StorageFailed if the journal is empty or gone and its index knows answers that were in it."""
    active = path / ACTIVE_NAME
    if (active.exists() and active.stat().st_size) or manifest.checksums:
        return
    with tempfile.TemporaryDirectory(prefix="kdproxy-") as scratch:
        copy = Path(scratch) / INDEX_NAME
        copy_index(path / INDEX_NAME, copy)
        judge(path, copy, manifest)
