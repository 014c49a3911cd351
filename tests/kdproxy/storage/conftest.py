"""What the storage tests share: records to keep, and a small file system that can be full."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kdproxy.core.models import Address, Answer, Entry, Form

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
        return Entry(
            address=Address(namespace=namespace, key=f"{number:064x}", ordinal=ordinal),
            upstream=upstream,
            provider="openai",
            endpoint="chat.completions",
            method="POST",
            path="/v1/chat/completions",
            query="",
            request_headers=(),
            request=b'{"model":"m"}',
            prompt_hash=None,
            model="m",
            answer=Answer(status=200, headers=(), body=b"answer %d" % number if body is None else body, form=form),
            cost_usd=None,
            created_at=1790000000.0,
            elapsed_seconds=None,
            response_id=response_id,
        )

    return make


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB of its own; only root can mount one."""
    point = tmp_path / "disk"
    point.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m,nr_inodes=64,mode=0700", "tmpfs", str(point)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no right to mount a file system here")
    yield point
    subprocess.run(["umount", "-l", str(point)], check=True)
