"""Receipts: the files of a trainer's checkpoint, with sizes and SHA-256. docs/formats/receipt.md.

Trainers write checkpoints in pieces, sync nothing and keep no hash: what a kill or a full disk leaves looks like a
checkpoint. A receipt is written once every byte is on the medium, so a checkpoint with a receipt was complete; one that
no longer matches its receipt is damaged. The trainer's files are read and synced, never changed, moved or deleted.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from trainhooks.core.manifest import FileRecord
from trainhooks.errors import CheckpointInvalid
from trainhooks.storage import atomic, durable_file, location, rehearsal

log = logging.getLogger("trainhooks.storage")

RECEIPT_VERSION = 1
FOLDER = "receipts"
_TRAINERS = "checkpoint-*"
"""Checkpoint names of trainers that write directly into an output directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """One checkpoint of a trainer: a directory or a single file."""

    path: str
    """Relative to the output directory if inside it, else absolute."""
    step: int
    """Optimizer steps that were finished."""
    created_at: float
    """UTC Unix seconds."""
    files: Mapping[str, FileRecord]
    """By name relative to the checkpoint; a single file's name is empty."""


class Receipts:
    """Issues receipts in its own thread, one checkpoint after the other, while the training continues."""

    def __init__(self, output_dir: Path) -> None:
        self._output_dir = output_dir
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="trainhooks-receipts")

    def issue(self, path: Path, *, step: int) -> None:
        """Issue a receipt for a complete checkpoint in the background; it replaces an earlier one of its path."""
        self._thread.submit(self._issue, path, step)

    def wait(self) -> None:
        """Return once every receipt so far is durable."""
        self._thread.submit(int).result()

    def close(self) -> None:
        """Return once every receipt is durable."""
        self._thread.shutdown()

    def _issue(self, path: Path, step: int) -> None:
        try:
            issue(self._output_dir, path, step=step)
        except OSError as error:  # a full disk, or the trainer has deleted it meanwhile
            log.warning("%s has no receipt and will not be resumed from (%s)", path, error.strerror or error)


def issue(output_dir: Path, path: Path, *, step: int) -> Receipt:
    """Sync and hash a checkpoint, then write its receipt, durably. Delete receipts of deleted checkpoints.

    Raises:
        OSError: a file cannot be read or synced, or the receipt not be written.
    """
    files = {}
    for name in _names(path):
        with (path / name).open("rb") as file:
            atomic.sync_file(file.fileno())
        files[name] = durable_file.digest(path / name)
    for folder in {(path / name).parent for name in files} | {path.parent}:
        atomic.sync_directory(folder)
    receipt = Receipt(path=_relative(output_dir, path), step=step, created_at=time.time(), files=files)
    target = _location(output_dir, path)
    atomic.make_directory(target.parent)
    atomic.write(target, json.dumps({"v": RECEIPT_VERSION, **asdict(receipt)}, indent=1).encode() + b"\n")
    for other in issued(output_dir):
        if not (output_dir / other.path).exists():
            _location(output_dir, output_dir / other.path).unlink(missing_ok=True)
    return receipt


def issued(output_dir: Path) -> list[Receipt]:
    """Return all readable receipts, the newest checkpoint first; the checkpoints are not read."""
    found = []
    for path in (output_dir / "progress" / FOLDER).glob("*.json"):
        try:
            found.append(_decode(path.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("the receipt %s cannot be read (%s): its checkpoint is not used", path, error)
    return sorted(found, key=lambda receipt: (receipt.step, receipt.created_at), reverse=True)


def newest_good_checkpoint(output_dir: str | os.PathLike[str]) -> str | None:
    """Return the trainer's newest intact checkpoint, every byte verified, or None to start from the beginning.

    For `trainer.train(resume_from_checkpoint=...)` and `trainer.fit(ckpt_path=...)`. Reads the files of what it
    returns. Checkpoints that are damaged or have no receipt (a kill came before they were complete) are skipped and
    logged.
    """
    root = location.path("output_dir", output_dir)
    if (plan := rehearsal.current()) is not None:
        root = rehearsal.place(plan, root)
    found = newest_good(root)
    return None if found is None else str(root / found.path)


def newest_good(root: Path) -> Receipt | None:
    """Return the receipt of the newest checkpoint below an output directory that still matches it."""
    known = issued(root)
    unknown = {str(path.relative_to(root)) for path in root.glob(_TRAINERS)} - {receipt.path for receipt in known}
    if unknown:
        log.warning("not resumed from, because they have no receipt: %s", ", ".join(sorted(unknown)))
    for receipt in known:
        try:
            verify(root, receipt)
        except CheckpointInvalid as error:
            log.warning("%s", error)
        else:
            return receipt
    return None


def verify(output_dir: Path, receipt: Receipt) -> None:
    """Read every file of a checkpoint and compare it with its receipt.

    Raises:
        CheckpointInvalid: naming the first file that differs.
    """
    for name, record in receipt.files.items():
        path = output_dir / receipt.path / name
        hint = "An earlier checkpoint is used instead; keep two or more (save_total_limit, save_top_k)."
        try:
            found = durable_file.digest(path)
        except OSError as error:
            raise CheckpointInvalid(f"{path} cannot be read ({error.strerror}).", hint=hint) from error
        if found != record:
            raise CheckpointInvalid(f"{path} is damaged: it differs from what was written.", hint=hint)


def _names(path: Path) -> Iterator[str]:
    if path.is_dir():
        yield from (str(each.relative_to(path)) for each in sorted(path.rglob("*")) if each.is_file())
    else:
        yield ""


def _location(output_dir: Path, path: Path) -> Path:
    digest = hashlib.sha256(_relative(output_dir, path).encode()).hexdigest()[:16]
    return output_dir / "progress" / FOLDER / f"{path.name[:64]}.{digest}.json"


def _relative(output_dir: Path, path: Path) -> str:
    whole, root = path.absolute(), output_dir.absolute()
    return str(whole.relative_to(root)) if whole.is_relative_to(root) else str(whole)


def _decode(text: bytes) -> Receipt:
    members = json.loads(text)
    if members.pop("v") != RECEIPT_VERSION:
        raise ValueError("it was written by a newer trainhooks")
    return Receipt(**{**members, "files": {name: FileRecord(**file) for name, file in members["files"].items()}})
