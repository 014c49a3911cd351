"""A checkpoint being written: a hidden directory beside the published ones, which all ranks fill together."""

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from trainhooks.core.manifest import FileRecord
from trainhooks.storage import atomic, durable_file, tensors
from trainhooks.storage.tensors import Blob

_SHARE = ".share-{:05d}.json"


class Draft:
    """What one rank has written of a checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: dict[str, FileRecord] = {}

    def write_tensors(self, name: str, blobs: Iterable[Blob], *, metadata: Mapping[str, str] | None = None) -> None:
        """Write `name`.safetensors; the name may begin with a folder."""
        file = name + tensors.SUFFIX
        (self.path / file).parent.mkdir(exist_ok=True)
        self.files[file] = tensors.write(self.path / file, blobs, metadata=metadata)

    def write_text(self, name: str, text: bytes) -> None:
        """Write a small file."""
        self.files[name] = durable_file.write(self.path / name, [memoryview(text)])

    def share(self, rank: int) -> None:
        """Report to rank 0 what this rank has written."""
        records = {name: asdict(record) for name, record in self.files.items()}
        atomic.write(self.path / _SHARE.format(rank), json.dumps(records).encode())

    def gather(self, world: int) -> None:
        """On rank 0: collect what the other ranks have written."""
        for rank in range(1, world):
            path = self.path / _SHARE.format(rank)
            self.files |= {name: FileRecord(**record) for name, record in json.loads(path.read_bytes()).items()}
            path.unlink()

    def sync(self) -> None:
        """Make the names of all files durable."""
        for folder in [self.path, *(path for path in self.path.rglob("*") if path.is_dir())]:
            atomic.sync_directory(folder)

    def discard(self) -> None:
        """Delete the draft; what cannot be deleted is removed at the next start."""
        shutil.rmtree(self.path, ignore_errors=True)
