"""A run as its files show it, live or ended. Read-only."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainhooks.core import row as rows
from trainhooks.errors import CheckpointInvalid, NoRun, SessionInvalid
from trainhooks.storage import branch, catalog, lock, metrics, responses, session, snapshot
from trainhooks.storage.catalog import Recoverable
from trainhooks.storage.checkpoints import CHECKPOINTS, Checkpoint, directories, published, set_aside
from trainhooks.storage.receipts import Receipt, issued
from trainhooks.storage.receipts import verify as verify_receipt
from trainhooks.storage.verification import verify as verify_checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Damage in a run's files."""

    where: str
    what: str


def find(path: Path) -> Path:
    """Return `path` if it is an output directory, or its parent if `path` is a `progress/` or `checkpoints/`.

    Raises:
        NoRun: neither holds a session.
    """
    inside = path.resolve().name in ("progress", CHECKPOINTS)
    for candidate in (path, path.resolve().parent) if inside else (path,):
        if (candidate / "progress" / session.NAME).exists():
            return candidate
    raise NoRun(
        f"{path} holds no run: there is no progress/{session.NAME}.",
        hint="Give the output_dir of a training that trainhooks recorded.",
    )


def status(output_dir: Path) -> dict[str, Any]:
    """Return the identity, state and last snapshot of a run, as JSON."""
    members = session.read(output_dir / "progress" / session.NAME)
    assert members is not None
    held = lock.holder(output_dir / "progress")
    last = snapshot.read(output_dir / "progress" / snapshot.NAME)
    found = recoverable(output_dir)
    attempts = members["attempts"]
    return {
        "output_dir": str(output_dir),
        "session_id": members["session_id"],
        "state": _state(attempts, is_held=held is not None),
        "holder": None if held is None else asdict(held),
        "created_at": members["created_at"],
        "attempts": len(attempts),
        "certificate": attempts[-1].get("certificate") if attempts else None,
        "seen_seconds_ago": None if last is None else max(0.0, time.time() - last["at"]),
        "progress": last,
        "checkpoints": len(found),
        "newest_checkpoint": asdict(live[-1]) if (live := live_of(output_dir, found)) else None,
    }


def _state(attempts: list[dict[str, Any]], *, is_held: bool) -> str:
    if is_held:
        return "running"
    return str(attempts[-1].get("end", "cut off")) if attempts else "not started"


def recoverable(output_dir: Path) -> list[Recoverable]:
    """Return every existing checkpoint, own and registered, oldest step first."""
    own = published(output_dir / CHECKPOINTS)
    others = [each for each in catalog.registered(output_dir).values() if (output_dir / each.path).exists()]
    return catalog.entries(output_dir, own, others)


def live_of(output_dir: Path, found: Iterable[Recoverable]) -> list[Recoverable]:
    """Return the checkpoints on the live branch, in order."""
    return catalog.live_of(found, branch.read(output_dir), published(output_dir / CHECKPOINTS))


def verify(output_dir: Path) -> Iterator[tuple[str, list[Problem]]]:
    """Yield (what was checked, its problems): each checkpoint byte by byte, then the other files line by line."""
    for path in directories(output_dir / CHECKPOINTS):
        name = str(path.relative_to(output_dir))
        try:
            verify_checkpoint(path)
            yield name, []
        except CheckpointInvalid as error:
            yield name, [Problem(where=name, what=error.message)]
    for path, reason in set_aside(output_dir / CHECKPOINTS):
        name = str(path.relative_to(output_dir))
        yield name, [Problem(where=name, what=reason)]
    name = f"progress/{session.NAME}"
    try:
        members = session.read(output_dir / name)
        yield name, []
    except SessionInvalid as error:
        members = None
        yield name, [Problem(where=name, what=error.message)]
    yield from _verify_registered(output_dir)
    published_ones = published(output_dir / CHECKPOINTS)
    for name, check in ((metrics.NAME, _verify_metrics), (responses.NAME, _verify_responses)):
        path = output_dir / "progress" / name
        if path.exists():
            cut = list(_verify_reach(path, published_ones)) if name == metrics.NAME else []
            yield f"progress/{name}", [*check(path), *cut]
        elif name == metrics.NAME and members is not None and members["attempts"]:
            yield f"progress/{name}", [Problem(where=f"progress/{name}", what="It is gone, with every row.")]


def _verify_registered(output_dir: Path) -> Iterator[tuple[str, list[Problem]]]:
    """Verify files of the user by size, those of a trainer by receipt.

    Users who keep the last few delete the others: a missing file is a problem only if no later one exists. Trainers may
    keep only the best: a missing file of theirs is a problem only if none exists.
    """
    receipts = {each.path: each for each in issued(output_dir)}
    entries = sorted(catalog.registered(output_dir).values(), key=lambda entry: (entry.step, entry.created_at))
    there = [number for number, entry in enumerate(entries) if (output_dir / entry.path).exists()]
    for number, entry in enumerate(entries):
        if number in there:
            yield entry.path, _verify_file(output_dir, entry, receipts.get(entry.path))
        elif not there or (number > there[-1] and entry.path not in receipts):
            yield entry.path, [Problem(where=entry.path, what="It was registered and is gone.")]


def _verify_file(output_dir: Path, entry: Recoverable, receipt: Receipt | None) -> list[Problem]:
    path = output_dir / entry.path
    if receipt is not None:
        try:
            verify_receipt(output_dir, receipt)
        except CheckpointInvalid as error:
            return [Problem(where=entry.path, what=error.message)]
    elif catalog.has_other_size(path, entry):
        what = f"Its size has changed since it was registered ({entry.size_bytes} bytes)."
        return [Problem(where=entry.path, what=what)]
    return []


def _verify_metrics(path: Path) -> Iterator[Problem]:
    expected = 0
    for number, line in enumerate(_whole_lines(path), 1):
        members = rows.decode(line)
        where = f"progress/{path.name}:{number}"
        if members is None:
            yield Problem(where=where, what="The line is damaged or of a newer version.")
            expected += 1
            continue
        if members["seq"] != expected:
            yield Problem(where=where, what=f"Line {expected} is expected here, but {members['seq']} follows.")
        expected = members["seq"] + 1


def _verify_reach(path: Path, checkpoints: list[Checkpoint]) -> Iterator[Problem]:
    """Rows are durable before the checkpoint of their steps is: a file that ends earlier has lost rows."""
    newest = max(checkpoints, key=lambda each: each.manifest.serial, default=None)
    if newest is None:
        return
    with path.open("rb") as file:
        tail = metrics.read_tail(file.fileno())
    steps = max((row["step"] for row in rows.settle(metrics.read_lines(path))), default=-1) + 1
    if steps < newest.manifest.step and tail.attempt <= newest.manifest.attempt:
        yield Problem(
            where=f"progress/{path.name}",
            what=f"Its rows end at step {steps - 1}, and {newest.path.name} was saved after them: rows were cut off.",
        )


def _verify_responses(path: Path) -> Iterator[Problem]:
    from kdproxy.core import record

    for number, line in enumerate(_whole_lines(path), 1):
        if record.read_prompt(line) is None and not record.is_whole(line):
            yield Problem(
                where=f"progress/{path.name}:{number}", what="The line is damaged: its checksum does not match."
            )


def _whole_lines(path: Path) -> Iterator[bytes]:
    """A torn last line is being written, or is cut off at the next start: no problem."""
    with path.open("rb") as file:
        yield from (line for line in file if line.endswith(b"\n"))
