"""What the storage tests share: records to keep, and a small file system that can be full."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kdproxy.core.models import Address, Answer, Entry, Form
from kdproxy.storage.archive import FileArchive
from kdproxy.storage.disk import DiskStore
from kdproxy.storage.journal import Journal
from tests.kdproxy.sample import ENTRY

MakeEntry = Callable[..., Entry]


@pytest.fixture
def make_entry() -> MakeEntry:
    """Makes an entry: the k-th key with a body of its own."""

    def make(
        number: int = 0,
        *,
        body: bytes | None = None,
        form: Form = Form.JSON,
        ordinal: int = 0,
        namespace: str = "default",
        upstream: str = "openai",
        response_id: str | None = None,
    ) -> Entry:
        return ENTRY._replace(
            address=Address(namespace=namespace, key=f"{number:064x}", ordinal=ordinal),
            upstream=upstream,
            request=b'{"model":"m"}',
            answer=Answer(status=200, headers=(), body=b"answer %d" % number if body is None else body, form=form),
            created_at=1790000000.0,
            elapsed_seconds=None,
            response_id=response_id,
        )

    return make


class Open:
    """Opens the archive of one directory, anew each time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._archive: FileArchive | None = None

    def __call__(self, *, segment_bytes: int = 1 << 30, memory_bytes: int = 0) -> FileArchive:
        self.close()
        journal = Journal(self._directory, segment_bytes=segment_bytes)
        self._archive = FileArchive(journal, lambda: DiskStore(self._directory / "index"), memory_bytes=memory_bytes)
        return self._archive

    def twice(self, **settings: int) -> Iterator[FileArchive]:
        """Yield the archive as it stands, and then after a start."""
        assert self._archive is not None
        yield self._archive
        yield self(**settings)

    def close(self) -> None:
        if self._archive is not None:
            self._archive.close()
            self._archive = None


@pytest.fixture
def reopen(tmp_path: Path) -> Iterator[Open]:
    opener = Open(tmp_path)
    yield opener
    opener.close()
