"""Put numbered answers into a data directory, as if they had been bought: `fill.py DIRECTORY COUNT`."""

import asyncio
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import work

from kdproxy.core import canonical, key
from kdproxy.core.models import Address, Answer, Entry, Form, Question, Upstream
from kdproxy.core.routing import Router
from kdproxy.providers import question
from kdproxy.storage.archive import FileArchive
from kdproxy.storage.directory import DataDirectory

URL = "http://127.0.0.1:9/v1"
"""Where the upstream of a filled directory is said to be: the discard port, so that a miss cannot pass for a hit."""
_BATCH = 2_000


def main() -> None:
    directory = DataDirectory.open(Path(sys.argv[1]), command="benchmark")
    began = time.perf_counter()
    count = int(sys.argv[2])
    try:
        make = _Maker()
        for first in range(0, count, _BATCH):
            numbers = range(first, min(first + _BATCH, count))
            asyncio.run(_keep(directory.archive, map(make, numbers)))
    finally:
        directory.close()
    print(f"{count / (time.perf_counter() - began):.0f}")


async def _keep(archive: FileArchive, entries: Iterable[Entry]) -> None:
    """Keep them in one write."""
    assert all(await asyncio.gather(*(archive.keep(entry) for entry in entries)))


class _Maker:
    """Makes the entry of a number."""

    def __init__(self) -> None:
        self._upstream = Upstream(name=work.UPSTREAM, url=URL)
        self._path = Router([self._upstream]).route(work.PATH).path
        found = question.endpoint_of("POST", self._path)
        assert found is not None
        self._endpoint = found
        self._request, self._reply = work.request_body(), work.reply_body()

    def __call__(self, number: int) -> Entry:
        body = self._request.fill(number)
        asked = question.read(
            self._endpoint,
            question.Asking(upstream=self._upstream, path=self._path, query="", headers={}, body=body),
        )
        assert isinstance(asked, Question)
        return Entry(
            address=Address(namespace="default", key=asked.key),
            upstream=work.UPSTREAM,
            provider=asked.provider,
            endpoint=asked.endpoint,
            method="POST",
            path=self._path,
            query="",
            request_headers=(),
            request=canonical.single_line(body),
            prompt_hash=None,
            model=asked.model,
            answer=Answer(
                status=200,
                headers=(("Content-Type", "application/json"),),
                body=self._reply.fill(number),
                form=Form.JSON,
            ),
            cost_usd=None,
            created_at=1_760_000_000.0,
            elapsed_seconds=1.0,
            key_version=int(key.KEY_VERSION),
        )


if __name__ == "__main__":
    main()
